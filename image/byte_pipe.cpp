#include "image/byte_pipe.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace image {

using base::Result;

BytePipe::BytePipe(size_t buffer_bytes, size_t buffers) {
  for (size_t i = 0; i < buffers; ++i) empty_.push_back({.bytes = std::vector<char>(buffer_bytes)});
}

Result<> BytePipe::get_empty() {
  if (writing_) return {};
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return reader_error_ || !empty_.empty(); });
  if (reader_error_) return tl::unexpected<base::Error>(*reader_error_);
  writing_ = std::move(empty_.front());
  empty_.pop_front();
  writing_->used = 0;
  return {};
}

void BytePipe::hand_over() {
  const std::lock_guard lock(mutex_);
  full_.push_back(std::move(*writing_));
  writing_.reset();
  changed_.notify_all();
}

Result<> BytePipe::write(std::string_view bytes) {
  while (!bytes.empty()) {
    TRY(get_empty());
    const size_t count = std::min(bytes.size(), writing_->bytes.size() - writing_->used);
    std::memcpy(writing_->bytes.data() + writing_->used, bytes.data(), count);
    writing_->used += count;
    bytes.remove_prefix(count);
    if (writing_->used == writing_->bytes.size()) hand_over();
  }
  return {};
}

Result<bool> BytePipe::fill(const std::function<Result<size_t>(std::span<char>)>& fill) {
  TRY(get_empty());
  const size_t count = TRY(fill(std::span(writing_->bytes).subspan(writing_->used)));
  if (count == 0) return false;
  writing_->used += count;
  if (writing_->used == writing_->bytes.size()) hand_over();
  return true;
}

void BytePipe::finish(const Result<>& outcome) {
  if (writing_ && writing_->used > 0 && outcome) hand_over();
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  if (!outcome) writer_error_ = outcome.error();
  changed_.notify_all();
}

Result<std::string_view> BytePipe::next() {
  std::unique_lock lock(mutex_);
  if (reading_) {
    empty_.push_back(std::move(*reading_));
    reading_.reset();
    changed_.notify_all();
  }
  changed_.wait(lock, [&] { return finished_ || !full_.empty(); });
  if (writer_error_) return tl::unexpected<base::Error>(*writer_error_);
  if (full_.empty()) return std::string_view();
  reading_ = std::move(full_.front());
  full_.pop_front();
  return std::string_view(reading_->bytes.data(), reading_->used);
}

Result<size_t> BytePipe::read(std::span<char> buffer) {
  if (unread_.empty()) unread_ = TRY(next());
  const size_t count = unread_.copy(buffer.data(), buffer.size());
  unread_.remove_prefix(count);
  return count;
}

void BytePipe::leave() {
  leave(base::Error(base::ErrorCode::Cancelled, "nobody takes these bytes any more"));
}

void BytePipe::leave(base::Error error) {
  const std::lock_guard lock(mutex_);
  if (!reader_error_) reader_error_ = std::move(error);
  changed_.notify_all();
}

}  // namespace image
