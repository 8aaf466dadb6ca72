#include "guest/agent/launch.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <map>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "guest/agent/accounts.h"
#include "guest/agent/capabilities.h"
#include "guest/agent/limits.h"
#include "guest/agent/timeline.h"

namespace agent {
namespace {

using base::Error;
using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

constexpr uint64_t own_namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC;
constexpr int joined_namespaces =
    CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP;
constexpr size_t report_bytes_max = 16 * 1024;
constexpr std::string_view default_path =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pid_t clone_process(uint64_t flags, int cgroup_fd) {
  clone_args arguments{};
  arguments.flags = flags;
  arguments.exit_signal = SIGCHLD;
  if (cgroup_fd >= 0) {
    arguments.flags |= CLONE_INTO_CGROUP;
    arguments.cgroup = static_cast<uint64_t>(cgroup_fd);
  }
  return static_cast<pid_t>(::syscall(SYS_clone3, &arguments, sizeof arguments));
}

/// One message, with a descriptor if there is one.
void say(int socket, const nlohmann::json& message, int descriptor = -1) {
  std::string text = base::dump_json(message).substr(0, report_bytes_max);
  iovec part{text.data(), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (descriptor >= 0) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* first = CMSG_FIRSTHDR(&header);
    first->cmsg_level = SOL_SOCKET;
    first->cmsg_type = SCM_RIGHTS;
    first->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(first), &descriptor, sizeof descriptor);
  }
  (void)::sendmsg(socket, &header, MSG_NOSIGNAL);
}

[[noreturn]] void give_up(int socket, const Error& error) {
  say(socket, {{"code", base::error_code_name(error.code())}, {"message", error.to_string()}});
  ::_exit(127);
}

/// Descriptors of the child's side; a terminal replaces all three.
struct Streams {
  UniqueFd in;
  UniqueFd out;
  UniqueFd err;
};

/// A pseudo terminal from the container's own devpts; the agent's end goes back over `socket`.
Result<UniqueFd> open_terminal(int socket, uint16_t rows, uint16_t columns) {
  UniqueFd controller =
      TRY_DURING(base::open_file("/dev/pts/ptmx", O_RDWR | O_NOCTTY), "make a terminal");
  int number = 0;
  int unlock = 0;
  if (::ioctl(controller.get(), TIOCSPTLCK, &unlock) != 0 ||
      ::ioctl(controller.get(), TIOCGPTN, &number) != 0)
    return fail_errno(errno, "make a terminal");
  const winsize size{rows, columns, 0, 0};
  ::ioctl(controller.get(), TIOCSWINSZ, &size);
  UniqueFd terminal = TRY(base::open_file(fmt::format("/dev/pts/{}", number), O_RDWR | O_NOCTTY));
  say(socket, {{"terminal", true}}, controller.get());
  return terminal;
}

Result<> take_streams(const guest::ProcessConfig& config, const Streams& streams,
                      const UniqueFd& terminal) {
  ::setsid();
  const int in = terminal ? terminal.get() : streams.in.get();
  const int out = terminal ? terminal.get() : streams.out.get();
  const int err = terminal ? terminal.get() : streams.err.get();
  if (::dup2(in, 0) < 0 || ::dup2(out, 1) < 0 || ::dup2(err, 2) < 0)
    return fail_errno(errno, "connect standard input and output");
  if (config.terminal && ::ioctl(0, TIOCSCTTY, 0) != 0)
    return fail_errno(errno, "take the terminal");
  return {};
}

Result<> set_rlimits(const guest::ProcessConfig& config) {
  static const std::map<std::string, int, std::less<>> names = {
      {"core", RLIMIT_CORE},         {"cpu", RLIMIT_CPU},
      {"data", RLIMIT_DATA},         {"fsize", RLIMIT_FSIZE},
      {"locks", RLIMIT_LOCKS},       {"memlock", RLIMIT_MEMLOCK},
      {"msgqueue", RLIMIT_MSGQUEUE}, {"nice", RLIMIT_NICE},
      {"nofile", RLIMIT_NOFILE},     {"nproc", RLIMIT_NPROC},
      {"rss", RLIMIT_RSS},           {"rtprio", RLIMIT_RTPRIO},
      {"rttime", RLIMIT_RTTIME},     {"sigpending", RLIMIT_SIGPENDING},
      {"stack", RLIMIT_STACK}};
  for (const guest::Rlimit& limit : config.rlimits) {
    const auto found = names.find(limit.name);
    if (found == names.end())
      return fail(ErrorCode::InvalidArgument, "there is no resource limit '{}'", limit.name);
    rlimit values{};
    values.rlim_cur = limit.soft < 0 ? RLIM_INFINITY : static_cast<rlim_t>(limit.soft);
    values.rlim_max = limit.hard < 0 ? RLIM_INFINITY : static_cast<rlim_t>(limit.hard);
    if (::setrlimit(static_cast<__rlimit_resource>(found->second), &values) != 0)
      return fail_errno(errno, fmt::format("set the limit '{}'", limit.name));
  }
  return {};
}

Result<Account> account_of(const guest::ProcessConfig& config) {
  const auto passwd = base::open_file("/etc/passwd", O_RDONLY | O_NONBLOCK);
  const auto group = base::open_file("/etc/group", O_RDONLY | O_NONBLOCK);
  return resolve_account(config.user, config.groups,
                         {passwd ? passwd->get() : -1, group ? group->get() : -1});
}

Result<> become(const Account& account, const guest::ProcessConfig& config) {
  const uint64_t wanted = TRY(capability_bits(config.capabilities));
  TRY(limit_bounding_set(wanted));
  if (::setgroups(account.groups.size(), account.groups.data()) != 0)
    return fail_errno(errno, "set supplementary groups");
  if (::setresgid(account.gid, account.gid, account.gid) != 0)
    return fail_errno(errno, fmt::format("become group {}", account.gid));
  if (::setresuid(account.uid, account.uid, account.uid) != 0)
    return fail_errno(errno, fmt::format("become user {}", account.uid));
  // As with other engines: root has the set, others get it only through files that carry it.
  TRY(set_capabilities(account.uid == 0 ? wanted : 0));
  if (config.no_new_privileges && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return fail_errno(errno, "give up new privileges");
  return {};
}

void reset_signals() {
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

bool has_variable(const std::vector<std::string>& environment, std::string_view name) {
  return std::any_of(environment.begin(), environment.end(), [&](const std::string& entry) {
    return entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=';
  });
}

/// What is missing of it is made, as by other engines: of root, open to everybody.
Result<> enter_working_directory(const std::string& path) {
  for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1))
    (void)::mkdir(path.substr(0, at).c_str(), 0755);
  (void)::mkdir(path.c_str(), 0755);
  if (::chdir(path.c_str()) != 0) return fail_errno(errno, fmt::format("enter '{}'", path));
  return {};
}

/// From inside the container's namespaces to the user's program. Returns only to report failure.
Result<> run_program(const guest::ProcessConfig& config, const Streams& streams, int report) {
  UniqueFd terminal;
  if (config.terminal) terminal = TRY(open_terminal(report, config.rows, config.columns));
  TRY(take_streams(config, streams, terminal));
  TRY(set_rlimits(config));
  const Account account = TRY(account_of(config));
  std::vector<std::string> environment = config.environment;
  if (!has_variable(environment, "HOME")) environment.push_back("HOME=" + account.home);
  ::umask(022);
  TRY(enter_working_directory(config.working_directory));
  TRY(become(account, config));
  if (config.arguments.empty() || config.arguments[0].empty())
    return fail(ErrorCode::InvalidArgument,
                "there is no command: neither the image nor the request names one");
  const std::string program = TRY(find_executable(config.arguments[0], environment));
  std::vector<std::string> arguments = config.arguments;
  reset_signals();
  ::syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
  timeline().mark("its user, limits and program");
  if (timeline().on()) say(report, {{"spans", base::to_json(timeline().spans())}});
  ::execve(program.c_str(), pointers(arguments).data(), pointers(environment).data());
  if (errno == ENOEXEC)
    return fail(ErrorCode::InvalidArgument,
                "'{}' is no program this machine can run: wrong architecture, or a script without "
                "#! in its first line",
                program);
  return fail_errno(errno, fmt::format("run '{}'", program));
}

int exit_code_of(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/// PID 1 of the container: takes away what ends, passes signals on, ends as the program ends.
[[noreturn]] void reap_for(pid_t program) {
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_BLOCK, &all, nullptr);
  ::syscall(SYS_close_range, 0u, ~0u, 0u);
  for (;;) {
    siginfo_t info{};
    const int number = ::sigwaitinfo(&all, &info);
    if (number != SIGCHLD) {
      if (number > 0) ::kill(program, number);
      continue;
    }
    int status = 0;
    pid_t child = 0;
    while ((child = ::waitpid(-1, &status, WNOHANG)) > 0)
      if (child == program) ::_exit(exit_code_of(status));
  }
}

[[noreturn]] void run_in_new_namespaces(const guest::ProcessConfig& config, const Place& place,
                                        Streams& streams, int report) {
  const auto prepared = [&]() -> Result<> {
    if (::unshare(CLONE_NEWCGROUP) != 0) return fail_errno(errno, "make a cgroup namespace");
    return place.prepare ? place.prepare(report) : Result<>();
  }();
  if (!prepared) give_up(report, prepared.error());
  if (place.body != nullptr) {
    if (const auto taken = take_streams(config, streams, {}); !taken)
      give_up(report, taken.error());
    ::syscall(SYS_close_range, 3u, ~0u, 0u);
    place.body();
  }
  if (place.init) {
    const pid_t program = ::fork();
    if (program > 0) reap_for(program);
    if (program < 0) give_up(report, Error(ErrorCode::Io, "fork failed"));
  }
  const auto ended = run_program(config, streams, report);
  give_up(report, ended.error());
}

/// A process cannot change its own PID namespace, only that of its children: so a second one is
/// made, as our sibling, for the agent to wait for.
[[noreturn]] void run_in_joined_namespaces(const guest::ProcessConfig& config, const Place& place,
                                           Streams& streams, int report) {
  if (::setns(place.join_pidfd, joined_namespaces) != 0)
    give_up(report, Error(ErrorCode::InvalidState, "the container is not running"));
  clone_args arguments{};
  arguments.flags = CLONE_PARENT;
  const auto inner = static_cast<pid_t>(::syscall(SYS_clone3, &arguments, sizeof arguments));
  if (inner < 0) give_up(report, Error(ErrorCode::Io, "clone failed"));
  if (inner > 0) {
    say(report, {{"pid", inner}});
    ::_exit(0);
  }
  // Not before the agent knows whose end to wait for.
  char go = 0;
  if (::recv(report, &go, 1, 0) != 1) ::_exit(127);
  const auto ended = run_program(config, streams, report);
  give_up(report, ended.error());
}

Result<Streams> make_streams(const guest::ProcessConfig& config, Launched& agent_side) {
  Streams streams;
  if (config.terminal) return streams;
  if (config.stdin_open) {
    base::Pipe in = TRY(base::make_pipe());
    streams.in = std::move(in.reader);
    agent_side.stdin_writer = std::move(in.writer);
    TRY(base::set_nonblocking(agent_side.stdin_writer.get(), true));
  } else {
    streams.in = TRY(base::open_file("/dev/null", O_RDONLY));
  }
  base::Pipe out = TRY(base::make_pipe());
  base::Pipe err = TRY(base::make_pipe());
  streams.out = std::move(out.writer);
  streams.err = std::move(err.writer);
  agent_side.stdout_reader = std::move(out.reader);
  agent_side.stderr_reader = std::move(err.reader);
  TRY(base::set_nonblocking(agent_side.stdout_reader.get(), true));
  TRY(base::set_nonblocking(agent_side.stderr_reader.get(), true));
  return streams;
}

UniqueFd descriptor_of(msghdr& header) {
  for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr; each = CMSG_NXTHDR(&header, each)) {
    if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
    int descriptor = -1;
    std::memcpy(&descriptor, CMSG_DATA(each), sizeof descriptor);
    return UniqueFd(descriptor);
  }
  return {};
}

}  // namespace

