#include "reconciler/uv_workers.h"

#include <algorithm>
#include <utility>

#include "base/deadline.h"
#include "base/log.h"

namespace reconciler {

base::Result<std::unique_ptr<UvWorkers>> UvWorkers::create(uv_loop_t* loop) {
  std::unique_ptr<UvWorkers> workers(new UvWorkers(loop));
  workers->wake_ = TRY(base::make_handle<uv_async_t>(
      [&](uv_async_t* handle) { return uv_async_init(loop, handle, on_posted); }));
  workers->wake_->data = workers.get();
  return workers;
}

UvWorkers::~UvWorkers() = default;

namespace {

struct Job {
  uv_work_t request{};
  std::function<void()> work;
  std::function<void()> done;
};

}  // namespace

void UvWorkers::run(std::function<void()> work, std::function<void()> done) {
  auto* job = new Job{{}, std::move(work), std::move(done)};
  job->request.data = job;
  const int status = uv_queue_work(
      loop_, &job->request, [](uv_work_t* request) { static_cast<Job*>(request->data)->work(); },
      [](uv_work_t* request, int) {
        const std::unique_ptr<Job> finished(static_cast<Job*>(request->data));
        finished->done();
      });
  if (status == 0) return;
  // Only a missing callback makes libuv refuse; then the work is done here rather than lost.
  spdlog::error("libuv refuses work: {}; doing it on the loop", uv_strerror(status));
  const std::shared_ptr<Job> refused(job);
  refused->work();
  post([refused] { refused->done(); });
}

TimerId UvWorkers::after(int64_t delay_ms, std::function<void()> fire) {
  const TimerId id = ++last_timer_;
  Timer& timer = timers_[id];
  timer.owner = this;
  timer.id = id;
  timer.due_ms = monotonic_ms() + std::max<int64_t>(delay_ms, 0);
  timer.fire = std::move(fire);
  auto handle =
      base::make_handle<uv_timer_t>([&](uv_timer_t* cell) { return uv_timer_init(loop_, cell); });
  if (!handle) {  // uv_timer_init cannot fail today; if it ever does, nothing may wait for ever
    spdlog::error("libuv makes no timer: {}; firing at once", handle.error().to_string());
    post([this, id] {
      const auto found = timers_.find(id);
      if (found == timers_.end()) return;
      const auto call = std::move(found->second.fire);
      timers_.erase(found);
      call();
    });
    return id;
  }
  timer.handle = std::move(*handle);
  timer.handle->data = &timer;  // map nodes do not move
  arm(timer);
  return id;
}

void UvWorkers::arm(Timer& timer) {
  const int64_t left = std::max<int64_t>(timer.due_ms - monotonic_ms(), 0);
  uv_update_time(loop_);
  uv_timer_start(timer.handle.get(), on_timer, static_cast<uint64_t>(left), 0);
}

void UvWorkers::on_timer(uv_timer_t* handle) {
  auto* timer = static_cast<Timer*>(handle->data);
  if (timer == nullptr) return;
  // libuv's clock stops while the host sleeps and ours does not; early is never right.
  if (timer->owner->monotonic_ms() < timer->due_ms) return timer->owner->arm(*timer);
  UvWorkers* owner = timer->owner;
  const auto fire = std::move(timer->fire);
  owner->timers_.erase(timer->id);
  fire();
}

void UvWorkers::cancel(TimerId timer) { timers_.erase(timer); }

void UvWorkers::post(std::function<void()> call) {
  {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(call));
  }
  uv_async_send(wake_.get());
}

void UvWorkers::on_posted(uv_async_t* async) {
  auto* self = static_cast<UvWorkers*>(async->data);
  if (self == nullptr) return;
  std::deque<std::function<void()>> calls;
  {
    const std::lock_guard lock(self->mutex_);
    calls.swap(self->posted_);
  }
  for (const auto& call : calls) call();
}

int64_t UvWorkers::monotonic_ms() const { return base::boottime_ns() / 1'000'000; }
int64_t UvWorkers::wall_ns() const { return base::wall_time_ns(); }

}  // namespace reconciler
