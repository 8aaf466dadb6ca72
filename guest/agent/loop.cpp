#include "guest/agent/loop.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include "base/deadline.h"

namespace agent {

using base::fail_errno;
using base::Result;

Result<> Loop::prepare() {
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return fail_errno(errno, "epoll_create1");
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &mask, nullptr);
  signals_.reset(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return fail_errno(errno, "signalfd");
  return watch(signals_.get(), EPOLLIN, [this](uint32_t) { reap(); });
}

Result<> Loop::watch(int fd, uint32_t events, OnReady on_ready) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return fail_errno(errno, "watch a descriptor");
  watches_[fd] = std::make_shared<Watch>(Watch{std::move(on_ready)});
  return {};
}

void Loop::forget(int fd) {
  if (watches_.erase(fd) > 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

Timer Loop::after_ms(int64_t delay_ms, std::function<void()> call) {
  const int64_t at = base::boottime_ns() + delay_ms * 1'000'000;
  timers_.emplace(std::pair(at, ++last_timer_), std::move(call));
  due_[last_timer_] = at;
  return last_timer_;
}

void Loop::cancel(Timer timer) {
  const auto found = due_.find(timer);
  if (found == due_.end()) return;
  timers_.erase({found->second, timer});
  due_.erase(found);
}

int Loop::wait_ms() const {
  if (timers_.empty()) return -1;
  const int64_t left = timers_.begin()->first.first - base::boottime_ns();
  return static_cast<int>(std::clamp<int64_t>((left + 999'999) / 1'000'000, 0, 60'000));
}

void Loop::fire_timers() {
  const int64_t now = base::boottime_ns();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    const auto call = std::move(timers_.begin()->second);
    due_.erase(timers_.begin()->first.second);
    timers_.erase(timers_.begin());
    call();
  }
}

/// As PID 1 we are the parent of every orphan too; those nobody waits for are only taken away.
void Loop::reap() {
  std::array<signalfd_siginfo, 16> ignored;
  while (::read(signals_.get(), ignored.data(), sizeof ignored) > 0) {
  }
  int status = 0;
  pid_t child = 0;
  while ((child = ::waitpid(-1, &status, WNOHANG)) > 0) {
    const auto found = children_.find(child);
    if (found == children_.end()) continue;
    const OnExit call = std::move(found->second);
    children_.erase(found);
    call(status);
  }
}

void Loop::run_once() {
  std::array<epoll_event, 32> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), wait_ms());
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    const auto found = watches_.find(event.data.fd);
    if (found == watches_.end()) continue;  // Forgotten by an earlier call of this round.
    const std::shared_ptr<Watch> held = found->second;
    held->on_ready(event.events);
  }
  fire_timers();
}

}  // namespace agent
