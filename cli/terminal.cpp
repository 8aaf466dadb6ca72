#include "cli/terminal.h"

#include <cerrno>

#include <sys/signalfd.h>
#include <unistd.h>

namespace cli {

using base::Result;

Result<SignalQueue> SignalQueue::open(std::initializer_list<int> signals) {
  sigset_t wanted;
  sigset_t before;
  ::sigemptyset(&wanted);
  for (const int number : signals) ::sigaddset(&wanted, number);
  if (const int problem = ::pthread_sigmask(SIG_BLOCK, &wanted, &before); problem != 0)
    return base::fail_errno(problem, "block signals");
  base::UniqueFd fd(::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) {
    const int problem = errno;
    (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return base::fail_errno(problem, "wait for signals");
  }
  return SignalQueue(std::move(fd), before);
}

SignalQueue::~SignalQueue() {
  if (!fd_) return;
  while (take()) {
    // What nobody took in time must not kill us while we leave.
  }
  (void)::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

std::optional<int> SignalQueue::take() {
  signalfd_siginfo information{};
  if (::read(fd_.get(), &information, sizeof information) != sizeof information)
    return std::nullopt;
  return static_cast<int>(information.ssi_signo);
}

void RawTerminal::enter() {
  termios now{};
  if (::tcgetattr(STDIN_FILENO, &now) != 0) return;
  if (!before_) before_ = now;
  termios raw = *before_;
  ::cfmakeraw(&raw);
  (void)::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

void RawTerminal::leave() {
  if (!before_) return;
  // A background process that changes its terminal is stopped, unless it ignores this.
  const auto handler = std::signal(SIGTTOU, SIG_IGN);
  (void)::tcsetattr(STDIN_FILENO, TCSADRAIN, &*before_);
  (void)std::signal(SIGTTOU, handler);
  before_.reset();
}

}  // namespace cli
