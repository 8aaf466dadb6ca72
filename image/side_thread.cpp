#include "image/side_thread.h"

#include <utility>

namespace image {

using base::Result;

SideThread::SideThread(Use use) : use_(std::move(use)) {
  thread_ = std::thread([this] { run(); });
}

SideThread::~SideThread() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void SideThread::begin(std::string_view piece) {
  (void)settle();
  const std::lock_guard lock(mutex_);
  if (outcome_) piece_ = piece;
  changed_.notify_all();
}

Result<> SideThread::settle() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return piece_.empty(); });
  return outcome_;
}

void SideThread::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ends_ || !piece_.empty(); });
    if (piece_.empty()) return;
    const std::string_view piece = piece_;
    lock.unlock();
    const Result<> used = use_(piece);
    lock.lock();
    outcome_ = used;
    piece_ = {};
    changed_.notify_all();
  }
}

}  // namespace image
