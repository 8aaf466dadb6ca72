#include "base/process.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"

namespace base {
namespace {

constexpr uint64_t proc_file_bytes_max = 64 * 1024;
constexpr size_t descriptors_max = 128;  ///< Given to one child: a VM's disk has up to 65 files.

Result<std::string> boot_id() {
  std::string id = TRY(read_file("/proc/sys/kernel/random/boot_id", proc_file_bytes_max));
  while (!id.empty() && id.back() == '\n') id.pop_back();
  return id;
}

Result<uint64_t> start_ticks_of(int64_t pid) {
  const std::string stat = TRY(read_file(fmt::format("/proc/{}/stat", pid), proc_file_bytes_max));
  // The command name in field 2 may hold spaces and parentheses; the last ')' ends it.
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return fail(ErrorCode::Io, "/proc/{}/stat is odd", pid);
  const std::vector<std::string> fields = split(std::string_view(stat).substr(name_end + 2), ' ');
  constexpr size_t start_time_field = 22 - 3;
  if (fields.size() <= start_time_field) return fail(ErrorCode::Io, "/proc/{}/stat is odd", pid);
  return std::strtoull(fields[start_time_field].c_str(), nullptr, 10);
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

/// What the child does between fork and exec: only system calls, no memory of the parent changed.
[[noreturn]] void become(const SpawnOptions& options, char* const* argv, char* const* envp,
                         int error_pipe, int highest_given) {
  if (options.new_session) ::setsid();
  // Everything is first lifted above the numbers it will land on, so that no dup2 overwrites the
  // source of a later one.
  int lifted[descriptors_max];
  size_t count = 0;
  for (const auto& [ours, theirs] : options.descriptors) {
    lifted[count] = ::fcntl(ours, F_DUPFD_CLOEXEC, highest_given + 2);
    ++count;
  }
  const int error_fd = ::fcntl(error_pipe, F_DUPFD_CLOEXEC, highest_given + 2);
  const int null_fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= 2; ++fd) ::dup2(null_fd, fd);
  for (size_t i = 0; i < count; ++i) ::dup2(lifted[i], options.descriptors[i].second);
  ::syscall(SYS_close_range, static_cast<unsigned>(std::max(highest_given, 2)) + 1, ~0U,
            CLOSE_RANGE_CLOEXEC);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  ::execve(argv[0], argv, envp);
  const int failure = errno;
  [[maybe_unused]] const ssize_t told = ::write(error_fd, &failure, sizeof failure);
  ::_exit(127);
}

}  // namespace

Result<ProcessIdentity> identify_process(int64_t pid) {
  ProcessIdentity identity;
  identity.pid = pid;
  identity.start_ticks = TRY(start_ticks_of(pid));
  identity.boot_id = TRY(boot_id());
  return identity;
}

Result<ProcessIdentity> spawn(const SpawnOptions& options) {
  if (options.arguments.empty() || options.descriptors.size() > descriptors_max)
    return fail(ErrorCode::Internal, "spawn: nothing to run, or too many descriptors");
  const std::vector<char*> argv = pointers(options.arguments);
  const std::vector<char*> envp = pointers(options.environment);
  int highest_given = 2;
  for (const auto& [ours, theirs] : options.descriptors)
    highest_given = std::max(highest_given, theirs);
  Pipe error = TRY(make_pipe());
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "fork");
  if (pid == 0) become(options, argv.data(), envp.data(), error.writer.get(), highest_given);
  error.writer.reset();
  int failure = 0;
  const ssize_t told = ::read(error.reader.get(), &failure, sizeof failure);
  if (told == static_cast<ssize_t>(sizeof failure)) {
    ::waitpid(pid, nullptr, 0);
    return fail_errno(failure, fmt::format("start '{}'", options.arguments[0]));
  }
  return identify_process(pid);
}

Result<UniqueFd> open_process(const ProcessIdentity& identity) {
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, identity.pid, 0)));
  if (!pidfd) {
    if (errno == ESRCH) return fail(ErrorCode::NotFound, "process {} is gone", identity.pid);
    return fail_errno(errno, "pidfd_open");
  }
  // Only now: the descriptor pins the process, so what we compare cannot change any more.
  const Result<ProcessIdentity> now = identify_process(identity.pid);
  if (!now || now->start_ticks != identity.start_ticks || now->boot_id != identity.boot_id)
    return fail(ErrorCode::NotFound, "process {} is gone", identity.pid);
  return pidfd;
}

Result<> signal_process(int pidfd, int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0 || errno == ESRCH) return {};
  return fail_errno(errno, "signal process");
}

Result<std::optional<int>> await_process(int pidfd, int64_t pid, const Deadline& deadline) {
  for (;;) {
    pollfd waited{.fd = pidfd, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&waited, 1, deadline.remaining_ms());
    if (ready > 0) break;
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
    if (ready == 0) return fail(ErrorCode::Timeout, "process {} still runs", pid);
  }
  int status = 0;
  if (::waitpid(static_cast<pid_t>(pid), &status, WNOHANG) == pid) return status;
  return std::nullopt;
}

Result<Finished> run_process(const std::vector<std::string>& arguments, const Deadline& deadline) {
  Pipe output = TRY(make_pipe());
  const char* path = std::getenv("PATH");
  const ProcessIdentity child = TRY(
      spawn({.arguments = arguments,
             .environment = {fmt::format("PATH={}", path ? path : "/usr/sbin:/usr/bin:/sbin:/bin"),
                             "LC_ALL=C"},
             .descriptors = {{output.writer.get(), 1}, {output.writer.get(), 2}}}));
  output.writer.reset();
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, child.pid, 0)));
  Finished finished;
  char buffer[4096];
  constexpr size_t output_bytes_max = 128 * 1024;
  for (;;) {
    pollfd waited{.fd = output.reader.get(), .events = POLLIN, .revents = 0};
    if (::poll(&waited, 1, deadline.remaining_ms()) == 0) {
      TRY(signal_process(pidfd.get(), SIGKILL));
      ::waitpid(static_cast<pid_t>(child.pid), nullptr, 0);
      return fail(ErrorCode::Timeout, "'{}' did not finish in time", arguments[0]);
    }
    const size_t count = TRY(read_some(output.reader.get(), buffer));
    if (count == 0) break;
    if (finished.output.size() < output_bytes_max) finished.output.append(buffer, count);
  }
  int status = 0;
  if (::waitpid(static_cast<pid_t>(child.pid), &status, 0) < 0) return fail_errno(errno, "wait");
  finished.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return finished;
}

}  // namespace base
