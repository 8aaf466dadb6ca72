#pragma once
/// The port to time and threads. Implemented over libuv (reconciler/uv_workers.h) and by tests/sim
/// with a virtual clock, where "blocking" work takes as long as the fake drivers say.

#include <cstdint>
#include <functional>

namespace reconciler {

using TimerId = uint64_t;

class WorkersPort {
 public:
  virtual ~WorkersPort() = default;
  /// Runs `work` off the loop, then `done` on the loop. Work for different keys runs side by side.
  virtual void run(std::function<void()> work, std::function<void()> done) = 0;
  /// Calls `fire` on the loop after `delay_ms`, once, unless cancelled.
  virtual TimerId after(int64_t delay_ms, std::function<void()> fire) = 0;
  virtual void cancel(TimerId timer) = 0;
  /// Calls `call` on the loop, from any thread.
  virtual void post(std::function<void()> call) = 0;
  virtual int64_t monotonic_ms() const = 0;
  virtual int64_t wall_ns() const = 0;
};

}  // namespace reconciler
