/// run, create, start, exec: a process and us.

#include <fcntl.h>
#include <unistd.h>
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "api/wire.h"
#include "base/deadline.h"
#include "base/json.h"
#include "base/text.h"
#include "base/trace.h"
#include "cli/apply.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/context.h"
#include "cli/process_link.h"
#include "cli/registry_settings.h"
#include "cli/timeline.h"
#include "cli/transfer.h"
#include "planner/snapshot.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

/// `--cidfile`: taken before anything is made, so that a second run cannot overwrite the first's.
class IdFile {
 public:
  static Result<IdFile> open(const Context& context, const Parsed& parsed) {
    IdFile file;
    const auto path = parsed.value("cidfile");
    if (!path) return file;
    file.path_ = absolute_path(context, *path);
    file.fd_ =
        TRY_DURING(base::open_file(file.path_, O_WRONLY | O_CREAT | O_EXCL, 0644), "--cidfile");
    return file;
  }
  IdFile(IdFile&&) = default;
  IdFile& operator=(IdFile&&) = delete;
  ~IdFile() {
    if (fd_) (void)::unlink(path_.c_str());
  }
  /// From here on the file stays.
  Result<> keep(const std::string& id) {
    if (!fd_) return {};
    TRY_DURING(base::write_all(fd_.get(), id), "--cidfile");
    fd_.reset();
    return {};
  }

 private:
  IdFile() = default;
  std::string path_;
  base::UniqueFd fd_;
};

json create_command(const RunOptions& options, std::string_view verb, bool start) {
  return {{"command", "create"},
          {"owner", owner_text(verb, options.id)},
          {"stack", spec::to_json(options.stack)},
          {"start", start},
          {"auto_remove", options.auto_remove}};
}

json start_command(const std::string& id) {
  return {{"command", "start"}, {"owner", owner_text("start", id)}, {"ids", {id}}};
}

/// What was made for a process that never came to be goes again.
void take_back(const Context& context, const std::string& id) {
  const json command = {{"command", "remove"},
                        {"owner", owner_text("run", id)},
                        {"ids", {id}},
                        {"force", true},
                        {"volumes", true}};
  const Result<Applied> removed = apply_all(context, command, Show::Nothing);
  if (!removed && removed.error().code() != ErrorCode::NotFound)
    tell_warning(fmt::format("container '{}' is left over: {}", id, removed.error().to_string()));
}

bool has_created(const Applied& applied) {
  return std::any_of(applied.plan.steps.begin(), applied.plan.steps.end(),
                     [&](const planner::Step& step) {
                       return std::holds_alternative<planner::CreateContainer>(step.operation) &&
                              applied.done.contains(step.id.value);
                     });
}

Result<int> run_detached(Context& context, const RunOptions& options, IdFile& id_file) {
  const Applied applied = TRY(apply(context, create_command(options, "run", true), Show::Nothing));
  if (applied.problem) {
    if (has_created(applied)) take_back(context, options.id);
    return tl::unexpected<base::Error>(*applied.problem);
  }
  TRY(id_file.keep(options.id));
  TRY(print(base::escape_controls(options.id) + "\n"));
  return 0;
}

Result<Upgraded> attach(const Context& context, const std::string& id) {
  Request request;
  request.method = "POST";
  request.target = fmt::format("/v1/containers/{}/attach?from_start=1", percent_encode(id));
  request.upgrade = std::string(api::upgrade_protocol);
  return context.client.upgrade(request);
}

/// Attaches first and starts then, so that not a byte is missed.
Result<int> start_attached(const Context& context, const std::string& id, bool stdin_open,
                           bool terminal) {
  SignalQueue signals = TRY(link_signals());
  Upgraded connection = TRY(attach(context, id));
  const std::unique_ptr<LineStream> start =
      TRY(LineStream::open(context.client, apply_request(start_command(id))));
  return talk(std::move(connection), signals,
              {.stdin_open = stdin_open, .terminal = terminal, .starting = start.get()});
}

/// What the daemon knows of the start, and what we do.
Result<> show_timeline(const Context& context, const RunOptions& options,
                       const std::vector<base::Span>& ours) {
  const char* last = options.auto_remove ? "it is removed" : "nothing of the machine is left";
  const json answer =
      TRY(ask(context, fmt::format("/v1/containers/{}/trace?until={}", percent_encode(options.id),
                                   percent_encode(last))));
  std::vector<base::Span> spans = TRY(base::spans_from_json(answer));
  spans.insert(spans.end(), ours.begin(), ours.end());
  tell(render_timeline(options.id, ours.front().begin_ns, std::move(spans)));
  return {};
}

/// Makes, attaches and starts in one request.
Result<int> run_attached(Context& context, const Parsed& parsed, const RunOptions& options,
                         IdFile& id_file, int64_t begun_ns) {
  const bool traced = parsed.has("trace");
  json command = create_command(options, "run", true);
  command["attach"] = true;
  if (traced) command["trace"] = true;
  Request request = apply_request(command);
  request.upgrade = std::string(api::upgrade_protocol);
  SignalQueue signals = TRY(link_signals());
  const int64_t asked_ns = base::boottime_ns();
  Upgraded connection = TRY(context.client.upgrade(request));
  const int64_t accepted_ns = base::boottime_ns();
  bool started = false;
  Result<int> code = talk(std::move(connection), signals,
                          {.stdin_open = parsed.has("interactive"),
                           .terminal = parsed.has("tty"),
                           .awaits_start = true,
                           .on_started = [&] {
                             started = true;
                             return id_file.keep(options.id);
                           }});
  const int64_t ended_ns = base::boottime_ns();
  if (!code && !started && code.error().code() != ErrorCode::Cancelled)
    take_back(context, options.id);
  if (traced && started)
    TRY(show_timeline(
        context, options,
        {{"command", "reads its words and files", begun_ns, asked_ns},
         {"command", "asks the daemon, which plans", asked_ns, accepted_ns},
         {"command", "until the exit code is here, and so the prompt", accepted_ns, ended_ns}}));
  return code;
}

