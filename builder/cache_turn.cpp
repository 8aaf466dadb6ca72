#include "builder/cache_turn.h"

#include <map>

namespace builder {

std::shared_ptr<CacheTurn> CacheTurn::of(const std::string& id) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<CacheTurn>> all;
  const std::lock_guard lock(mutex);
  std::erase_if(all, [](const auto& each) { return each.second.expired(); });
  std::shared_ptr<CacheTurn> one = all[id].lock();
  if (!one) all[id] = one = std::make_shared<CacheTurn>();
  return one;
}

base::Result<std::shared_ptr<const void>> CacheTurn::take(Cancellation& cancellation) {
  // Whoever cancels holds the cancellation's own lock, so that it is not asked from in here.
  bool given_up = false;
  const auto listening = cancellation.on_cancel([&] {
    const std::lock_guard lock(mutex_);
    given_up = true;
    changed_.notify_all();
  });
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !taken_ || given_up; });
  if (given_up) return base::fail(base::ErrorCode::Cancelled, "the build was cancelled");
  taken_ = true;
  return std::shared_ptr<const void>(this, [self = shared_from_this()](const void*) {
    const std::lock_guard again(self->mutex_);
    self->taken_ = false;
    self->changed_.notify_all();
  });
}

}  // namespace builder
