#include "cli/line_stream.h"

#include <cerrno>
#include <cstdint>
#include <utility>

#include <sys/eventfd.h>
#include <unistd.h>

#include "base/limits.h"

namespace cli {

using base::ErrorCode;
using base::Result;

namespace {

Result<base::UniqueFd> make_event() {
  base::UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return base::fail_errno(errno, "make an event");
  return event;
}

void raise_event(int event) {
  const uint64_t one = 1;
  (void)!::write(event, &one, sizeof one);
}

void clear_event(int event) {
  uint64_t count = 0;
  (void)!::read(event, &count, sizeof count);
}

}  // namespace

Result<> LineSplitter::feed(std::string_view bytes, const Sink& sink) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, end);
    if (partial_.size() + piece.size() > base::limits::cli_line_bytes_max)
      return base::fail(ErrorCode::InvalidState, "the daemon sent a line of more than {} bytes",
                        base::limits::cli_line_bytes_max);
    partial_ += piece;
    if (end == std::string_view::npos) return {};
    bytes.remove_prefix(end + 1);
    if (!partial_.empty()) TRY(sink(std::exchange(partial_, {})));
  }
  return {};
}

Result<std::unique_ptr<LineStream>> LineStream::open(const HttpClient& client, Request request) {
  base::UniqueFd event = TRY(make_event());
  base::UniqueFd cancel = TRY(make_event());
  return std::unique_ptr<LineStream>(
      new LineStream(client, std::move(request), std::move(event), std::move(cancel)));
}

LineStream::LineStream(HttpClient client, Request request, base::UniqueFd event,
                       base::UniqueFd cancel)
    : client_(std::move(client)),
      request_(std::move(request)),
      event_(std::move(event)),
      cancel_(std::move(cancel)) {
  request_.cancel_fd = cancel_.get();
  request_.silence_ms_max = -1;
  thread_ = std::thread([this] { read(); });
}

LineStream::~LineStream() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  raise_event(cancel_.get());
  taken_.notify_all();
  thread_.join();
}

void LineStream::read() {
  LineSplitter splitter;
  Result<> outcome = client_.stream(request_, [&](std::string_view bytes) {
    return splitter.feed(bytes, [this](std::string line) { return add(std::move(line)); });
  });
  const std::lock_guard lock(mutex_);
  outcome_ = std::move(outcome);
  raise_event(event_.get());
}

/// Waits while too much is unread: then the daemon is held back, too.
Result<> LineStream::add(std::string line) {
  std::unique_lock lock(mutex_);
  taken_.wait(lock,
              [this] { return cancelled_ || bytes_ < base::limits::cli_lines_unread_bytes_max; });
  if (cancelled_) return base::fail(ErrorCode::Cancelled, "given up");
  bytes_ += line.size();
  lines_.push_back(std::move(line));
  raise_event(event_.get());
  return {};
}

std::vector<std::string> LineStream::take() {
  const std::lock_guard lock(mutex_);
  clear_event(event_.get());
  std::vector<std::string> lines(std::make_move_iterator(lines_.begin()),
                                 std::make_move_iterator(lines_.end()));
  lines_.clear();
  bytes_ = 0;
  taken_.notify_all();
  return lines;
}

std::optional<Result<>> LineStream::outcome() {
  const std::lock_guard lock(mutex_);
  if (!lines_.empty()) return std::nullopt;
  return outcome_;
}

}  // namespace cli
