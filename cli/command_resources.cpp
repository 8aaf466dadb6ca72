/// network and volume: list, inspect, create, delete, prune.

#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/text.h"
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

/// A kind of record: how it is called, where it is asked for, and how it is shown.
template <class Record>
struct Kind {
  const char* name;  ///< Also the first word of its commands.
  const char* target;
  Result<Record> (*read)(const json&);
  Row (*header)();
  Row (*row)(const Record&);
  json (*shape)(const Record&);
};

constexpr Kind<planner::NetworkRecord> networks = {
    "network",      "/v1/networks", planner::network_record_from_json,
    network_header, network_row,    network_json};
constexpr Kind<planner::VolumeRecord> volumes = {
    "volume",      "/v1/volumes", planner::volume_record_from_json,
    volume_header, volume_row,    volume_json};

template <class Record>
Result<std::vector<Record>> ask_all(Context& context, const Kind<Record>& kind) {
  std::vector<Record> records;
  const json answer = TRY(ask(context, kind.target));
  for (const json& entry : answer)
    records.push_back(TRY_DURING(kind.read(entry), "understand the daemon"));
  return records;
}

template <class Record, const Kind<Record>& kind>
Result<int> list_of(Context& context, const Parsed& parsed) {
  json shapes = json::array();
  std::vector<Row> rows;
  std::string names;
  const std::vector<Record> records = TRY(ask_all(context, kind));
  for (const Record& record : records) {
    shapes.push_back(kind.shape(record));
    rows.push_back(kind.row(record));
    names += base::escape_controls(record.name) + "\n";
  }
  if (const auto format = document_format(parsed))
    TRY(print(render_document(shapes, *format)));
  else if (parsed.has("quiet"))
    TRY(print(names));
  else
    TRY(print(render_table(kind.header(), rows)));
  return 0;
}

template <class Record, const Kind<Record>& kind>
Result<int> inspect_of(Context& context, const Parsed& parsed) {
  const std::vector<Record> records = TRY(ask_all(context, kind));
  json shapes = json::array();
  bool complete = true;
  for (const std::string& name : parsed.arguments) {
    const auto found = std::find_if(records.begin(), records.end(),
                                    [&](const Record& record) { return record.name == name; });
    if (found != records.end()) {
      shapes.push_back(kind.shape(*found));
    } else {
      tell_error({ErrorCode::NotFound, fmt::format("{} not found: {}", kind.name, name)});
      complete = false;
    }
  }
  if (!complete) return 1;
  TRY(print(base::dump_json_pretty(shapes) + "\n"));
  return 0;
}

// ---- changing them -----------------------------------------------------------------------------

Result<> print_names(const std::vector<std::string>& names) {
  std::string lines;
  for (const std::string& name : names) lines += base::escape_controls(name) + "\n";
  return print(lines);
}

/// Carries out `command` and prints what has changed, also where not everything could be.
Result<Applied> change(Context& context, const Parsed& parsed, json command,
                       const std::string& what) {
  command["owner"] = owner_text(parsed.path, what);
  Applied applied = TRY(apply(context, command, Show::Nothing));
  for (const planner::Note& note : applied.plan.notes) tell_warning(note.text);
  TRY(print_names(applied.names));
  if (applied.problem) return tl::unexpected<base::Error>(std::move(*applied.problem));
  return applied;
}

/// `KEY=VALUE`, or `KEY` for an empty value.
Result<json> labels_of(const Parsed& parsed) {
  json labels = json::object();
  for (const std::string& text : parsed.all("label")) {
    const size_t equals = text.find('=');
    const std::string key = text.substr(0, equals);
    if (key.empty())
      return base::fail(ErrorCode::InvalidArgument, "--label '{}': write KEY=VALUE", text);
    labels[key] = equals == std::string::npos ? "" : text.substr(equals + 1);
  }
  return labels;
}

Result<int> create(Context& context, const Parsed& parsed, json command) {
  const std::string& name = parsed.arguments.front();
  const Result<json> labels = labels_of(parsed);
  if (!labels) return wrong_usage(context, parsed, labels.error().to_string());
  command["name"] = name;
  command["labels"] = *labels;
  TRY(change(context, parsed, std::move(command), name));
  return 0;
}

Result<int> create_network(Context& context, const Parsed& parsed) {
  json command = {{"command", "network create"}, {"internal", parsed.has("internal")}};
  for (const char* option : {"subnet", "gateway"})
    if (const auto given = parsed.value(option)) command[option] = *given;
  return create(context, parsed, std::move(command));
}

