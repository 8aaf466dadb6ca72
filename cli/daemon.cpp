#include "cli/daemon.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <system_error>

#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"

extern char** environ;

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;

/// From the socket's file to somebody listening at it there is no event: ask again this soon.
constexpr int ask_again_ms = 20;
constexpr uint64_t start_message_bytes_max = 64u << 10;

Result<int64_t> ping(const Context& context, int silence_ms_max) {
  Request request;
  request.target = "/v1/ping";
  request.silence_ms_max = silence_ms_max;
  const nlohmann::json answer = TRY(base::parse_json(TRY(context.client.call(request))));
  return base::json_int(answer, "pid");
}

/// Ours, and where the daemon shall keep its things even if our variables do not say so.
std::vector<std::string> daemon_environment() {
  std::vector<std::string> environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry)
    environment.emplace_back(*entry);
  return environment;
}

base::Error why_it_ended(const Context& context, std::string_view what) {
  std::string message =
      base::read_file(context.paths.start_message(), start_message_bytes_max).value_or("");
  while (!message.empty() && message.back() == '\n') message.pop_back();
  if (message.empty()) message = "it ended without a reason";
  return {ErrorCode::InvalidState, fmt::format("the daemon did not {}: {} (log: {})", what, message,
                                               context.paths.daemon_log())};
}

Result<std::string> daemon_program(const Context& context) {
  std::string program = context.paths.programs + "/container-apiserver";
  if (!base::path_exists(program))
    return base::fail(ErrorCode::NotFound,
                      "'{}' is missing: the installation is not complete; CONTAINER_INSTALL_ROOT "
                      "may say where it is",
                      program);
  return program;
}

Result<base::UniqueFd> watch_folder(const std::string& folder) {
  base::UniqueFd watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!watch) return base::fail_errno(errno, "watch a folder");
  if (::inotify_add_watch(watch.get(), folder.c_str(), IN_CREATE | IN_MOVED_TO) < 0)
    return base::fail_errno(errno, fmt::format("watch '{}'", folder));
  return watch;
}

void forget_events(int watch) {
  char buffer[4096];
  while (::read(watch, buffer, sizeof buffer) > 0) {
    // Which file it was does not matter: the question is whether somebody answers.
  }
}

}  // namespace

std::optional<base::ProcessIdentity> running_daemon(const Context& context) {
  const Result<int64_t> pid = ping(context, base::limits::cli_answer_timeout_ms);
  if (!pid) return std::nullopt;
  Result<base::ProcessIdentity> identity = base::identify_process(*pid);
  if (!identity) return base::ProcessIdentity{.pid = *pid};
  return std::move(*identity);
}

Result<> start_daemon(const Context& context, const base::Deadline& deadline) {
  const std::string program = TRY(daemon_program(context));
  TRY(base::make_directories(context.paths.run_root));
  (void)::unlink(context.paths.start_message().c_str());
  const base::UniqueFd watch = TRY(watch_folder(context.paths.run_root));
  const base::ProcessIdentity daemon = TRY_DURING(
      base::spawn({.arguments = {program}, .environment = daemon_environment(), .descriptors = {}}),
      "start the daemon");
  const base::UniqueFd process = TRY(base::open_process(daemon));
  for (;;) {
    if (ping(context, std::max(deadline.remaining_ms(), 1))) return {};
    pollfd waiting[] = {{.fd = watch.get(), .events = POLLIN, .revents = 0},
                        {.fd = process.get(), .events = POLLIN, .revents = 0}};
    (void)::poll(waiting, 2, std::min(deadline.remaining_ms(), ask_again_ms));
    if (waiting[1].revents != 0) return tl::unexpected<base::Error>(why_it_ended(context, "start"));
    if (deadline.passed())
      return base::fail(ErrorCode::Timeout,
                        "the daemon (pid {}) does not answer yet; --timeout gives it longer, its "
                        "log is {}",
                        daemon.pid, context.paths.daemon_log());
    forget_events(watch.get());
  }
}

Orphans find_orphans(const Context& context) {
  const auto folders_in = [](const std::string& parent) {
    size_t count = 0;
    std::error_code error;
    for (std::filesystem::directory_iterator at(parent, error), end; !error && at != end;
         at.increment(error))
      if (std::error_code failed; at->is_directory(failed)) ++count;
    return count;
  };
  return {folders_in(context.paths.machines()), folders_in(context.paths.networks())};
}

Result<> end_orphans(const Context& context, std::optional<int64_t> grace_ms) {
  std::vector<std::string> arguments = {TRY(daemon_program(context)), "--end"};
  if (grace_ms) {
    arguments.emplace_back("--grace-ms");
    arguments.push_back(fmt::format("{}", *grace_ms));
  }
  (void)::unlink(context.paths.start_message().c_str());
  const base::ProcessIdentity ending = TRY_DURING(base::spawn({.arguments = std::move(arguments),
                                                               .environment = daemon_environment(),
                                                               .descriptors = {}}),
                                                  "start what ends them");
  const base::UniqueFd process = TRY(base::open_process(ending));
  // Each of its own waits has a deadline; how many there are, and how patient, only it knows.
  const std::optional<int> status =
      TRY(base::await_process(process.get(), ending.pid, base::Deadline::never()));
  if (status && *status == 0) return {};
  return tl::unexpected<base::Error>(why_it_ended(context, "end what was left"));
}

Result<> await_daemon_end(const base::ProcessIdentity& daemon, const base::Deadline& deadline) {
  if (daemon.start_ticks == 0) return {};
  const Result<base::UniqueFd> process = base::open_process(daemon);
  if (!process) return {};
  TRY_DURING(base::await_process(process->get(), daemon.pid, deadline),
             "wait for the daemon (pid {}) to end", daemon.pid);
  return {};
}

}  // namespace cli
