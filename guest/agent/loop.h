#pragma once
/// The agent's one thread: descriptors, timers and ended children, each with what to do about it.

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "base/fd.h"
#include "base/result.h"

namespace agent {

using Timer = uint64_t;

class Loop {
 public:
  using OnReady = std::function<void(uint32_t events)>;
  using OnExit = std::function<void(int wait_status)>;

  /// Blocks SIGCHLD for this process, so it must come before the first child.
  base::Result<> prepare();
  /// `events` as for epoll_ctl. The descriptor stays the caller's.
  base::Result<> watch(int fd, uint32_t events, OnReady on_ready);
  /// Must come before the descriptor is closed. Harmless if it is not watched.
  void forget(int fd);
  Timer after_ms(int64_t delay_ms, std::function<void()> call);
  void cancel(Timer timer);
  void on_exit(pid_t child, OnExit call) { children_[child] = std::move(call); }
  /// Calls `call` once what is going on now is finished.
  void soon(std::function<void()> call) { after_ms(0, std::move(call)); }

  /// Waits once and does what is to be done.
  void run_once();

 private:
  struct Watch {
    OnReady on_ready;
  };
  void reap();
  void fire_timers();
  int wait_ms() const;

  base::UniqueFd epoll_;
  base::UniqueFd signals_;
  std::map<int, std::shared_ptr<Watch>> watches_;
  std::map<std::pair<int64_t, Timer>, std::function<void()>> timers_;
  std::map<Timer, int64_t> due_;
  Timer last_timer_ = 0;
  std::map<pid_t, OnExit> children_;
};

}  // namespace agent