Result<int> create_volume(Context& context, const Parsed& parsed) {
  return create(context, parsed, {{"command", "volume create"}});
}

template <class Record, const Kind<Record>& kind>
Result<int> remove(Context& context, const Parsed& parsed) {
  const bool all = parsed.has("all");
  if (parsed.arguments.empty() && !all)
    return wrong_usage(context, parsed,
                       fmt::format("no {}s specified and --all not supplied", kind.name));
  if (!parsed.arguments.empty() && all)
    return wrong_usage(
        context, parsed,
        fmt::format("explicitly supplied {} name(s) conflict with the --all flag", kind.name));
  const json names = all ? json({"*"}) : json(parsed.arguments);
  TRY(change(context, parsed,
             {{"command", fmt::format("{} remove", kind.name)}, {"names", names}, {"all", all}},
             all ? fmt::format("all {}s", kind.name) : base::join(parsed.arguments, ", ")));
  return 0;
}

Result<int> prune_networks(Context& context, const Parsed& parsed) {
  TRY(change(context, parsed, {{"command", "network prune"}}, ""));
  return 0;
}

Result<int> prune_volumes(Context& context, const Parsed& parsed) {
  const Applied applied =
      TRY(change(context, parsed, {{"command", "volume prune"}, {"all", parsed.has("all")}}, ""));
  tell(reclaimed_text(applied.reclaimed_bytes));
  return 0;
}

// ---- the table ---------------------------------------------------------------------------------

const Flag label_flag{
    .name = "label", .short_name = 'l', .value = "KEY=VALUE", .help = "Attach a label"};

template <class Record, const Kind<Record>& kind>
Command list_command() {
  return {.name = "list",
          .other_names = "ls",
          .summary = "List them",
          .flags = {{.name = "format", .value = format_values, .help = "How to print it"},
                    {.name = "quiet", .short_name = 'q', .help = "Names only"}},
          .handler = list_of<Record, kind>};
}

template <class Record, const Kind<Record>& kind>
Command inspect_command() {
  return {.name = "inspect",
          .summary = "Show all about some, as JSON",
          .arguments = "NAME…",
          .arguments_min = 1,
          .arguments_max = any_number,
          .handler = inspect_of<Record, kind>};
}

template <class Record, const Kind<Record>& kind>
Command delete_command(std::string_view summary) {
  return {.name = "delete",
          .other_names = "rm",
          .summary = summary,
          .arguments = "[NAME…]",
          .arguments_max = any_number,
          .flags = {{.name = "all", .short_name = 'a', .help = "All that no container uses"}},
          .handler = remove<Record, kind>};
}

Command network_command() {
  using Record = planner::NetworkRecord;
  return {.name = "network",
          .other_names = "n",
          .group = "Networks and volumes",
          .summary = "Make, look at and remove networks",
          .commands = {
              list_command<Record, networks>(),
              inspect_command<Record, networks>(),
              {.name = "create",
               .summary = "Make one, for containers and stacks to join",
               .arguments = "NAME",
               .arguments_min = 1,
               .arguments_max = 1,
               .flags = {{.name = "internal", .help = "Without a way out"},
                         label_flag,
                         {.name = "subnet",
                          .value = "CIDR",
                          .help = "Its IPv4 addresses: 10.9.0.0/24; a free range unless said"},
                         {.name = "gateway",
                          .value = "ADDRESS",
                          .help = "Of the host on it; the subnet's first unless said"}},
               .handler = create_network},
              delete_command<Record, networks>("Remove some that no container uses"),
              {.name = "prune",
               .summary = "Remove those nobody uses; a stack that has containers keeps its own",
               .handler = prune_networks}}};
}

Command volume_command() {
  using Record = planner::VolumeRecord;
  return {.name = "volume",
          .other_names = "v",
          .group = "Networks and volumes",
          .summary = "Make, look at and remove volumes",
          .commands = {
              list_command<Record, volumes>(),
              inspect_command<Record, volumes>(),
              {.name = "create",
               .summary = "Make one, for containers and stacks to mount",
               .arguments = "NAME",
               .arguments_min = 1,
               .arguments_max = 1,
               .flags = {label_flag},
               .handler = create_volume},
              delete_command<Record, volumes>("Remove some that no container uses, and their data"),
              {.name = "prune",
               .summary = "Remove the anonymous ones nobody uses, and their data",
               .flags = {{.name = "all", .short_name = 'a', .help = "Also those with a name"}},
               .handler = prune_volumes}}};
}

}  // namespace

std::vector<Command> resource_commands() { return {network_command(), volume_command()}; }

}  // namespace cli
