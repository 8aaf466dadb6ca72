/// system start, stop, status, df, logs; version.

#include <cstdlib>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/deadline.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/units.h"
#include "cli/apply.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/context.h"
#include "cli/daemon.h"
#include "cli/output_format.h"
#include "cli/system_log.h"
#include "cli/views.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

constexpr std::string_view program_version = CONTAINER_VERSION;

// ---- start and stop ----------------------------------------------------------------------------

/// `--app-root` and its like are these variables, for us and for the daemon.
Result<> take_roots(Context& context, const Parsed& parsed) {
  constexpr std::pair<std::string_view, const char*> roots[] = {
      {"app-root", "CONTAINER_APP_ROOT"},
      {"install-root", "CONTAINER_INSTALL_ROOT"},
      {"log-root", "CONTAINER_LOG_ROOT"},
  };
  bool changed = false;
  for (const auto& [flag, variable] : roots) {
    const auto folder = parsed.value(flag);
    if (!folder) continue;
    ::setenv(variable, absolute_path(context, *folder).c_str(), 1);
    changed = true;
  }
  if (!changed) return {};
  context.paths = TRY(api::find_paths());
  context.client = HttpClient(context.paths.api_socket());
  return {};
}

Result<int64_t> time_of(const Parsed& parsed, std::string_view flag, int64_t fallback_ms) {
  const auto text = parsed.value(flag);
  if (!text) return fallback_ms;
  const bool plain = !text->empty() && text->find_first_not_of("0123456789") == std::string::npos;
  return TRY_DURING(base::parse_duration_ns(plain ? *text + "s" : *text), "--{}", flag) / 1'000'000;
}

Result<int> start(Context& context, const Parsed& parsed) {
  TRY(take_roots(context, parsed));
  const auto timeout = time_of(parsed, "timeout", base::limits::api_ready_timeout_ms);
  if (!timeout) return wrong_usage(context, parsed, timeout.error().to_string());
  if (running_daemon(context)) {
    tell("container system is running already\n");
    return 0;
  }
  TRY(start_daemon(context, base::Deadline::in_ms(*timeout)));
  tell("container system is running\n");
  return 0;
}

std::string counted(const Orphans& found) {
  return fmt::format("{} virtual machine{} and {} network{}", found.machines,
                     found.machines == 1 ? "" : "s", found.networks,
                     found.networks == 1 ? "" : "s");
}

/// A daemon that was killed leaves its machines and networks.
Result<int> stop_orphans(const Context& context, std::optional<int64_t> grace_ms) {
  const Orphans found = find_orphans(context);
  if (found.machines + found.networks == 0) {
    tell("container system is not running\n");
    return 0;
  }
  tell(
      fmt::format("container system is not running, but {} of a daemon that was killed are there; "
                  "ending them\n",
                  counted(found)));
  TRY(end_orphans(context, grace_ms));
  const Orphans left = find_orphans(context);
  if (left.machines + left.networks == 0) return 0;
  return base::fail(
      ErrorCode::InvalidState,
      "{} could not be ended; `container system start` takes them over, its log is {}",
      counted(left), context.paths.daemon_log());
}

Result<int> stop(Context& context, const Parsed& parsed) {
  const auto grace = time_of(parsed, "time", -1);
  if (!grace) return wrong_usage(context, parsed, grace.error().to_string());
  const auto daemon = running_daemon(context);
  if (!daemon)
    return stop_orphans(context, *grace < 0 ? std::nullopt : std::optional<int64_t>(*grace));
  Request request = apply_request(*grace < 0 ? json::object() : json({{"grace_ms", *grace}}));
  request.target = "/v1/system/stop";
  ApplyReader reader(Show::Steps);
  LineSplitter splitter;
  const Result<> heard = context.client.stream(request, [&](std::string_view bytes) {
    return splitter.feed(bytes, [&](const std::string& line) { return reader.take(line); });
  });
  const Result<Applied> applied = reader.finish();
  TRY(await_daemon_end(*daemon, base::Deadline::in_ms(base::limits::daemon_stop_timeout_ms)));
  // The daemon may be gone before its last word has arrived: that it is gone is what was asked.
  if (applied && applied->problem) return tl::unexpected<base::Error>(*applied->problem);
  if (!applied && !heard && heard.error().code() != ErrorCode::Io)
    return tl::unexpected<base::Error>(heard.error());
  return 0;
}

// ---- status and version ------------------------------------------------------------------------

std::string cell(const json& value) {
  return value.is_string() ? value.get<std::string>() : base::dump_json(value);
}

