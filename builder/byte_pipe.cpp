#include "builder/byte_pipe.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace builder {

using base::ErrorCode;
using base::Result;

Result<> BytePipe::write(std::string_view bytes) {
  while (!bytes.empty()) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return left_ || bytes_.size() - taken_ < bytes_max_; });
    if (left_) return base::fail(ErrorCode::Cancelled, "nobody takes these bytes any more");
    if (taken_ > 0) bytes_.erase(0, std::exchange(taken_, 0));
    const size_t count = std::min(bytes.size(), bytes_max_ - bytes_.size());
    bytes_.append(bytes.substr(0, count));
    bytes.remove_prefix(count);
    changed_.notify_all();
  }
  return {};
}

void BytePipe::finish(Result<> outcome) {
  const std::lock_guard lock(mutex_);
  outcome_ = std::move(outcome);
  changed_.notify_all();
}

Result<size_t> BytePipe::read(std::span<char> buffer) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return taken_ < bytes_.size() || outcome_; });
  if (taken_ == bytes_.size()) {
    if (!*outcome_) return tl::unexpected<base::Error>(outcome_->error());
    return 0;
  }
  const size_t count = std::min(buffer.size(), bytes_.size() - taken_);
  std::memcpy(buffer.data(), bytes_.data() + taken_, count);
  taken_ += count;
  changed_.notify_all();
  return count;
}

void BytePipe::leave() {
  const std::lock_guard lock(mutex_);
  left_ = true;
  changed_.notify_all();
}

}  // namespace builder
