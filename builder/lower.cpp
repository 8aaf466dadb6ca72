#include "builder/lower.h"

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "base/overloaded.h"
#include "base/sha256.h"
#include "base/text.h"
#include "builder/expand.h"
#include "builder/lint.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;

/// Puts the file's line into an error that a step of `source` met.
#define TRY_AT(expression, location)                                                          \
  __extension__({                                                                             \
    auto try_at_result = (expression);                                                        \
    if (!try_at_result) [[unlikely]]                                                          \
      return tl::unexpected<base::Error>(error_at(source_, location, try_at_result.error())); \
    base::take(std::move(try_at_result));                                                     \
  })

std::string first_line(const std::string& text) {
  const size_t end = text.find('\n');
  return end == std::string::npos ? text : text.substr(0, end) + " …";
}

/// A here document that is a program of its own.
bool is_script(const RunInstruction& run) {
  return run.heredocs.size() == 1 && run.heredocs.front().content.starts_with("#!");
}

/// Walks through one stage.
class Lowering {
 public:
  Lowering(const Dockerfile& file, ImageConfig base, const Arguments& arguments,
           const SourceText& source)
      : file_(file), arguments_(arguments), source_(source), config_(std::move(base)) {}

  Result<LoweredStage> stage(const Stage& stage) {
    for (const std::string& text : config_.take_triggers()) TRY(trigger(text, stage.location));
    for (const Instruction& one : stage.instructions) TRY(instruction(one, one.location));
    return LoweredStage{
        .steps = std::move(steps_), .config = std::move(config_), .consumed = std::move(consumed_)};
  }

 private:
  Result<> trigger(const std::string& text, const Location& location) {
    const Parsed parsed = parse_instruction(text, '\\');
    for (const Problem& problem : parsed.problems)
      if (!problem.warning)
        return tl::unexpected<base::Error>(
            error_at(source_, location,
                     {ErrorCode::InvalidArgument,
                      fmt::format("the base image's ONBUILD {}: {}", text, problem.message)}));
    for (const Stage& stage : parsed.file.stages)
      for (const Instruction& one : stage.instructions) TRY(instruction(one, location));
    return {};
  }

  std::optional<std::string> lookup(std::string_view name) const {
    if (auto value = config_.variable(name)) return value;
    const auto declared = declared_.find(std::string(name));
    return declared == declared_.end() ? std::nullopt : declared->second;
  }

  Result<> instruction(const Instruction& one, const Location& location) {
    const Expander expander(file_.escape, [this](std::string_view name) { return lookup(name); });
    const Operation operation = TRY_AT(expand(one.operation, expander), location);
    LoweredStep step{.work = ConfigWork{},
                     .text = first_line(one.text),
                     .created_by = one.text,
                     .config = {},
                     .location = location};
    TRY_AT(std::visit([&](const auto& each) { return take(each, step); }, operation), location);
    step.config = base::sha256_of(base::dump_json(config_.identity()));
    steps_.push_back(std::move(step));
    return {};
  }

  Result<> take(const ArgInstruction& arg, LoweredStep&) {
    for (const auto& [name, fallback] : arg.names) declare(name, fallback);
    return {};
  }

  void declare(const std::string& name, const std::optional<std::string>& fallback) {
    if (const auto given = arguments_.given.find(name); given != arguments_.given.end()) {
      declared_[name] = given->second;
      consumed_.push_back(name);
      return;
    }
    if (fallback) {
      declared_[name] = fallback;
      return;
    }
    const auto global = arguments_.global.find(name);
    const auto platform = arguments_.platform.find(name);
    if (global != arguments_.global.end() && global->second)
      declared_[name] = global->second;
    else if (platform != arguments_.platform.end())
      declared_[name] = platform->second;
    else
      declared_.try_emplace(name, std::nullopt);
  }

  Result<> take(const EnvInstruction& env, LoweredStep&) {
    for (const auto& [name, value] : env.pairs) config_.set_variable(name, value);
    return {};
  }
  Result<> take(const LabelInstruction& label, LoweredStep&) {
    for (const auto& [name, value] : label.pairs) config_.set_label(name, value);
    return {};
  }
  Result<> take(const MaintainerInstruction& maintainer, LoweredStep&) {
    config_.set_author(maintainer.text);
    return {};
  }
  Result<> take(const UserInstruction& user, LoweredStep&) {
    config_.set_user(user.user);
    return {};
  }
  Result<> take(const CmdInstruction& cmd, LoweredStep&) {
    config_.set_command(config_.command_words(cmd.command));
    return {};
  }
  Result<> take(const EntrypointInstruction& entrypoint, LoweredStep&) {
    config_.set_entrypoint(config_.command_words(entrypoint.command));
    return {};
  }
  Result<> take(const ExposeInstruction& expose, LoweredStep&) {
    for (const std::string& port : expose.ports) TRY(config_.expose(port));
    return {};
  }
  Result<> take(const VolumeInstruction& volume, LoweredStep&) {
    for (const std::string& path : volume.paths) config_.add_volume(path);
    return {};
  }
  Result<> take(const StopSignalInstruction& stop, LoweredStep&) {
    config_.set_stop_signal(stop.signal);
    return {};
  }
  Result<> take(const HealthcheckInstruction& check, LoweredStep&) {
    return config_.set_health_check(check);
  }
  Result<> take(const ShellInstruction& shell, LoweredStep&) {
    config_.set_shell(shell.words);
    return {};
  }
  Result<> take(const OnbuildInstruction& onbuild, LoweredStep&) {
    config_.add_trigger(onbuild.text);
    return {};
  }
  Result<> take(const WorkdirInstruction& workdir, LoweredStep& step) {
    step.work = WorkdirWork{.path = config_.set_working_dir(workdir.path), .user = config_.user()};
    return {};
  }
  Result<> take(const CopyInstruction& copy, LoweredStep& step) {
    step.work = CopyWork{.copy = copy, .working_dir = config_.working_dir()};
    return {};
  }

