#pragma once
/// Time and threads over libuv. Work runs on libuv's pool (its size is the environment variable
/// UV_THREADPOOL_SIZE, set by the daemon before the first use); everything else on the loop.

#include <deque>
#include <map>
#include <memory>
#include <mutex>

#include "base/uv.h"
#include "reconciler/ports/workers.h"

namespace reconciler {

class UvWorkers : public WorkersPort {
 public:
  /// `loop` outlives the object; the destructor must run on the loop's thread, once no work is
  /// under way, and the loop must run once more afterwards so that libuv can close the handles.
  static base::Result<std::unique_ptr<UvWorkers>> create(uv_loop_t* loop);
  ~UvWorkers() override;

  void run(std::function<void()> work, std::function<void()> done) override;
  TimerId after(int64_t delay_ms, std::function<void()> fire) override;
  void cancel(TimerId timer) override;
  void post(std::function<void()> call) override;
  int64_t monotonic_ms() const override;
  int64_t wall_ns() const override;

 private:
  struct Timer {
    UvWorkers* owner = nullptr;
    TimerId id = 0;
    int64_t due_ms = 0;
    std::function<void()> fire;
    base::UvHandle<uv_timer_t> handle;
  };
  explicit UvWorkers(uv_loop_t* loop) : loop_(loop) {}
  static void on_posted(uv_async_t* async);
  static void on_timer(uv_timer_t* handle);
  void arm(Timer& timer);

  uv_loop_t* loop_;
  base::UvHandle<uv_async_t> wake_;
  std::mutex mutex_;
  std::deque<std::function<void()>> posted_;  // guarded by mutex_
  std::map<TimerId, Timer> timers_;
  TimerId last_timer_ = 0;
};

}  // namespace reconciler