Result<std::string> find_executable(const std::string& name,
                                    const std::vector<std::string>& environment) {
  bool denied = false;
  const auto is_runnable = [&](const std::string& path) {
    struct stat facts {};
    if (::stat(path.c_str(), &facts) != 0) return false;
    if (S_ISREG(facts.st_mode) && ::access(path.c_str(), X_OK) == 0) return true;
    denied = true;
    return false;
  };
  if (name.find('/') != std::string::npos) {
    if (is_runnable(name)) return name;
  } else {
    std::string path(default_path);
    for (const std::string& entry : environment)
      if (entry.starts_with("PATH=")) path = entry.substr(5);
    for (const std::string& folder : base::split(path, ':')) {
      std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
      if (is_runnable(candidate)) return candidate;
    }
  }
  if (denied)
    return fail(ErrorCode::Denied, "failed to find target executable {}: it is no executable file",
                name);
  return fail(ErrorCode::NotFound, "failed to find target executable {}", name);
}

Result<Launched> launch(const guest::ProcessConfig& config, const Place& place) {
  Launched launched;
  Streams streams = TRY(make_streams(config, launched));
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return fail_errno(errno, "socketpair");
  launched.report.reset(ends[0]);
  const UniqueFd child_report(ends[1]);
  const bool joins = place.join_pidfd >= 0;
  launched.pid = clone_process(joins ? 0 : own_namespaces, place.cgroup_fd);
  if (launched.pid < 0) return fail_errno(errno, "clone3");
  if (launched.pid == 0) {
    launched.report.reset();
    if (joins) run_in_joined_namespaces(config, place, streams, child_report.get());
    run_in_new_namespaces(config, place, streams, child_report.get());
  }
  return launched;
}