  Result<> take(const RunInstruction& run, LoweredStep& step) {
    RunWork work;
    work.script = is_script(run) ? run.heredocs.front().content : "";
    if (work.script.empty()) work.arguments = config_.command_words(run.command);
    work.environment = config_.environment();
    for (const auto& [name, value] : declared_)
      if (value && !config_.variable(name))
        (is_predefined_argument(name) ? work.hidden_environment : work.environment)
            .push_back(name + "=" + *value);
    for (const auto& [name, value] : arguments_.given)
      if (is_predefined_argument(name) && !declared_.contains(name) && !config_.variable(name))
        work.hidden_environment.push_back(name + "=" + value);
    work.working_dir = config_.working_dir();
    work.user = config_.user();
    work.mounts = run.mounts;
    work.network = run.network;
    work.insecure = run.insecure;
    const std::string shown =
        run.command.shell_form && work.script.empty()
            ? base::join(work.arguments, " ")
            : step.created_by.substr(std::min<size_t>(step.created_by.size(), 4));
    step.created_by = "RUN " + shown;
    step.work = std::move(work);
    return {};
  }

  const Dockerfile& file_;
  const Arguments& arguments_;
  const SourceText& source_;
  ImageConfig config_;
  std::map<std::string, std::optional<std::string>> declared_;
  std::vector<LoweredStep> steps_;
  std::vector<std::string> consumed_;
};

void add_platform(std::map<std::string, std::string>& to, const std::string& prefix,
                  const image::Platform& platform) {
  to[prefix + "PLATFORM"] = platform.text();
  to[prefix + "OS"] = platform.os;
  to[prefix + "ARCH"] = platform.architecture;
  to[prefix + "VARIANT"] = platform.variant;
}

Lookup global_lookup(const Arguments& arguments) {
  return [&arguments](std::string_view name) -> std::optional<std::string> {
    if (const auto found = arguments.global.find(std::string(name));
        found != arguments.global.end())
      return found->second;
    if (const auto found = arguments.platform.find(std::string(name));
        found != arguments.platform.end())
      return found->second;
    return std::nullopt;
  };
}

}  // namespace

base::Error error_at(const SourceText& source, const Location& location, const base::Error& error) {
  const Problem problem{.location = location, .message = error.to_string()};
  return {error.code(), render(problem, source.name, source.text)};
}

Result<Arguments> make_arguments(const Dockerfile& file, const SourceText& source,
                                 const std::map<std::string, std::string>& given,
                                 const image::Platform& target, const image::Platform& host) {
  const SourceText& source_ = source;
  Arguments arguments{.given = given, .platform = {}, .global = {}};
  add_platform(arguments.platform, "TARGET", target);
  add_platform(arguments.platform, "BUILD", host);
  for (const Instruction& instruction : file.global_arguments) {
    const Expander expander(file.escape, global_lookup(arguments));
    const Operation operation =
        TRY_AT(expand(instruction.operation, expander), instruction.location);
    const auto* arg = std::get_if<ArgInstruction>(&operation);
    if (arg == nullptr) continue;
    for (const auto& [name, fallback] : arg->names) {
      const auto found = given.find(name);
      const auto platform = arguments.platform.find(name);
      std::optional<std::string> value = fallback;
      if (!value && platform != arguments.platform.end()) value = platform->second;
      arguments.global[name] = found == given.end() ? value : std::optional(found->second);
    }
  }
  return arguments;
}

Result<FromInstruction> expand_from(const Dockerfile& file, const Stage& stage,
                                    const Arguments& arguments, const SourceText& source) {
  const SourceText& source_ = source;
  FromInstruction from =
      TRY_AT(expand(stage.from, Expander(file.escape, global_lookup(arguments))), stage.location);
  if (from.image.empty())
    return tl::unexpected<base::Error>(
        error_at(source, stage.location,
                 {ErrorCode::InvalidArgument,
                  fmt::format("FROM {} names no image once its arguments are filled in; give them "
                              "a default before the first FROM, or use --build-arg",
                              stage.from.image)}));
  return from;
}

Result<LoweredStage> lower_stage(const Dockerfile& file, const Stage& stage, ImageConfig base,
                                 const Arguments& arguments, const SourceText& source) {
  return Lowering(file, std::move(base), arguments, source).stage(stage);
}

}  // namespace builder
