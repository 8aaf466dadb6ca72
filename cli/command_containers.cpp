/// Containers that exist: list, inspect, logs, stop, kill, restart, delete.

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "api/wire.h"
#include "base/json.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/apply.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/context.h"
#include "cli/output_format.h"
#include "cli/views.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

Result<int> list(Context& context, const Parsed& parsed) {
  const json records =
      TRY(ask(context, parsed.has("all") ? "/v1/containers?all=1" : "/v1/containers"));
  json shapes = json::array();
  std::vector<Row> rows;
  std::string ids;
  for (const json& entry : records) {
    const planner::ContainerRecord record =
        TRY_DURING(planner::container_record_from_json(entry), "understand the daemon");
    rows.push_back(container_row(record));
    shapes.push_back(container_json(record));
    ids += base::escape_controls(record.id) + "\n";
  }
  if (const auto format = document_format(parsed))
    TRY(print(render_document(shapes, *format)));
  else if (parsed.has("quiet"))
    TRY(print(ids));
  else
    TRY(print(render_table(container_header(), rows)));
  return 0;
}

/// All or nothing: half a document would look like a whole one.
Result<int> inspect(Context& context, const Parsed& parsed) {
  json documents = json::array();
  bool complete = true;
  for (const std::string& id : parsed.arguments) {
    const Result<json> entry = ask_container(context, id);
    if (!entry) {
      tell_error(entry.error());
      complete = false;
      continue;
    }
    documents.push_back(container_json(
        TRY_DURING(planner::container_record_from_json(*entry), "understand the daemon")));
  }
  if (!complete) return 1;
  TRY(print(base::dump_json_pretty(documents) + "\n"));
  return 0;
}

// ---- logs --------------------------------------------------------------------------------------

Result<> show_frame(const api::Frame& frame) {
  switch (frame.kind) {
    case api::FrameKind::Stdout: return print(frame.payload);
    case api::FrameKind::Stderr: tell(frame.payload); return {};
    case api::FrameKind::Failure: {
      const json failure = TRY(base::parse_json(frame.payload));
      return tl::unexpected<base::Error>(
          base::Error(base::error_code_from_name(base::json_string_or(failure, "code", "")),
                      base::json_string_or(failure, "message", "the logs cannot be read")));
    }
    case api::FrameKind::Exit:
    case api::FrameKind::Started:
    case api::FrameKind::Notice:
    case api::FrameKind::Stdin:
    case api::FrameKind::StdinEnd:
    case api::FrameKind::Resize:
    case api::FrameKind::Signal: break;
  }
  return {};
}

Result<std::string> logs_target(const Parsed& parsed) {
  std::string target = fmt::format("/v1/containers/{}/logs?follow={}&boot={}",
                                   percent_encode(parsed.arguments.front()),
                                   parsed.has("follow") ? 1 : 0, parsed.has("boot") ? 1 : 0);
  if (const auto text = parsed.value("last"); text && *text != "all") {
    uint32_t lines = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), lines);
    if (error != std::errc() || end != text->data() + text->size())
      return base::fail(ErrorCode::InvalidArgument, "-n '{}': a number of lines, or all", *text);
    target += fmt::format("&last={}", lines);
  }
  return target;
}

Result<int> logs(Context& context, const Parsed& parsed) {
  const Result<std::string> target = logs_target(parsed);
  if (!target) return wrong_usage(context, parsed, target.error().to_string());
  TRY(ask_container(context, parsed.arguments.front()));
  Request request;
  request.target = *target;
  request.silence_ms_max = -1;  // A container may have nothing to say for days.
  api::FrameDecoder decoder;
  TRY(context.client.stream(request, [&](std::string_view bytes) -> Result<> {
    decoder.feed(bytes);
    while (const auto frame = TRY_DURING(decoder.next(), "understand the daemon"))
      TRY(show_frame(*frame));
    return {};
  }));
  if (decoder.partial())
    return base::fail(ErrorCode::Io, "the logs broke off in the middle; ask again");
  return 0;
}

// ---- commands on several -----------------------------------------------------------------------

/// Whole seconds, or a duration: `5`, `1m30s`.
Result<std::optional<int64_t>> grace_ms(const Parsed& parsed) {
  const auto text = parsed.value("time");
  if (!text) return std::nullopt;
  const bool plain = !text->empty() && text->find_first_not_of("0123456789") == std::string::npos;
  const int64_t wait_ns =
      TRY_DURING(base::parse_duration_ns(plain ? *text + "s" : *text), "--time");
  return wait_ns / 1'000'000;
}

