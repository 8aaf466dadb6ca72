#include "api/byte_stream.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace api {

base::Result<std::shared_ptr<ByteStream>> ByteStream::create(size_t bytes_max) {
  base::UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return base::fail_errno(errno, "eventfd");
  return std::shared_ptr<ByteStream>(new ByteStream(bytes_max, std::move(event)));
}

void ByteStream::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t told = ::write(event_.get(), &one, sizeof one);
}

bool ByteStream::write(std::string_view bytes) {
  std::unique_lock lock(mutex_);
  while (!bytes.empty()) {
    room_.wait(lock, [this] { return closed_ || bytes_.size() < bytes_max_; });
    if (closed_) return false;
    const size_t count = std::min(bytes.size(), bytes_max_ - bytes_.size());
    bytes_.append(bytes.substr(0, count));
    bytes.remove_prefix(count);
    wake();
  }
  return !closed_;
}

bool ByteStream::push(std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes_.size() + bytes.size() > bytes_max_) closed_ = true;
  if (!closed_) bytes_.append(bytes);
  wake();
  return !closed_;
}

void ByteStream::finish() {
  const std::lock_guard lock(mutex_);
  finished_ = true;
  wake();
}

size_t ByteStream::read(std::span<char> buffer, int client) {
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      uint64_t ignored = 0;
      [[maybe_unused]] const ssize_t taken = ::read(event_.get(), &ignored, sizeof ignored);
      if (!bytes_.empty() && !closed_) {
        const size_t count = bytes_.copy(buffer.data(), buffer.size());
        bytes_.erase(0, count);
        room_.notify_all();
        return count;
      }
      if (finished_ || closed_) return 0;
    }
    std::array<pollfd, 2> waited{pollfd{.fd = event_.get(), .events = POLLIN, .revents = 0},
                                 pollfd{.fd = client, .events = POLLRDHUP, .revents = 0}};
    const int ready = ::poll(waited.data(), waited.size(), -1);
    if (ready < 0 && errno != EINTR) close();
    if (ready > 0 && waited[1].revents != 0) close();
  }
}

void ByteStream::close() {
  std::function<void()> told;
  {
    const std::lock_guard lock(mutex_);
    if (!closed_ && !finished_) told.swap(on_close_);
    closed_ = true;
    room_.notify_all();
    wake();
  }
  if (told) told();
}

void ByteStream::on_close(std::function<void()> call) {
  const std::lock_guard lock(mutex_);
  on_close_ = std::move(call);
}

bool ByteStream::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

}  // namespace api
