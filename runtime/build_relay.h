#pragma once
/// Carries the connections of a build step to a socket of the host (`RUN --mount=type=ssh`).

#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "runtime/vm.h"

namespace runtime {

class BuildRelay {
 public:
  /// `sockets`: for the number of a mount, the socket on the host to connect to.
  BuildRelay(std::shared_ptr<Vm> vm, std::string step, std::map<size_t, std::string> sockets);
  /// Ends what is still carried.
  ~BuildRelay();
  BuildRelay(const BuildRelay&) = delete;
  BuildRelay& operator=(const BuildRelay&) = delete;

 private:
  struct Connection {
    std::shared_ptr<AgentStream> stream;
    base::UniqueFd socket;
    std::thread to_guest;
    std::thread to_host;
    std::atomic<int> running = 2;
  };

  void follow();
  void take_line(std::string_view line);
  void carry(const std::string& connection, const std::string& path);
  void reap();

  const std::shared_ptr<Vm> vm_;
  const std::string step_;
  const std::map<size_t, std::string> sockets_;
  std::mutex mutex_;  ///< Of `news_` and `stopping_`.
  bool stopping_ = false;
  std::shared_ptr<AgentStream> news_;
  std::list<Connection> connections_;  // follower only, until it is joined
  std::thread follower_;
};

}  // namespace runtime
