/// up, down, plan, config: stacks of services.

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/apply.h"
#include "cli/attached_up.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/context.h"
#include "cli/registry_settings.h"
#include "cli/stack_builds.h"
#include "cli/stack_files.h"
#include "cli/transfer.h"
#include "planner/plan.h"
#include "spec/json.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

// ---- what up is asked --------------------------------------------------------------------------

Result<std::optional<int64_t>> seconds_of(const Parsed& parsed, std::string_view flag) {
  const auto text = parsed.value(flag);
  if (!text) return std::nullopt;
  const bool plain = !text->empty() && text->find_first_not_of("0123456789") == std::string::npos;
  return TRY_DURING(base::parse_duration_ns(plain ? *text + "s" : *text), "--{}", flag) / 1'000'000;
}

Result<json> scale_of(const Parsed& parsed) {
  json scale = json::object();
  for (const std::string& text : parsed.all("scale")) {
    const size_t equals = text.find('=');
    const std::string number = equals == std::string::npos ? "" : text.substr(equals + 1);
    uint32_t count = 0;
    const char* last = number.data() + number.size();
    const auto [end, error] = std::from_chars(number.data(), last, count);
    if (number.empty() || error != std::errc() || end != last)
      return base::fail(ErrorCode::InvalidArgument, "--scale '{}': write it as SERVICE=NUMBER",
                        base::escape_controls(text));
    scale[text.substr(0, equals)] = count;
  }
  return scale;
}

Result<json> up_options(const Parsed& parsed) {
  json options = {
      {"services", parsed.arguments},
      {"force_recreate", parsed.has("force-recreate")},
      {"no_recreate", parsed.has("no-recreate")},
      {"no_start", parsed.has("no-start")},
      {"no_dependencies", parsed.has("no-deps")},
      {"remove_orphans", parsed.has("remove-orphans")},
      {"wait", parsed.has("wait")},
  };
  options["scale"] = TRY(scale_of(parsed));
  if (const auto wait_ms = TRY(seconds_of(parsed, "wait-timeout")))
    options["wait_timeout_ms"] = *wait_ms;
  if (const auto grace_ms = TRY(seconds_of(parsed, "timeout")))
    options["stop_grace_ms"] = *grace_ms;
  return options;
}

json up_command(const spec::Stack& stack, const json& options) {
  return {{"command", "up"},
          {"owner", owner_text("up", stack.name)},
          {"stack", spec::to_json(stack)},
          {"options", options}};
}

/// The services asked for and, unless they are left out, what they depend on.
std::set<std::string> chosen_services(const spec::Stack& stack, const Parsed& parsed) {
  std::set<std::string> chosen;
  std::vector<std::string> next = parsed.arguments;
  while (!next.empty()) {
    const std::string name = std::move(next.back());
    next.pop_back();
    const auto service = stack.services.find(name);
    if (service == stack.services.end() || !chosen.insert(name).second) continue;
    if (parsed.has("no-deps")) continue;
    for (const auto& [dependency, how] : service->second.depends_on) next.push_back(dependency);
  }
  return chosen;
}

/// Made first, started then; see attached_up.h.
Round up_round(const spec::Stack& stack, const Parsed& parsed, const json& options) {
  json make = options;
  make["no_start"] = true;
  make["wait"] = false;
  make.erase("wait_timeout_ms");
  // Recreated once is enough: the second command finds what the first has made.
  json begin = options;
  begin["force_recreate"] = false;
  return {.commands = {up_command(stack, make), up_command(stack, begin)},
          .services = chosen_services(stack, parsed)};
}

std::optional<std::string> contradiction(const Parsed& parsed) {
  constexpr std::pair<const char*, const char*> pairs[] = {
      {"force-recreate", "no-recreate"},
      {"build", "no-build"},
      {"watch", "detach"},
      {"watch", "wait"},
      {"watch", "no-start"},
      {"watch", "plan"},
  };
  for (const auto& [one, other] : pairs)
    if (parsed.has(one) && parsed.has(other))
      return fmt::format("--{} and --{} contradict each other", one, other);
  if (parsed.has("plan") && !parsed.arguments.empty())
    return "a saved plan says itself which services it is about";
  return std::nullopt;
}

// ---- up ----------------------------------------------------------------------------------------

Result<> build_first(const Context& context, const Parsed& parsed, const StackFiles& files) {
  const spec::Stack& stack = *files.stack;
  std::set<std::string> always;
  for (const auto& [name, policy] : files.pull_policies)
    if (policy == spec::PullPolicy::Build) always.insert(name);
  return build_services(context, parsed, files,
                        TRY(services_to_build(context, stack, chosen_services(stack, parsed),
                                              which_builds(parsed), always)));
}

