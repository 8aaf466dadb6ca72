#include "runtime/zygote/fork_threads.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csetjmp>
#include <csignal>
#include <cstring>
#include <ctime>

#include <dirent.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

namespace runtime {

using base::ErrorCode;
using base::fail;
using base::Result;

#if defined(__x86_64__)

namespace {

constexpr size_t threads_max = 64;
constexpr size_t first_stack_bytes = 16u << 10;  // Until a thread is back on its own.
constexpr size_t thread_memory_bytes = 2048;     // Where the C library keeps its number.
constexpr int patience_ms = 500;
constexpr long look_again_ns = 20'000'000;  // A wake-up is lost where a signal came in between.

struct Thread {
  pid_t number = 0;
  char* memory = nullptr;  ///< Thread-local; what the fs register holds.
  bool waits = false;      ///< In the kernel, for something to happen.
  jmp_buf place;
};

std::array<Thread, threads_max> threads;
size_t thread_count = 0;
alignas(16) std::array<std::array<char, first_stack_bytes>, threads_max> first_stacks;
/// Threads that have told where they stand, and threads that have gone on since.
std::atomic<int> parked = 0;
std::atomic<int> left = 0;
std::atomic<int> released = 0;
std::atomic<bool> parking = false;
/// Where in a thread's memory its number is: it has to know its new one.
size_t number_offset = 0;

pid_t own_number() { return static_cast<pid_t>(::syscall(SYS_gettid)); }

char* own_memory() {
  char* memory = nullptr;
  asm("mov %%fs:0, %0" : "=r"(memory));
  return memory;
}

bool knows_number(pid_t number) {
  return std::memcmp(own_memory() + number_offset, &number, sizeof number) == 0;
}

void await_change(std::atomic<int>& word, int seen) {
  const timespec patience{0, look_again_ns};
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, &patience, nullptr, 0);
}

void wake_all(std::atomic<int>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, threads_max, nullptr, nullptr, 0);
}

/// Whether the kernel will take up, or has just ended, a wait: of poll and its kin, which then say
/// so, or of a futex, which is asked again.
bool was_waiting(const ucontext_t& context) {
  constexpr std::array<unsigned char, 2> call = {0x0f, 0x05};
  const auto result = static_cast<int64_t>(context.uc_mcontext.gregs[REG_RAX]);
  const auto at = static_cast<uintptr_t>(context.uc_mcontext.gregs[REG_RIP]);
  const auto is_call = [&](uintptr_t where) {
    return std::memcmp(reinterpret_cast<const void*>(where), call.data(), call.size()) == 0;
  };
  if (result == -EINTR) return is_call(at - call.size());
  return result == SYS_futex && is_call(at);
}

/// Async-signal-safe. Runs on in the child as well, in a thread made for it.
void park(int, siginfo_t*, void* context) {
  const int error = errno;
  const pid_t number = own_number();
  Thread* self = nullptr;
  for (size_t i = 0; i < thread_count; ++i)
    if (threads[i].number == number) self = &threads[i];
  if (self == nullptr) return;
  const int round = released;
  if (!parking) return;  // Too late: they go on already.
  self->memory = own_memory();
  self->waits = was_waiting(*static_cast<const ucontext_t*>(context)) && knows_number(number);
  if (_setjmp(self->place) == 0) {
    ++parked;
    wake_all(parked);
    while (released == round) await_change(released, round);
    ++left;
    wake_all(left);
  }
  errno = error;
}

int go_on(void* thread) { _longjmp(static_cast<Thread*>(thread)->place, 1); }

/// Every thread but this one.
bool list_threads() {
  thread_count = 0;
  DIR* folder = ::opendir("/proc/self/task");
  if (folder == nullptr) return false;
  bool all = true;
  while (const dirent* entry = ::readdir(folder)) {
    pid_t number = 0;
    const char* end = entry->d_name + std::strlen(entry->d_name);
    if (std::from_chars(entry->d_name, end, number).ptr != end || number == own_number()) continue;
    all = all && thread_count < threads_max;
    if (all) threads[thread_count++].number = number;
  }
  ::closedir(folder);
  return all;
}

void release() {
  parking = false;
  const int count = parked;
  ++released;
  wake_all(released);
  for (int seen = left; seen < count; seen = left) await_change(left, seen);
}

/// False: not all of them were waiting.
bool park_others() {
  parked = 0;
  left = 0;
  parking = true;
  for (size_t i = 0; i < thread_count; ++i)
    if (::syscall(SYS_tgkill, ::getpid(), threads[i].number, parking_signal()) != 0) return false;
  timespec begin{};
  ::clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int seen = parked; seen < static_cast<int>(thread_count); seen = parked) {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    if ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1'000'000 >
        patience_ms)
      return false;
    await_change(parked, seen);
  }
  for (size_t i = 0; i < thread_count; ++i)
    if (!threads[i].waits) return false;
  return true;
}

bool make_others() {
  // As the C library makes threads: QEMU's filter of system calls lets nothing else pass.
  constexpr int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                        CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
  for (size_t i = 0; i < thread_count; ++i) {
    char* number = threads[i].memory + number_offset;
    if (::clone(go_on, first_stacks[i].data() + first_stack_bytes, flags, &threads[i], number,
                threads[i].memory, number) < 0)
      return false;
  }
  return true;
}

[[noreturn]] void stay() {
  for (;;) ::pause();
}

}  // namespace

int parking_signal() { return SIGRTMIN + 6; }

void prepare_to_fork_threads() {
  const pid_t number = own_number();
  for (size_t at = 0; at + sizeof number <= thread_memory_bytes; at += sizeof number)
    if (std::memcmp(own_memory() + at, &number, sizeof number) == 0) {
      number_offset = at;
      break;
    }
  struct sigaction action {};
  action.sa_sigaction = park;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  ::sigfillset(&action.sa_mask);
  ::sigaction(parking_signal(), &action, nullptr);
}

Result<pid_t> fork_with_threads(const std::function<bool()>& in_child) {
  if (number_offset == 0 || !knows_number(own_number()))
    return fail(ErrorCode::Unsupported, "an unknown C library");
  if (!list_threads()) return fail(ErrorCode::InvalidState, "too many threads to fork");
  if (!park_others()) {
    release();
    return fail(ErrorCode::InvalidState, "a thread is busy");
  }
  const auto child = static_cast<pid_t>(::syscall(SYS_clone, CLONE_CHILD_SETTID | SIGCHLD, nullptr,
                                                  nullptr, own_memory() + number_offset, 0));
  if (child == 0) {
    if (!in_child() || !make_others()) ::_exit(127);
    stay();
  }
  const int error = errno;
  release();
  if (child < 0) return base::fail_errno(error, "fork");
  return child;
}

#else

int parking_signal() { return SIGRTMIN + 6; }
void prepare_to_fork_threads() {}
Result<pid_t> fork_with_threads(const std::function<bool()>&) {
  return fail(ErrorCode::Unsupported, "threads are forked on x86-64 only");
}

#endif

}  // namespace runtime