Result<int> status(Context& context, const Parsed& parsed) {
  Result<json> facts = ask(context, "/v1/system");
  if (!facts && facts.error().code() != ErrorCode::NotFound)
    return tl::unexpected<base::Error>(facts.error());
  const bool running = facts.has_value();
  if (!running)
    facts = json{{"status", "not running"},
                 {"appRoot", context.paths.app_root},
                 {"installRoot", context.paths.programs},
                 {"logRoot", context.paths.log_root}};
  if (const auto format = document_format(parsed)) {
    TRY(print(render_document(*facts, *format)));
    return running ? 0 : 1;
  }
  std::vector<Row> rows = {{"status", base::json_string_or(*facts, "status", "running")}};
  for (const auto& [key, value] : facts->items())
    if (key != "status") rows.push_back({key, cell(value)});
  TRY(print(render_table({"FIELD", "VALUE"}, rows)));
  return running ? 0 : 1;
}

Result<int> version(Context& context, const Parsed& parsed) {
  json versions = json::array({{{"appName", "container"}, {"version", program_version}}});
  if (const auto facts = ask(context, "/v1/system"))
    versions.push_back({{"appName", "container-apiserver"},
                        {"version", base::json_string_or(*facts, "version", "unknown")}});
  if (const auto format = document_format(parsed)) {
    TRY(print(render_document(versions, *format)));
    return 0;
  }
  std::vector<Row> rows;
  for (const json& entry : versions)
    rows.push_back({cell(entry["appName"]), cell(entry["version"])});
  TRY(print(render_table({"COMPONENT", "VERSION"}, rows)));
  return 0;
}

Result<int> logs(Context& context, const Parsed& parsed) {
  constexpr int64_t five_minutes_ms = 300'000;
  const auto last = time_of(parsed, "last", five_minutes_ms);
  if (!last) return wrong_usage(context, parsed, last.error().to_string());
  if (*last <= 0) return wrong_usage(context, parsed, "--last: a time greater than 0 is needed");
  TRY(show_system_log(context.paths.daemon_log(), base::wall_time_ns() - *last * 1'000'000,
                      parsed.has("follow")));
  return 0;
}

Result<int> disk_use(Context& context, const Parsed& parsed) {
  const json use = TRY(ask(context, "/v1/system/df"));
  if (const auto format = document_format(parsed))
    TRY(print(render_document(use, *format)));
  else
    TRY(print(render_table(disk_use_header(), disk_use_rows(use))));
  return 0;
}

// ---- the table ---------------------------------------------------------------------------------

const Flag format_flag{.name = "format", .value = format_values, .help = "How to print it"};

Command start_command() {
  return {.name = "start",
          .summary = "Start the daemon",
          .flags = {{.name = "app-root",
                     .short_name = 'a',
                     .value = "FOLDER",
                     .help = "Where images and containers are kept (CONTAINER_APP_ROOT)"},
                    {.name = "install-root",
                     .value = "FOLDER",
                     .help = "Where the programs are (CONTAINER_INSTALL_ROOT)"},
                    {.name = "log-root",
                     .value = "FOLDER",
                     .help = "Where the logs go (CONTAINER_LOG_ROOT)"},
                    {.name = "timeout", .value = "SECONDS", .help = "How long to wait for it"}},
          .handler = start};
}

Command system_command() {
  return {.name = "system",
          .other_names = "s",
          .group = "System",
          .summary = "Start, stop and look at the daemon",
          .commands = {
              start_command(),
              {.name = "stop",
               .summary = "Stop all containers and the daemon",
               .flags = {{.name = "time",
                          .short_name = 't',
                          .value = "SECONDS",
                          .help = "How long containers may take before they are killed"}},
               .handler = stop},
              {.name = "status",
               .summary = "Tell whether it runs, and where it keeps its things",
               .flags = {format_flag},
               .handler = status},
              {.name = "df",
               .summary = "Tell what images, containers and volumes take on the disk",
               .flags = {format_flag},
               .handler = disk_use},
              {.name = "logs",
               .summary = "Show the daemon's log",
               .flags = {{.name = "follow", .short_name = 'f', .help = "Go on with what comes"},
                         {.name = "last", .value = "TIME", .help = "How far back: 5m, 2h, 1d"}},
               .handler = logs},
              {.name = "version",
               .summary = "Versions of the command and the daemon",
               .flags = {format_flag},
               .handler = version},
          }};
}

}  // namespace

std::vector<Command> system_commands() {
  return {
      system_command(),
      {.name = "version",
       .group = "System",
       .summary = "Versions of the command and the daemon",
       .flags = {format_flag},
       .handler = version},
  };
}

}  // namespace cli
