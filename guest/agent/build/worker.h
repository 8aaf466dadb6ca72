#pragma once
/// A process of the agent's own that does one piece of file work over a pipe: so that the agent
/// never waits for a disk, and whatever an archive does to the worker is not done to the agent.

#include <functional>
#include <memory>

#include "base/fd.h"
#include "base/result.h"
#include "guest/agent/loop.h"

namespace agent {

enum class PipeWay { ToWorker, FromWorker };

class Worker : public std::enable_shared_from_this<Worker> {
 public:
  /// `work` gets its end of the pipe. `done` is called once, with what it returned; not after
  /// `cancel`.
  static base::Result<std::shared_ptr<Worker>> start(Loop& loop, PipeWay way,
                                                     std::function<base::Result<>(int pipe)> work,
                                                     std::function<void(base::Result<>)> done);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Our end, non-blocking. Empty once closed.
  const base::UniqueFd& pipe() const { return pipe_; }
  void close_pipe();
  /// Ends it at once; `gone` is called when it is.
  void cancel(std::function<void()> gone);

 private:
  explicit Worker(Loop& loop) : loop_(loop) {}
  void on_exit(int wait_status);

  Loop& loop_;
  pid_t pid_ = -1;
  base::UniqueFd pipe_;
  base::UniqueFd report_;
  std::function<void(base::Result<>)> done_;
  std::function<void()> gone_;
};

}  // namespace agent
