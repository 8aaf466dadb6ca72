#pragma once
/// The container's control group (cgroup v2): limits, counters, and who is still in it.

#include <functional>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "guest/agent/loop.h"
#include "guest/protocol/protocol.h"

namespace agent {

class Cgroup {
 public:
  explicit Cgroup(Loop& loop) : loop_(loop) {}
  ~Cgroup();
  Cgroup(const Cgroup&) = delete;
  Cgroup& operator=(const Cgroup&) = delete;

  /// Makes the group and sets the limits of `config`. `out_of_memory` is called after each kill.
  base::Result<> create();
  base::Result<> limit(const guest::ContainerConfig& config, std::function<void()> out_of_memory);
  /// The group, which is empty, becomes a new one without limits.
  base::Result<> start_over();
  int folder_fd() const { return folder_.get(); }
  /// Kills everything inside, and calls back once it is empty.
  base::Result<> kill_all(std::function<void()> empty);
  /// Everything but the interfaces.
  guest::Statistics statistics() const;

 private:
  base::Result<> limit_cpus(double cpus) const;
  base::Result<> write(const char* file, const std::string& value) const;
  void on_memory_event();

  Loop& loop_;
  base::UniqueFd folder_;
  base::UniqueFd memory_events_;
  base::UniqueFd population_;
  uint64_t kills_ = 0;
  std::function<void()> out_of_memory_;
};

}  // namespace agent
