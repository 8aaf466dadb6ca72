/// registry login, logout, list, default; and image pull and push.

#include <cerrno>
#include <csignal>
#include <optional>

#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/context.h"
#include "cli/registry_settings.h"
#include "cli/table.h"
#include "cli/terminal.h"
#include "cli/transfer.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;

constexpr size_t secret_bytes_max = 64u << 10;

// ---- pull and push -----------------------------------------------------------------------------

Result<int> pull(Context& context, const Parsed& parsed) {
  json body = {{"reference", parsed.arguments.front()}};
  if (const auto platform = wanted_platform(context, parsed)) body["platform"] = *platform;
  const json done =
      TRY(transfer(context, parsed, "/v1/images/pull", "Fetching image", std::move(body)));
  TRY(print(base::escape_controls(base::json_string_or(done, "reference", "")) + "\n"));
  return 0;
}

Result<int> push(Context& context, const Parsed& parsed) {
  json body = {{"reference", parsed.arguments.front()}};
  if (const auto platform = wanted_platform(context, parsed)) body["platform"] = *platform;
  const json done =
      TRY(transfer(context, parsed, "/v1/images/push", "Pushing image", std::move(body)));
  TRY(print(base::escape_controls(base::json_string_or(done, "reference", "")) + "\n"));
  return 0;
}

// ---- login -------------------------------------------------------------------------------------

/// A terminal that does not show what is typed, put back on every way out.
class SilentTerminal {
 public:
  explicit SilentTerminal(bool silent) {
    termios now{};
    if (!silent || ::tcgetattr(STDIN_FILENO, &now) != 0) return;
    before_ = now;
    now.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    (void)::tcsetattr(STDIN_FILENO, TCSAFLUSH, &now);
  }
  SilentTerminal(const SilentTerminal&) = delete;
  SilentTerminal& operator=(const SilentTerminal&) = delete;
  ~SilentTerminal() {
    if (before_) (void)::tcsetattr(STDIN_FILENO, TCSAFLUSH, &*before_);
  }

 private:
  std::optional<termios> before_;
};

Result<std::string> ask_for(const std::string& question, bool silent) {
  if (::isatty(STDIN_FILENO) != 1)
    return fail(ErrorCode::InvalidArgument,
                "stdin is no terminal to ask at; give --username, and the password by "
                "--password-stdin");
  // An interrupt must not leave the terminal silent.
  SignalQueue signals = TRY(SignalQueue::open({SIGINT, SIGTERM, SIGHUP}));
  tell(question);
  const SilentTerminal quiet(silent);
  std::string line;
  for (;;) {
    pollfd waiting[] = {{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0},
                        {.fd = signals.event(), .events = POLLIN, .revents = 0}};
    if (::poll(waiting, 2, -1) < 0 && errno != EINTR) return base::fail_errno(errno, "wait");
    if (waiting[1].revents != 0) return fail(ErrorCode::Cancelled, "interrupted");
    if (waiting[0].revents == 0) continue;
    char c = 0;
    if (TRY(base::read_some(STDIN_FILENO, {&c, 1})) == 0 || c == '\n') break;
    line += c;
  }
  if (silent) tell("\n");
  if (line.empty()) return fail(ErrorCode::InvalidArgument, "nothing was typed");
  return line;
}

Result<std::string> read_secret() {
  std::string text;
  char buffer[4096];
  while (const size_t count = TRY(base::read_some(STDIN_FILENO, buffer))) {
    text.append(buffer, count);
    if (text.size() > secret_bytes_max)
      return fail(ErrorCode::InvalidArgument, "a password of more than {} bytes", secret_bytes_max);
  }
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  if (text.empty()) return fail(ErrorCode::InvalidArgument, "stdin holds no password");
  return text;
}

Result<int> login(Context& context, const Parsed& parsed) {
  const std::string host = canonical_registry(parsed.arguments.front());
  const std::string username =
      parsed.value("username") ? *parsed.value("username") : TRY(ask_for("Username: ", false));
  const std::string password =
      parsed.has("password-stdin") ? TRY(read_secret()) : TRY(ask_for("Password: ", true));
  const RegistryConfig config = TRY(read_registry_config(context.surroundings));
  Surroundings without = context.surroundings;  // what is stored already is not what is tried
  without.environment.erase("CONTAINER_REGISTRY_HOST");
  json access = TRY(registry_access(without, config, parsed, {host + "/x"}));
  access["credentials"] = {{host, {{"username", username}, {"password", password}}}};
  Request request;
  request.method = "POST";
  request.target = "/v1/registries/login";
  request.body = base::dump_json({{"registry", host}, {"access", access}});
  (void)TRY(context.client.call(request));
  TRY(store_login(context.surroundings, host, username, password));
  tell("Login succeeded\n");
  return 0;
}

