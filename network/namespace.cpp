#include "network/namespace.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "network/message.h"

namespace network {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;

constexpr int keeper_timeout_ms = 5'000;
constexpr int status_descriptor = 3;

/// What the child tells its parent about its start.
struct KeeperReport {
  int failed_errno = 0;
  bool user_namespace = false;  ///< The failing step was making or mapping a user namespace.
};

bool write_text(const char* path, const char* text) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool written = ::write(fd, text, std::strlen(text)) > 0;
  ::close(fd);
  return written;
}

KeeperReport enter_new_namespace(const char* uid_map, const char* gid_map) {
  if (::unshare(CLONE_NEWNET) == 0) return {};
  if (errno != EPERM) return {.failed_errno = errno};
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0 || !write_text("/proc/self/setgroups", "deny") ||
      !write_text("/proc/self/uid_map", uid_map) || !write_text("/proc/self/gid_map", gid_map))
    return {.failed_errno = errno, .user_namespace = true};
  return {};
}

int enter_existing_namespace(int user_namespace, int net_namespace) {
  if (user_namespace >= 0 && ::setns(user_namespace, CLONE_NEWUSER) != 0) return errno;
  return ::setns(net_namespace, CLONE_NEWNET) == 0 ? 0 : errno;
}

/// Lets go of everything inherited, reports, and stays for ever.
[[noreturn]] void keep(int report_to, KeeperReport report) {
  ::setsid();
  ::dup2(report_to, status_descriptor);
  ::syscall(SYS_close_range, static_cast<unsigned>(status_descriptor) + 1, ~0U, 0U);
  const int null = ::open("/dev/null", O_RDWR);
  for (int fd = 0; fd <= 2; ++fd) ::dup2(null, fd);
  if (null > 2) ::close(null);
  [[maybe_unused]] const int moved = ::chdir("/");
  ::prctl(PR_SET_NAME, "network-keeper");
  for (const int ignored : {SIGHUP, SIGINT, SIGPIPE}) ::signal(ignored, SIG_IGN);
  ::signal(SIGTERM, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  [[maybe_unused]] const ssize_t told = ::write(status_descriptor, &report, sizeof report);
  ::close(status_descriptor);
  if (report.failed_errno != 0) ::_exit(1);
  for (;;) ::pause();
}

tl::unexpected<base::Error> explain(const KeeperReport& report) {
  if (!report.user_namespace) return fail_errno(report.failed_errno, "make a network namespace");
  return fail(
      ErrorCode::Denied,
      "this host lets ordinary users make no user namespace ({}), which container networks need; "
      "as root allow it with `sysctl -w user.max_user_namespaces=15000`, on Debian also "
      "`kernel.unprivileged_userns_clone=1`, on Ubuntu "
      "`kernel.apparmor_restrict_unprivileged_userns=0`, or run the service as root",
      std::strerror(report.failed_errno));
}

/// Starts a keeper; `enter` runs in the child and must not allocate.
template <class Enter>
base::Result<Keeper> start_keeper(const Enter& enter) {
  base::Pipe status = TRY(base::make_pipe());
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "fork");
  if (pid == 0) keep(status.writer.get(), enter());
  status.writer.reset();
  KeeperReport report;
  const ssize_t count = ::read(status.reader.get(), &report, sizeof report);
  if (count != static_cast<ssize_t>(sizeof report) || report.failed_errno != 0) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    if (count != static_cast<ssize_t>(sizeof report))
      return fail(ErrorCode::Io, "the namespace's keeper ended before it was ready");
    return explain(report);
  }
  return open_keeper(TRY(base::identify_process(pid)));
}

bool same_namespace(int fd, const char* own) {
  struct stat theirs {};
  struct stat ours {};
  return ::fstat(fd, &theirs) == 0 && ::stat(own, &ours) == 0 && theirs.st_ino == ours.st_ino;
}

/// The child's half of run_inside.
[[noreturn]] void work_inside(const Keeper& keeper, int answer_to, const InsideWork& work) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int failed =
      enter_existing_namespace(keeper.user_namespace.get(), keeper.net_namespace.get());
  base::Result<InsideResult> result =
      failed != 0 ? base::Result<InsideResult>(fail_errno(failed, "enter the network's namespace"))
                  : work();
  std::vector<int> descriptors;
  if (result)
    for (const base::UniqueFd& fd : result->descriptors) descriptors.push_back(fd.get());
  const std::string text = result ? encode_success(result->text) : encode_failure(result.error());
  const auto sent = send_message(answer_to, text, descriptors);
  ::_exit(sent ? 0 : 1);
}

}  // namespace

base::Result<Keeper> make_keeper() {
  // Texts are made before the fork; the child only makes system calls.
  const std::string uid_map = fmt::format("0 {} 1", ::geteuid());
  const std::string gid_map = fmt::format("0 {} 1", ::getegid());
  return start_keeper([&] { return enter_new_namespace(uid_map.c_str(), gid_map.c_str()); });
}

base::Result<Keeper> revive_keeper(const Keeper& dead) {
  return start_keeper([&] {
    return KeeperReport{.failed_errno = enter_existing_namespace(dead.user_namespace.get(),
                                                                 dead.net_namespace.get())};
  });
}

base::Result<Keeper> open_keeper(const base::ProcessIdentity& identity) {
  Keeper keeper;
  keeper.process = identity;
  keeper.pidfd = TRY(base::open_process(identity));
  const std::string folder = fmt::format("/proc/{}/ns", identity.pid);
  keeper.net_namespace = TRY(base::open_file(folder + "/net", O_RDONLY));
  keeper.user_namespace = TRY(base::open_file(folder + "/user", O_RDONLY));
  if (same_namespace(keeper.user_namespace.get(), "/proc/self/ns/user"))
    keeper.user_namespace.reset();
  if (same_namespace(keeper.net_namespace.get(), "/proc/self/ns/net"))
    return fail(ErrorCode::NotFound, "process {} keeps no namespace", identity.pid);
  return keeper;
}

base::Result<InsideResult> run_inside(const Keeper& keeper, std::string_view doing,
                                      const InsideWork& work, const base::Deadline& deadline) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return fail_errno(errno, "socketpair");
  const base::UniqueFd ours(ends[0]);
  base::UniqueFd theirs(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "fork");
  if (pid == 0) work_inside(keeper, theirs.get(), work);
  theirs.reset();
  auto message = receive_message(ours.get(), deadline);
  ::kill(pid, SIGKILL);  // It has answered, or it never will; either way it must not linger.
  ::waitpid(pid, nullptr, 0);
  if (!message) return tl::unexpected(std::move(message.error()).during(fmt::format("{}", doing)));
  return InsideResult{.text = TRY_DURING(decode_reply(message->text), "{}", doing),
                      .descriptors = std::move(message->descriptors)};
}

}  // namespace network
