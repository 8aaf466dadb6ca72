#pragma once
/// Signals as events, and a terminal that passes every key on. Both are put back as they were on
/// every way out.

#include <initializer_list>
#include <optional>

#include <termios.h>
#include <csignal>

#include "base/fd.h"
#include "base/result.h"

namespace cli {

/// Takes signals from being delivered to being read. Make it before any thread.
class SignalQueue {
 public:
  static base::Result<SignalQueue> open(std::initializer_list<int> signals);
  SignalQueue(SignalQueue&&) = default;
  SignalQueue& operator=(SignalQueue&&) = delete;
  ~SignalQueue();

  /// Readable while a signal waits.
  int event() const { return fd_.get(); }
  std::optional<int> take();

 private:
  SignalQueue(base::UniqueFd fd, sigset_t before) : fd_(std::move(fd)), before_(before) {}
  base::UniqueFd fd_;
  sigset_t before_;
};

/// Raw mode of the terminal at stdin.
class RawTerminal {
 public:
  RawTerminal() = default;
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  ~RawTerminal() { leave(); }

  /// Does nothing where stdin is no terminal. Again after a stop by job control: once more.
  void enter();
  void leave();
  bool is_raw() const { return before_.has_value(); }

 private:
  std::optional<termios> before_;
};

}  // namespace cli
