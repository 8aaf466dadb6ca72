#pragma once
/// Asks the host's name servers on behalf of guests.
///
/// Every query leaves by a socket of its own, with a random port and a random id, connected to the
/// server asked; an answer counts only if id and question match (RFC 5452). The servers are asked
/// one after another until one answers; a truncated answer is asked for again by TCP. Nothing is
/// cached. resolv.conf is looked at again whenever it has changed. Not thread-safe: one loop.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <uv.h>

#include "base/result.h"
#include "dns/resolv_conf.h"
#include "dns/wire.h"

namespace dns {

struct ForwarderOptions {
  std::string resolv_conf = "/etc/resolv.conf";  ///< Empty: only `upstreams`.
  std::vector<Upstream> upstreams;               ///< Used where resolv.conf is not.
  uint64_t timeout_ms = 2'000;                   ///< For one server.
  uint32_t rounds = 2;                           ///< Through the list of servers.
  size_t outstanding_max = 256;                  ///< More are answered SERVFAIL at once.
};

class Forwarder {
 public:
  /// Gets the answer, whole and addressed to the asker; SERVFAIL if no server had one.
  using Done = std::function<void(std::string reply)>;

  Forwarder(uv_loop_t* loop, ForwarderOptions options);
  ~Forwarder();
  Forwarder(const Forwarder&) = delete;
  Forwarder& operator=(const Forwarder&) = delete;

  /// `done` is called once from the loop, or at once; never after the forwarder is gone.
  void ask(Query query, Done done);
  size_t outstanding() const;

  struct State;  ///< Private; named here for the callbacks.

 private:
  std::unique_ptr<State> state_;
};

}  // namespace dns
