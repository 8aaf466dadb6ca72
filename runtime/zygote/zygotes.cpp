#include "runtime/zygote/zygotes.h"

#include <algorithm>
#include <chrono>

#include "base/file.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/text.h"

namespace runtime {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;

namespace {

/// Each takes some 100 MB, most of which its children would take without it.
constexpr size_t zygotes_max = 2;

/// Of a shape; what is in the way once may be gone the next time.
constexpr int failures_max = 3;
/// Of one making, where a rehearsal does not come to its end.
constexpr int tries_max = 2;

template <class Shapes>
bool contains(const Shapes& shapes, const qemu::Shape& shape) {
  return std::find(shapes.begin(), shapes.end(), shape) != shapes.end();
}

}  // namespace

void Zygotes::begin() {
  // A zygote ends with its daemon; what an earlier one left are folders.
  (void)base::remove_tree(options_.run_folder);
  worker_ = std::thread([this] { work(); });
}

Zygotes::~Zygotes() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (worker_.joinable()) worker_.join();
}

std::shared_ptr<Zygote> Zygotes::find(const qemu::Shape& shape) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(known_.begin(), known_.end(),
                                  [&](const Known& each) { return each.shape == shape; });
  if (found == known_.end()) return nullptr;
  known_.splice(known_.begin(), known_, found);
  return known_.front().zygote;
}

void Zygotes::want(const qemu::Shape& shape) {
  if (shape.accelerator != qemu::Accelerator::Tcg || find(shape)) return;
  const std::lock_guard lock(mutex_);
  if (contains(queue_, shape) || std::count(failed_.begin(), failed_.end(), shape) >= failures_max)
    return;
  queue_.push_back(shape);
  changed_.notify_all();
}

void Zygotes::drop(const qemu::Shape& shape, const std::string& reason) {
  spdlog::warn("a rehearsed machine is given up, what is forked from it does not come up: {}",
               reason);
  std::list<Known> gone;  // Ended without the lock.
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(known_.begin(), known_.end(),
                                  [&](const Known& each) { return each.shape == shape; });
  if (found == known_.end()) return;  // Another of its children has said so.
  failed_.push_back(shape);
  gone.splice(gone.begin(), known_, found);
}

Result<> Zygotes::settle(const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  while (!queue_.empty()) {
    if (deadline.passed()) return fail(ErrorCode::Timeout, "a machine is still being rehearsed");
    changed_.wait_for(lock, std::chrono::milliseconds(deadline.remaining_ms()));
  }
  return {};
}

void Zygotes::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const qemu::Shape shape = queue_.front();
    lock.unlock();
    Result<std::shared_ptr<Zygote>> made = make(shape);
    for (int i = 1; i < tries_max && !made && made.error().code() == ErrorCode::Timeout; ++i) {
      spdlog::info("a machine is rehearsed once more: {}", made.error().to_string());
      made = make(shape);
    }
    std::list<Known> superfluous;
    lock.lock();
    queue_.pop_front();
    if (made) {
      spdlog::info("a machine with {} network device(s) was rehearsed, others are forked from it",
                   shape.nics);
      known_.push_front({.shape = shape, .zygote = std::move(*made)});
      if (known_.size() > zygotes_max)
        superfluous.splice(superfluous.begin(), known_, std::prev(known_.end()));
    } else if (made.error().code() != ErrorCode::NotFound && !stopping_) {
      spdlog::warn("no machine can be rehearsed, containers of this shape start slower: {}",
                   made.error().to_string());
      failed_.push_back(shape);
    }
    changed_.notify_all();
    lock.unlock();
    superfluous.clear();
    lock.lock();
  }
}

Result<std::shared_ptr<Zygote>> Zygotes::make(const qemu::Shape& shape) {
  // Without a template there is none, for the time being: it is asked for again by every clone.
  TRY(templates_.settle(Deadline::in_ms(3 * base::limits::vm_boot_timeout_ms)));
  const auto origin = templates_.find(shape);
  if (!origin) return fail(ErrorCode::NotFound, "there is no template yet");
  const std::string uuid = base::random_uuid();
  const std::string run_folder = options_.run_folder + "/" + uuid;
  TRY(base::make_directories(run_folder));
  auto made = Zygote::make(loop_,
                           {.shape = shape,
                            .guest = options_.guest,
                            .launcher = options_.launcher,
                            .system = options_.system,
                            .uuid = uuid,
                            .run_folder = run_folder,
                            .empty_disk = options_.empty_disk,
                            .origin = origin,
                            .seed = options_.seed},
                           stopping_);
  (void)base::remove_tree(run_folder);
  return made;
}

}  // namespace runtime
