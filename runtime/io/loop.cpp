#include "runtime/io/loop.h"

#include <cassert>
#include <cerrno>
#include <condition_variable>
#include <cstring>

#include <sys/socket.h>

namespace runtime {

using base::ErrorCode;
using base::fail;
using base::Result;

Result<std::unique_ptr<IoLoop>> IoLoop::create() {
  std::unique_ptr<IoLoop> made(new IoLoop);
  if (const int status = ::uv_loop_init(&made->loop_); status < 0)
    return fail(ErrorCode::Io, "event loop: {}", ::uv_strerror(status));
  auto wake = base::make_handle<uv_async_t>([&](uv_async_t* handle) {
    return ::uv_async_init(&made->loop_, handle, [](uv_async_t* async) {
      if (auto* self = static_cast<IoLoop*>(async->data)) self->drain();
    });
  });
  if (!wake) {
    ::uv_loop_close(&made->loop_);
    return tl::unexpected(std::move(wake.error()));
  }
  made->wake_ = std::move(*wake);
  made->wake_->data = made.get();
  made->thread_ = std::thread([self = made.get()] { self->serve(); });
  return made;
}

IoLoop::~IoLoop() {
  if (!thread_.joinable()) return;
  post([this] { stopping_ = true; });
  thread_.join();
}

void IoLoop::serve() {
  while (!stopping_) ::uv_run(&loop_, UV_RUN_ONCE);
  drain();
  wake_.reset();
  // Close callbacks free the handles; whatever is still open here was leaked by its owner.
  while (::uv_run(&loop_, UV_RUN_NOWAIT) != 0) {
    if (::uv_loop_close(&loop_) == 0) return;
    if (!::uv_loop_alive(&loop_)) break;
  }
  [[maybe_unused]] const int closed = ::uv_loop_close(&loop_);
  assert(closed == 0);
}

void IoLoop::drain() {
  std::deque<std::function<void()>> calls;
  {
    const std::lock_guard lock(mutex_);
    calls.swap(calls_);
  }
  for (const auto& call : calls) call();
}

void IoLoop::post(std::function<void()> call) {
  const std::lock_guard lock(mutex_);
  calls_.push_back(std::move(call));
  ::uv_async_send(wake_.get());
}

void IoLoop::run(const std::function<void()>& call) {
  if (on_loop_thread()) return call();
  std::mutex mutex;
  std::condition_variable done;
  bool finished = false;
  post([&] {
    call();
    const std::lock_guard lock(mutex);
    finished = true;
    done.notify_one();
  });
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return finished; });
}

Result<std::unique_ptr<LoopWatch>> LoopWatch::create(IoLoop& loop, int fd,
                                                     std::function<void()> on_readable) {
  std::unique_ptr<LoopWatch> made(new LoopWatch(std::move(on_readable)));
  made->poll_ = TRY(base::make_handle<uv_poll_t>(
      [&](uv_poll_t* handle) { return ::uv_poll_init(loop.raw(), handle, fd); }));
  made->poll_->data = made.get();
  const int status = ::uv_poll_start(
      made->poll_.get(), UV_READABLE | UV_DISCONNECT, [](uv_poll_t* poll, int, int) {
        if (auto* self = static_cast<LoopWatch*>(poll->data)) {
          const auto call = self->on_readable_;  // the callback may destroy its watch
          call();
        }
      });
  if (status < 0) return fail(ErrorCode::Io, "watch descriptor: {}", ::uv_strerror(status));
  return made;
}

Result<std::unique_ptr<LoopTimer>> LoopTimer::create(IoLoop& loop, std::function<void()> on_due) {
  std::unique_ptr<LoopTimer> made(new LoopTimer(std::move(on_due)));
  made->timer_ = TRY(base::make_handle<uv_timer_t>(
      [&](uv_timer_t* handle) { return ::uv_timer_init(loop.raw(), handle); }));
  made->timer_->data = made.get();
  return made;
}

void LoopTimer::start(uint64_t delay_ms) {
  ::uv_update_time(timer_->loop);
  ::uv_timer_start(
      timer_.get(),
      [](uv_timer_t* timer) {
        if (auto* self = static_cast<LoopTimer*>(timer->data)) {
          const auto call = self->on_due_;
          call();
        }
      },
      delay_ms, 0);
}

void LoopTimer::stop() { ::uv_timer_stop(timer_.get()); }

Result<std::unique_ptr<LoopSocket>> LoopSocket::create(IoLoop& loop, base::UniqueFd fd,
                                                       LoopSocketHandler handler) {
  TRY(base::set_nonblocking(fd.get(), true));
  std::unique_ptr<LoopSocket> made(new LoopSocket(std::move(fd), std::move(handler)));
  made->poll_ = TRY(base::make_handle<uv_poll_t>(
      [&](uv_poll_t* handle) { return ::uv_poll_init(loop.raw(), handle, made->fd_.get()); }));
  made->poll_->data = made.get();
  made->rearm();
  return made;
}

void LoopSocket::rearm() {
  if (closed_) return;
  const int events = UV_READABLE | (queued() > 0 ? UV_WRITABLE : 0);
  ::uv_poll_start(poll_.get(), events, [](uv_poll_t* poll, int status, int ready) {
    if (auto* self = static_cast<LoopSocket*>(poll->data)) self->on_ready(status, ready);
  });
}

void LoopSocket::on_ready(int status, int events) {
  if (status < 0) return close(::uv_strerror(status));
  const std::shared_ptr<bool> alive = alive_;
  const std::weak_ptr<bool> watch = alive_;
  (void)alive;
  if ((events & UV_WRITABLE) != 0) write_ready();
  if (watch.use_count() > 1 && !closed_ && (events & UV_READABLE) != 0) read_ready();
}

void LoopSocket::read_ready() {
  char buffer[64 * 1024];
  const ssize_t count = ::recv(fd_.get(), buffer, sizeof buffer, 0);
  if (count > 0) {
    const auto call = handler_.on_bytes;
    return call(std::string_view(buffer, static_cast<size_t>(count)));
  }
  if (count == 0) return close("the other side closed the connection");
  if (errno != EAGAIN && errno != EINTR) close(std::strerror(errno));
}

void LoopSocket::write_ready() {
  while (queued() > 0) {
    const ssize_t count =
        ::send(fd_.get(), outgoing_.data() + written_, queued(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count < 0) return close(std::strerror(errno));
    written_ += static_cast<size_t>(count);
  }
  if (queued() == 0) {
    outgoing_.clear();
    written_ = 0;
  }
  rearm();
  if (queued() == 0 && handler_.on_drained) {
    const auto call = handler_.on_drained;
    call();
  }
}

void LoopSocket::send(std::string_view bytes) {
  if (closed_ || bytes.empty()) return;
  const bool idle = queued() == 0;
  outgoing_.append(bytes);
  if (idle) rearm();
}

void LoopSocket::close(const std::string& reason) {
  if (closed_) return;
  closed_ = true;
  ::uv_poll_stop(poll_.get());
  const auto call = handler_.on_closed;
  if (call) call(reason);
}

}  // namespace runtime