/// The options, with the image brought here.
Result<RunOptions> ready_options(const Context& context, const Parsed& parsed) {
  RunOptions options = TRY(read_run_options(parsed, context.surroundings));
  for (const std::string& warning : options.warnings) tell_warning(warning);
  const RegistryConfig config = TRY(read_registry_config(context.surroundings));
  for (auto& [id, service] : options.stack.services)
    service.image = with_registry(service.image, config);
  TRY(bring_images(context, parsed, options.stack));
  return options;
}

Result<int> run(Context& context, const Parsed& parsed) {
  const int64_t begun_ns = base::boottime_ns();
  const RunOptions options = TRY(ready_options(context, parsed));
  IdFile id_file = TRY(IdFile::open(context, parsed));
  if (!parsed.has("detach")) return run_attached(context, parsed, options, id_file, begun_ns);
  if (parsed.has("trace"))
    return wrong_usage(context, parsed, "--trace shows a start and its end; leave out --detach");
  return run_detached(context, options, id_file);
}

Result<int> create(Context& context, const Parsed& parsed) {
  const RunOptions options = TRY(ready_options(context, parsed));
  IdFile id_file = TRY(IdFile::open(context, parsed));
  TRY(apply_all(context, create_command(options, "create", false), Show::Nothing));
  TRY(id_file.keep(options.id));
  TRY(print(base::escape_controls(options.id) + "\n"));
  return 0;
}

Result<int> start(Context& context, const Parsed& parsed) {
  const std::string& id = parsed.arguments.front();
  if (!parsed.has("attach") && !parsed.has("interactive")) {
    TRY(apply_all(context, start_command(id), Show::Nothing));
    TRY(print(base::escape_controls(id) + "\n"));
    return 0;
  }
  const planner::ContainerRecord record =
      TRY_DURING(planner::container_record_from_json(TRY(ask_container(context, id))),
                 "understand the daemon");
  if (record.phase == planner::Phase::Running)
    return base::fail(ErrorCode::InvalidState,
                      "container {} is running already; `container logs -f` shows what it writes, "
                      "`container exec` runs something beside it",
                      id);
  return start_attached(context, id, parsed.has("interactive"), record.applied.tty);
}

Result<json> exec_request(const Context& context, const Parsed& parsed) {
  json body = {
      {"arguments", std::vector<std::string>(parsed.arguments.begin() + 1, parsed.arguments.end())},
      {"terminal", parsed.has("tty")},
      {"stdin_open", parsed.has("interactive") && !parsed.has("detach")},
  };
  body["environment"] = TRY(read_environment(parsed, context.surroundings));
  if (const auto folder = parsed.value("workdir")) body["working_dir"] = *folder;
  if (const auto user = TRY(read_user(parsed))) body["user"] = *user;
  const TerminalSize size = terminal_size();
  body["rows"] = size.rows;
  body["columns"] = size.columns;
  return body;
}

Result<int> exec(Context& context, const Parsed& parsed) {
  const std::string& id = parsed.arguments.front();
  Request request;
  request.method = "POST";
  request.target = fmt::format("/v1/containers/{}/exec", percent_encode(id));
  request.body = base::dump_json(TRY(exec_request(context, parsed)));
  request.upgrade = std::string(api::upgrade_protocol);
  SignalQueue signals = TRY(link_signals());
  Upgraded connection = TRY(context.client.upgrade(request));
  // The process exists once the protocol is switched, and does not mind that we leave.
  if (parsed.has("detach")) {
    TRY(print(base::escape_controls(id) + "\n"));
    return 0;
  }
  return talk(std::move(connection), signals,
              {.stdin_open = parsed.has("interactive"), .terminal = parsed.has("tty")});
}

std::vector<Flag> run_flags() {
  std::vector<Flag> flags = process_flags();
  const std::vector<Flag> more = machine_flags();
  flags.insert(flags.end(), more.begin(), more.end());
  const std::vector<Flag> pulls = pull_flags();
  flags.insert(flags.end(), pulls.begin(), pulls.end());
  return flags;
}

}  // namespace

std::vector<Command> process_commands() {
  const Command run_like{.group = "Containers",
                         .arguments = "IMAGE [ARGUMENT…]",
                         .arguments_min = 1,
                         .arguments_max = any_number,
                         .rest_verbatim = true,
                         .flags = run_flags()};
  Command run_command = run_like;
  run_command.name = "run";
  run_command.flags.push_back({.name = "trace", .help = "Print what took how long, at the end"});
  run_command.summary = "Make a container and run it";
  run_command.handler = run;
  Command create_command_entry = run_like;
  create_command_entry.name = "create";
  create_command_entry.summary = "Make a container";
  create_command_entry.handler = create;
  return {
      std::move(run_command),
      std::move(create_command_entry),
      {.name = "start",
       .group = "Containers",
       .summary = "Start a container",
       .arguments = "ID",
       .arguments_min = 1,
       .arguments_max = 1,
       .flags = {{.name = "attach", .short_name = 'a', .help = "Show what it writes"},
                 {.name = "interactive", .short_name = 'i', .help = "Be its stdin, too"}},
       .handler = start},
      {.name = "exec",
       .group = "Containers",
       .summary = "Run a program beside the one of a container",
       .arguments = "ID PROGRAM [ARGUMENT…]",
       .arguments_min = 2,
       .arguments_max = any_number,
       .rest_verbatim = true,
       .flags = process_flags(),
       .handler = exec},
  };
}

}  // namespace cli