/// Re-reads the files for `--watch`.
std::optional<Round> read_again(const Context& context, const Parsed& parsed,
                                const std::string& project, std::set<std::string>& watched) {
  const Result<StackFiles> files = load_stack(context, parsed);
  const Result<json> options = up_options(parsed);
  if (!files || !options) {
    tell_error(files ? options.error() : files.error());
    return std::nullopt;
  }
  // A file that is not named any more may come back; with errors in it nobody knows.
  if (files->stack) watched = files->read;
  if (!files->stack || files->stack->name != project) {
    tell(files->stack ? "The project's name has changed: end this `up` and start another.\n"
                      : "What runs is left as it is.\n");
    return std::nullopt;
  }
  Result<> brought = build_first(context, parsed, *files);
  if (brought) brought = bring_images(context, parsed, *files->stack, files->pull_policies);
  if (!brought) {
    tell_error(brought.error());
    return std::nullopt;
  }
  return up_round(*files->stack, parsed, *options);
}

Result<int> up_attached(const Context& context, const Parsed& parsed, StackFiles files,
                        const json& options) {
  const std::string project = files.stack->name;
  AttachedOptions attached;
  attached.project = project;
  attached.first = up_round(*files.stack, parsed, options);
  attached.stop_grace_ms = TRY(seconds_of(parsed, "timeout"));
  if (parsed.has("watch")) {
    attached.watched = std::move(files.read);
    attached.again = [&context, &parsed, project](std::set<std::string>& watched) {
      return read_again(context, parsed, project, watched);
    };
  }
  return show_attached(context, std::move(attached));
}

Result<int> up_saved_plan(const Context& context, const Parsed& parsed) {
  const std::string path = absolute_path(context, *parsed.value("plan"));
  const std::string text = TRY(base::read_file(path, base::limits::plan_file_bytes_max));
  const json saved = TRY_DURING(base::parse_json(text), "read the plan '{}'", path);
  const planner::Plan plan = TRY_DURING(planner::plan_from_json(saved), "read the plan '{}'", path);
  TRY(bring_planned_images(context, parsed, plan));
  const json command = {{"plan", saved}, {"owner", owner_text("up", plan.project)}};
  if (parsed.has("detach") || parsed.has("wait") || plan.project.empty()) {
    TRY(apply_all(context, command, Show::All));
    return 0;
  }
  const std::optional<int64_t> grace_ms = TRY(seconds_of(parsed, "timeout"));
  return show_attached(context, {.project = plan.project,
                                 .first = {.commands = {command}, .services = {}},
                                 .stop_grace_ms = grace_ms,
                                 .watched = {},
                                 .again = {}});
}

Result<int> up(Context& context, const Parsed& parsed) {
  if (const auto problem = contradiction(parsed)) return wrong_usage(context, parsed, *problem);
  const Result<json> options = up_options(parsed);
  if (!options) return wrong_usage(context, parsed, options.error().to_string());
  if (parsed.has("plan")) return up_saved_plan(context, parsed);
  StackFiles files = TRY(load_valid_files(context, parsed));
  if (which_builds(parsed) == WhichBuilds::None) files.stack->builds.clear();
  TRY(build_first(context, parsed, files));
  TRY(bring_images(context, parsed, *files.stack, files.pull_policies));
  const bool stays = !parsed.has("detach") && !parsed.has("wait") && !parsed.has("no-start");
  if (stays) return up_attached(context, parsed, std::move(files), *options);
  TRY(apply_all(context, up_command(*files.stack, *options), Show::All));
  return 0;
}

// ---- down --------------------------------------------------------------------------------------

Result<int> down(Context& context, const Parsed& parsed) {
  const auto grace_ms = seconds_of(parsed, "timeout");
  if (!grace_ms) return wrong_usage(context, parsed, grace_ms.error().to_string());
  const std::string project = TRY(project_of(context, parsed));
  json options = {{"volumes", parsed.has("volumes")},
                  {"remove_orphans", parsed.has("remove-orphans")}};
  if (*grace_ms) options["stop_grace_ms"] = **grace_ms;
  const json command = {{"command", "down"},
                        {"owner", owner_text("down", project)},
                        {"project", project},
                        {"options", std::move(options)}};
  TRY(apply_all(context, command, Show::All));
  return 0;
}

// ---- plan and config ---------------------------------------------------------------------------