/// Carries out `command` on the containers that `parsed` names, and prints their ids.
Result<int> on_containers(Context& context, const Parsed& parsed, json command) {
  const bool all = parsed.has("all");
  if (parsed.arguments.empty() && !all)
    return wrong_usage(context, parsed, "no containers specified and --all not supplied");
  if (!parsed.arguments.empty() && all)
    return wrong_usage(context, parsed,
                       "explicitly supplied container ID(s) conflict with the --all flag");
  std::vector<std::string> ids;
  for (const std::string& id : parsed.arguments)
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  command["owner"] = owner_text(parsed.path, all ? "all containers" : base::join(ids, ", "));
  command["ids"] = all ? std::vector<std::string>{"*"} : ids;
  if (all) command["all"] = true;
  const Applied applied = TRY(apply_all(context, command, Show::Nothing));
  std::string lines;
  for (const std::string& id : all ? applied.ids : ids) lines += base::escape_controls(id) + "\n";
  TRY(print(lines));
  return 0;
}

Result<std::string> signal_of(const Parsed& parsed) {
  const std::string text = parsed.value("signal").value_or("KILL");
  TRY_DURING(signal_number(text), "--signal");
  return text;
}

Result<int> stop(Context& context, const Parsed& parsed) {
  json command = {{"command", "stop"}};
  const auto grace = grace_ms(parsed);
  if (!grace) return wrong_usage(context, parsed, grace.error().to_string());
  if (*grace) command["grace_ms"] = **grace;
  if (parsed.has("signal")) {
    const auto signal = signal_of(parsed);
    if (!signal) return wrong_usage(context, parsed, signal.error().to_string());
    command["signal"] = *signal;
  }
  return on_containers(context, parsed, std::move(command));
}

Result<int> kill(Context& context, const Parsed& parsed) {
  const auto signal = signal_of(parsed);
  if (!signal) return wrong_usage(context, parsed, signal.error().to_string());
  return on_containers(context, parsed, {{"command", "kill"}, {"signal", *signal}});
}

Result<int> restart(Context& context, const Parsed& parsed) {
  json command = {{"command", "restart"}};
  const auto grace = grace_ms(parsed);
  if (!grace) return wrong_usage(context, parsed, grace.error().to_string());
  if (*grace) command["grace_ms"] = **grace;
  return on_containers(context, parsed, std::move(command));
}

Result<int> remove(Context& context, const Parsed& parsed) {
  return on_containers(
      context, parsed,
      {{"command", "remove"}, {"force", parsed.has("force")}, {"volumes", parsed.has("volumes")}});
}

const Flag all_flag{.name = "all", .short_name = 'a', .help = "Every container"};
const Flag time_flag{.name = "time",
                     .short_name = 't',
                     .value = "SECONDS",
                     .help = "How long to wait before it is killed",
                     .other_names = "timeout"};
const Flag signal_flag{
    .name = "signal", .short_name = 's', .value = "SIGNAL", .help = "A name or a number"};

Command on_several(std::string_view name, std::string_view other_names, std::string_view summary,
                   std::vector<Flag> flags, Handler handler) {
  return {.name = name,
          .other_names = other_names,
          .group = "Containers",
          .summary = summary,
          .arguments = "[ID…]",
          .arguments_max = any_number,
          .flags = std::move(flags),
          .handler = handler};
}

Command list_command() {
  return {.name = "list",
          .other_names = "ls",
          .group = "Containers",
          .summary = "List containers",
          .flags = {{.name = "all", .short_name = 'a', .help = "Also those that do not run"},
                    {.name = "format", .value = format_values, .help = "How to print it"},
                    {.name = "quiet", .short_name = 'q', .help = "IDs only"}},
          .handler = list};
}

Command logs_command() {
  return {.name = "logs",
          .group = "Containers",
          .summary = "Show what a container has written",
          .arguments = "ID",
          .arguments_min = 1,
          .arguments_max = 1,
          .flags = {{.name = "boot", .help = "The console of its virtual machine instead"},
                    {.name = "follow", .short_name = 'f', .help = "Until it ends"},
                    {.name = "last",
                     .short_name = 'n',
                     .value = "LINES",
                     .help = "Only the last lines",
                     .other_names = "tail"}},
          .handler = logs};
}

}  // namespace

std::vector<Command> container_commands() {
  return {
      list_command(),
      {.name = "inspect",
       .group = "Containers",
       .summary = "Show all about containers, as JSON",
       .arguments = "ID…",
       .arguments_min = 1,
       .arguments_max = any_number,
       .handler = inspect},
      logs_command(),
      on_several("stop", "", "Stop containers: a signal, a while, then SIGKILL",
                 {all_flag, time_flag, signal_flag}, stop),
      on_several("kill", "", "Send a signal, KILL unless said", {all_flag, signal_flag}, kill),
      on_several("restart", "", "Stop containers and start them again", {all_flag, time_flag},
                 restart),
      on_several("delete", "rm", "Remove containers",
                 {all_flag,
                  {.name = "force", .short_name = 'f', .help = "Also those that run"},
                  {.name = "volumes", .short_name = 'v', .help = "With their anonymous volumes"}},
                 remove),
  };
}

}  // namespace cli