void report_listening(int report, size_t mount, int socket) {
  say(report, {{"listening", mount}}, socket);
}

Result<> read_report(int fd, Report& report) {
  std::string text(report_bytes_max, '\0');
  iovec part{text.data(), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t count = ::recvmsg(fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return {};
  if (count < 0) return fail_errno(errno, "hear from the new process");
  if (count == 0) {
    report.done = true;
    return {};
  }
  UniqueFd descriptor = descriptor_of(header);
  const auto message =
      TRY(base::parse_json(std::string_view(text).substr(0, static_cast<size_t>(count))));
  if (message.contains("terminal")) report.terminal = std::move(descriptor);
  if (message.contains("listening") && descriptor)
    report.listening.emplace_back(static_cast<size_t>(TRY(base::json_int(message, "listening"))),
                                  std::move(descriptor));
  if (message.contains("pid")) report.pid = static_cast<pid_t>(TRY(base::json_int(message, "pid")));
  if (message.contains("spans"))
    timeline().replace(TRY(base::spans_from_json(message.at("spans"))));
  if (message.contains("code"))
    report.result = tl::unexpected<Error>(
        Error(base::error_code_from_name(base::json_string_or(message, "code", "internal")),
              base::json_string_or(message, "message", "")));
  return {};
}

}  // namespace agent