Result<int> plan(Context& context, const Parsed& parsed) {
  const Result<json> options = up_options(parsed);
  if (!options) return wrong_usage(context, parsed, options.error().to_string());
  const StackFiles files = TRY(load_valid_files(context, parsed));
  const spec::Stack& stack = *files.stack;
  Request request;
  request.method = "POST";
  request.target = "/v1/plan";
  json command = up_command(stack, *options);
  if (parsed.value("pull") != "never") command["access"] = TRY(access_for(context, parsed, stack));
  command["not_pulled"] = images_not_pulled(parsed, stack, files.pull_policies);
  request.body = base::dump_json(command);
  const json answer = TRY(base::parse_json(TRY(context.client.call(request))));
  const planner::Plan made =
      TRY_DURING(planner::plan_from_json(answer), "understand the daemon's plan");
  if (const auto file = parsed.value("output")) {
    const std::string path = absolute_path(context, *file);
    TRY_DURING(base::write_file_atomically(path, base::dump_json_pretty(answer) + "\n", 0644),
               "save the plan");
    tell(fmt::format("Saved. Carry it out with: container up --plan {}\n", printable(*file)));
  }
  const bool as_json = parsed.value("format") == "json";
  TRY(print(as_json ? base::dump_json(answer) + "\n" : printable(planner::render_text(made))));
  constexpr int exit_changes = 2;
  return parsed.has("detailed-exitcode") && !made.steps.empty() ? exit_changes : 0;
}

Result<int> config(Context& context, const Parsed& parsed) {
  const spec::Stack stack = TRY(load_valid_stack(context, parsed));
  if (parsed.has("quiet")) return 0;
  if (!parsed.has("services")) {
    TRY(print(base::dump_json_pretty(spec::to_json(stack)) + "\n"));
    return 0;
  }
  for (const auto& [name, service] : stack.services) TRY(print(base::escape_controls(name) + "\n"));
  return 0;
}

// ---- the table ---------------------------------------------------------------------------------

std::vector<Flag> with_files(std::vector<Flag> flags) {
  std::vector<Flag> all = stack_file_flags();
  all.insert(all.end(), flags.begin(), flags.end());
  return all;
}

std::vector<Flag> convergence_flags() {
  return {
      {.name = "force-recreate", .help = "Replace containers that have not changed, too"},
      {.name = "no-recreate", .help = "Leave containers that have changed as they are"},
      {.name = "build", .help = "Build images of services with a build section again"},
      {.name = "no-build", .help = "Build nothing: an image that is missing is an error"},
      {.name = "no-start", .help = "Make them, but start nothing"},
      {.name = "no-deps", .help = "Without the services they depend on"},
      {.name = "remove-orphans", .help = "Remove containers of services that are gone"},
      {.name = "scale", .value = "SERVICE=NUMBER", .help = "So many containers of a service"},
      {.name = "wait", .help = "Until all run and are healthy; implies --detach"},
      {.name = "wait-timeout", .value = "SECONDS", .help = "How long at most"},
      {.name = "timeout",
       .short_name = 't',
       .value = "SECONDS",
       .help = "How long a stop waits before it kills"},
  };
}

Command up_entry() {
  std::vector<Flag> flags = with_files(convergence_flags());
  for (const Flag& flag : pull_flags()) flags.push_back(flag);
  flags.push_back({.name = "detach", .short_name = 'd', .help = "Return once everything runs"});
  flags.push_back({.name = "plan", .value = "FILE", .help = "Carry out a saved plan"});
  flags.push_back(
      {.name = "watch", .short_name = 'w', .help = "Follow changes of the stack's files"});
  return {.name = "up",
          .group = "Stacks",
          .summary = "Make and start the services of a stack, and change what has changed",
          .arguments = "[SERVICE…]",
          .arguments_max = any_number,
          .flags = std::move(flags),
          .handler = up};
}

Command plan_entry() {
  std::vector<Flag> flags = with_files(convergence_flags());
  flags.push_back(registry_flags().front());
  flags.push_back({.name = "pull",
                   .value = "missing|never",
                   .help = "never: do not ask registries for images that are missing"});
  flags.push_back(
      {.name = "output", .short_name = 'o', .value = "FILE", .help = "Save it for `up --plan`"});
  flags.push_back({.name = "format", .value = "text|json", .help = "How to print it"});
  flags.push_back({.name = "detailed-exitcode", .help = "2: there is something to do"});
  return {.name = "plan",
          .group = "Stacks",
          .summary = "Tell what `up` would do, and why",
          .arguments = "[SERVICE…]",
          .arguments_max = any_number,
          .flags = std::move(flags),
          .handler = plan};
}

}  // namespace

std::vector<Command> stack_commands() {
  return {
      up_entry(),
      {.name = "down",
       .group = "Stacks",
       .summary = "Stop and remove what a stack has made",
       .flags = with_files(
           {{.name = "volumes", .short_name = 'v', .help = "Its volumes, too: this loses data"},
            {.name = "remove-orphans", .help = "Remove containers of services that are gone"},
            {.name = "timeout",
             .short_name = 't',
             .value = "SECONDS",
             .help = "How long a stop waits before it kills"}}),
       .handler = down},
      plan_entry(),
      {.name = "config",
       .group = "Stacks",
       .summary = "Check a stack, and show it as it is understood",
       .flags = with_files({{.name = "quiet", .short_name = 'q', .help = "Check only"},
                            {.name = "services", .help = "Names of the services only"}}),
       .handler = config},
  };
}

}  // namespace cli
