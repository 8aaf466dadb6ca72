#include "runtime/zygote/fork_threads.h"

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <utility>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

namespace {

constexpr unsigned patience_s = 20;
constexpr int tries_max = 100'000;

thread_local uint64_t own_mark = 0;
constexpr uint64_t teller_mark = 0x7e11e5;

struct Answer {
  pid_t process = 0;
  uint64_t mark = 0;  ///< Of the thread that answers.
};

/// Two threads that wait, one in poll() and one on a condition variable. Asked once, the first
/// wakes the second, which sees the first off and answers; a process forked from here ends with
/// that.
class Waiting {
 public:
  Waiting() : question_(base::make_pipe().value()), answer_(base::make_pipe().value()) {
    ::fcntl(question_.reader.get(), F_SETFL, O_NONBLOCK);
    hearer_ = std::thread([this] { hear(); });
    teller_ = std::thread([this] { tell(); });
  }
  ~Waiting() { teller_.join(); }

  void ask() { (void)!::write(question_.writer.get(), "?", 1); }

  Answer answer() {
    Answer told;
    const bool whole = ::read(answer_.reader.get(), &told, sizeof told) == sizeof told;
    return whole ? told : Answer{};
  }

 private:
  void hear() {
    char byte = 0;
    while (::read(question_.reader.get(), &byte, 1) != 1) {
      pollfd waited{question_.reader.get(), POLLIN, 0};
      ::poll(&waited, 1, -1);
    }
    const std::lock_guard lock(mutex_);
    asked_ = true;
    changed_.notify_all();
  }

  void tell() {
    own_mark = teller_mark;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return asked_; });
    }
    hearer_.join();
    const Answer told{.process = ::getpid(), .mark = own_mark};
    (void)!::write(answer_.writer.get(), &told, sizeof told);
    if (told.process != maker_) ::_exit(0);
  }

  const pid_t maker_ = ::getpid();
  base::Pipe question_;
  base::Pipe answer_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool asked_ = false;
  std::thread hearer_;
  std::thread teller_;
};

/// On a thread of its own, again while a thread that has just begun is busy.
base::Result<pid_t> fork_from_thread(bool goes_on) {
  base::Result<pid_t> child = base::fail(base::ErrorCode::Internal, "not tried");
  std::thread([&] {
    for (int i = 0; i < tries_max && !child; ++i) {
      child = runtime::fork_with_threads([&] { return goes_on; });
      if (!child) std::this_thread::yield();
    }
  }).join();
  return child;
}

int exit_code_of(pid_t child) {
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// What `work` returns, in a process whose only other threads are those it makes.
template <class Work>
int in_fresh_process(Work work) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(patience_s);
    runtime::prepare_to_fork_threads();
    ::_exit(work());
  }
  return exit_code_of(child);
}

}  // namespace

TEST_CASE("a process is forked with its threads, and both go on") {
  CHECK(in_fresh_process([] {
          Waiting waiting;
          const auto child = fork_from_thread(true);
          if (!child) return 1;
          waiting.ask();
          waiting.ask();
          const std::array<Answer, 2> answers{waiting.answer(), waiting.answer()};
          for (const Answer& each : answers)
            if (each.mark != teller_mark) return 2;
          const std::pair told{answers[0].process, answers[1].process};
          if (told != std::pair(::getpid(), *child) && told != std::pair(*child, ::getpid()))
            return 3;
          return exit_code_of(*child) == 0 ? 0 : 4;
        }) == 0);
}

TEST_CASE("it is forked as often as one likes") {
  CHECK(in_fresh_process([] {
          Waiting waiting;
          for (int i = 0; i < 20; ++i) {
            const auto child = fork_from_thread(true);
            if (!child) return 1;
            ::kill(*child, SIGKILL);
            if (exit_code_of(*child) != 128 + SIGKILL) return 2;
          }
          waiting.ask();
          return waiting.answer().process == ::getpid() ? 0 : 3;
        }) == 0);
}

TEST_CASE("a child that cannot begin ends, and its origin goes on") {
  CHECK(in_fresh_process([] {
          Waiting waiting;
          const auto child = fork_from_thread(false);
          if (!child || exit_code_of(*child) != 127) return 1;
          waiting.ask();
          return waiting.answer().process == ::getpid() ? 0 : 2;
        }) == 0);
}

TEST_CASE("while a thread is busy nothing is forked") {
  CHECK(in_fresh_process([] {
          std::atomic<bool> busy = true;
          std::atomic<uint64_t> rounds = 0;
          std::thread worker([&] {
            while (busy) ++rounds;
          });
          int result = 0;
          std::thread([&] {
            const auto child = runtime::fork_with_threads([] { return true; });
            if (child || child.error().code() != base::ErrorCode::InvalidState) result = 1;
          }).join();
          const uint64_t before = rounds;
          while (rounds == before) ::sched_yield();
          busy = false;
          worker.join();
          return result;
        }) == 0);
}
