#pragma once
/// One thread that waits for every descriptor of the runtime: agents, monitors, consoles, pidfds.
///
/// Callbacks run on that thread and must not block; blocking work belongs to the callers' threads,
/// which reach the loop by `post` (returns at once) or `run` (waits until it has been done).

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "base/fd.h"
#include "base/result.h"
#include "base/uv.h"

namespace runtime {

class IoLoop {
 public:
  static base::Result<std::unique_ptr<IoLoop>> create();
  ~IoLoop();
  IoLoop(const IoLoop&) = delete;
  IoLoop& operator=(const IoLoop&) = delete;

  void post(std::function<void()> call);
  void run(const std::function<void()>& call);
  bool on_loop_thread() const { return std::this_thread::get_id() == thread_.get_id(); }
  uv_loop_t* raw() { return &loop_; }

 private:
  IoLoop() = default;
  void serve();
  void drain();

  uv_loop_t loop_{};
  base::UvHandle<uv_async_t> wake_;
  std::mutex mutex_;
  std::deque<std::function<void()>> calls_;
  bool stopping_ = false;
  std::thread thread_;
};

/// A descriptor that becomes readable: a pidfd (the process ended) or a pipe. Made and destroyed
/// on the loop thread; the descriptor stays its owner's.
class LoopWatch {
 public:
  static base::Result<std::unique_ptr<LoopWatch>> create(IoLoop& loop, int fd,
                                                         std::function<void()> on_readable);

 private:
  explicit LoopWatch(std::function<void()> on_readable) : on_readable_(std::move(on_readable)) {}
  std::function<void()> on_readable_;
  base::UvHandle<uv_poll_t> poll_;
};

class LoopTimer {
 public:
  static base::Result<std::unique_ptr<LoopTimer>> create(IoLoop& loop,
                                                         std::function<void()> on_due);
  void start(uint64_t delay_ms);
  void stop();

 private:
  explicit LoopTimer(std::function<void()> on_due) : on_due_(std::move(on_due)) {}
  std::function<void()> on_due_;
  base::UvHandle<uv_timer_t> timer_;
};

struct LoopSocketHandler {
  std::function<void(std::string_view)> on_bytes;
  std::function<void(const std::string& reason)> on_closed;  ///< Once; then it is silent.
  std::function<void()> on_drained;  ///< What was queued by send() has been written.
};

/// A connected stream socket on the loop. Everything on the loop thread. `send` queues; who fills
/// it watches `queued()` and goes on in `on_drained`, which bounds the memory.
class LoopSocket {
 public:
  static base::Result<std::unique_ptr<LoopSocket>> create(IoLoop& loop, base::UniqueFd fd,
                                                          LoopSocketHandler handler);
  void send(std::string_view bytes);
  size_t queued() const { return outgoing_.size() - written_; }

 private:
  LoopSocket(base::UniqueFd fd, LoopSocketHandler handler)
      : fd_(std::move(fd)), handler_(std::move(handler)) {}
  void on_ready(int status, int events);
  void read_ready();
  void write_ready();
  void rearm();
  void close(const std::string& reason);

  base::UniqueFd fd_;
  LoopSocketHandler handler_;
  std::string outgoing_;
  size_t written_ = 0;
  bool closed_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  base::UvHandle<uv_poll_t> poll_;  // last: closed before the descriptor
};

}  // namespace runtime