Result<int> logout(Context& context, const Parsed& parsed) {
  TRY(erase_login(context.surroundings, canonical_registry(parsed.arguments.front())));
  return 0;
}

Result<int> list(Context& context, const Parsed& parsed) {
  std::vector<Row> rows;
  json shapes = json::array();
  std::string names;
  for (const LoginRecord& one : TRY(list_logins(context.surroundings))) {
    rows.push_back({one.host, one.username, one.modified, one.created});
    names += base::escape_controls(one.host) + "\n";
    shapes.push_back({{"id", one.host},
                      {"name", one.host},
                      {"username", one.username},
                      {"creationDate", one.created},
                      {"modificationDate", one.modified},
                      {"labels", json::object()}});
  }
  if (parsed.value("format") == "json")
    TRY(print(base::dump_json(shapes) + "\n"));
  else if (parsed.has("quiet"))
    TRY(print(names));
  else
    TRY(print(render_table({"HOSTNAME", "USERNAME", "MODIFIED", "CREATED"}, rows)));
  return 0;
}

// ---- the default registry ----------------------------------------------------------------------

Result<int> set_default(Context& context, const Parsed& parsed) {
  const std::string host = canonical_registry(parsed.arguments.front());
  const bool is_host = !host.empty() && host.find_first_not_of(
                                            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                            "0123456789.-:[]") == std::string::npos;
  if (!is_host)
    return fail(ErrorCode::InvalidArgument, "'{}' is no host name with an optional port",
                base::escape_controls(parsed.arguments.front()));
  TRY(write_default_registry(context.surroundings, host));
  return 0;
}

Result<int> show_default(Context& context, const Parsed&) {
  const RegistryConfig config = TRY(read_registry_config(context.surroundings));
  TRY(print(base::escape_controls(config.domain) + "\n"));
  return 0;
}

Result<int> unset_default(Context& context, const Parsed&) {
  TRY(write_default_registry(context.surroundings, std::nullopt));
  return 0;
}

Command default_command() {
  return {.name = "default",
          .summary = "The registry of references that name none",
          .commands = {{.name = "set",
                        .summary = "Choose it",
                        .arguments = "HOST",
                        .arguments_min = 1,
                        .arguments_max = 1,
                        .handler = set_default},
                       {.name = "inspect", .summary = "Show it", .handler = show_default},
                       {.name = "unset",
                        .other_names = "clear",
                        .summary = "Back to docker.io, or what config.toml says",
                        .handler = unset_default}}};
}

std::vector<Flag> transfer_flags() {
  std::vector<Flag> flags = registry_flags();
  flags.push_back({.name = "arch",
                   .short_name = 'a',
                   .value = "ARCH",
                   .help = "Only this architecture; otherwise all there are"});
  flags.push_back({.name = "os", .value = "OS", .help = "Only this system"});
  flags.push_back({.name = "platform",
                   .value = "OS/ARCH[/VARIANT]",
                   .help = "Only this platform; wins over --os and --arch"});
  return flags;
}

}  // namespace

std::vector<Command> image_transfer_commands() {
  std::vector<Flag> flags = transfer_flags();
  flags.push_back(downloads_flag());
  return {{.name = "pull",
           .summary = "Fetch an image from its registry",
           .arguments = "IMAGE",
           .arguments_min = 1,
           .arguments_max = 1,
           .flags = std::move(flags),
           .handler = pull},
          {.name = "push",
           .summary = "Send an image to its registry",
           .arguments = "IMAGE",
           .arguments_min = 1,
           .arguments_max = 1,
           .flags = transfer_flags(),
           .handler = push}};
}

std::vector<Command> registry_commands() {
  const Flag scheme = registry_flags().front();
  return {{.name = "registry",
           .other_names = "r",
           .group = "Images",
           .summary = "Logins, and the registry used by default",
           .commands = {
               {.name = "login",
                .summary = "Try a user name and password at a registry, and remember them",
                .arguments = "SERVER",
                .arguments_min = 1,
                .arguments_max = 1,
                .flags = {scheme,
                          {.name = "username",
                           .short_name = 'u',
                           .value = "NAME",
                           .help = "Otherwise it is asked for"},
                          {.name = "password-stdin", .help = "Take the password from stdin"}},
                .handler = login},
               {.name = "logout",
                .summary = "Forget the login of a registry",
                .arguments = "SERVER",
                .arguments_min = 1,
                .arguments_max = 1,
                .handler = logout},
               {.name = "list",
                .other_names = "ls",
                .summary = "List the registries with a login",
                .flags = {{.name = "format", .value = "json|table", .help = "How to print it"},
                          {.name = "quiet", .short_name = 'q', .help = "Hosts only"}},
                .handler = list},
               default_command(),
           }}};
}

}  // namespace cli
