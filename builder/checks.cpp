#include "builder/checks.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "base/overloaded.h"
#include "base/text.h"
#include "builder/characters.h"
#include "builder/words.h"

namespace builder {
namespace {

class Checker {
 public:
  Checker(const Dockerfile& file, std::vector<Problem>& problems)
      : file_(file), problems_(problems) {}

  void run() {
    casing();
    for (const Instruction& argument : file_.global_arguments) secrets(argument);
    for (const Stage& stage : file_.stages) {
      from(stage);
      instructions(stage);
    }
  }

 private:
  void warn(const Location& location, std::string rule, std::string message) {
    problems_.push_back({location, std::move(message), true, std::move(rule)});
  }

  void casing();
  void from(const Stage& stage);
  void instructions(const Stage& stage);
  void repeated(const Stage& stage);
  void working_dir(const WorkdirInstruction& workdir, const Location& location);
  void expose(const ExposeInstruction& expose, const Location& location);
  void secrets(const Instruction& instruction);
  void json_form(std::string_view name, const CommandLine& command, const Location& location);

  const Dockerfile& file_;
  std::vector<Problem>& problems_;
  std::set<std::string> names_;
  std::set<std::string> with_working_dir_;  ///< Stages whose WORKDIR is known to be absolute.
  bool has_shell_ = false;
  bool has_working_dir_ = false;
};

std::string keyword(const std::string& text) { return std::string(split_command(text).command); }

void Checker::casing() {
  std::vector<std::pair<std::string, Location>> words;
  for (const Instruction& one : file_.global_arguments)
    words.emplace_back(keyword(one.text), one.location);
  for (const Stage& stage : file_.stages) {
    words.emplace_back(keyword(stage.text), stage.location);
    for (const Instruction& one : stage.instructions)
      words.emplace_back(keyword(one.text), one.location);
  }
  size_t lower = 0;
  size_t upper = 0;
  for (const auto& [word, location] : words) {
    lower += word == to_lower(word) ? 1 : 0;
    upper += word == to_upper(word) ? 1 : 0;
  }
  const bool majority_is_lower = lower > upper;
  for (const auto& [word, location] : words) {
    if (word == (majority_is_lower ? to_lower(word) : to_upper(word))) continue;
    warn(location, "ConsistentInstructionCasing",
         fmt::format("Command '{}' should match the case of the command majority ({})", word,
                     majority_is_lower ? "lowercase" : "uppercase"));
  }
}

void Checker::from(const Stage& stage) {
  has_shell_ = false;
  has_working_dir_ = with_working_dir_.count(to_lower(stage.from.image)) != 0;
  const std::string& name = stage.from.name;
  if (name == "scratch" || name == "context")
    warn(stage.location, "ReservedStageName",
         fmt::format("Stage name should not use the same name as reserved stage \"{}\"", name));
  if (!name.empty() && !names_.insert(name).second)
    warn(stage.location, "DuplicateStageName",
         fmt::format("Duplicate stage name \"{}\", stage names should be unique", name));
  const std::string& platform = stage.from.platform;
  if (platform == "$TARGETPLATFORM" || platform == "${TARGETPLATFORM}")
    warn(stage.location, "RedundantTargetPlatform",
         fmt::format("Setting platform to predefined {} in FROM is redundant as this is the "
                     "default behavior",
                     platform));
  if (platform.empty() || platform.find('$') != std::string::npos) return;
  // A stage that says in its name what it is for may be fixed to it.
  for (const std::string& piece : base::split(platform, '/'))
    if (!name.empty() && name.find(piece) != std::string::npos) return;
  warn(stage.location, "FromPlatformFlagConstDisallowed",
       fmt::format("FROM --platform flag should not use constant value \"{}\"", platform));
}

void Checker::repeated(const Stage& stage) {
  std::map<std::string, const Instruction*> last;
  for (const Instruction& one : stage.instructions) {
    const bool single = std::holds_alternative<CmdInstruction>(one.operation) ||
                        std::holds_alternative<EntrypointInstruction>(one.operation) ||
                        std::holds_alternative<HealthcheckInstruction>(one.operation);
    if (!single) continue;
    const std::string name = to_upper(keyword(one.text));
    const Instruction*& before = last[name];
    if (before != nullptr)
      warn(before->location, "MultipleInstructionsDisallowed",
           fmt::format("Multiple {} instructions should not be used in the same stage because "
                       "only the last one will be used",
                       name));
    before = &one;
  }
}

void Checker::json_form(std::string_view name, const CommandLine& command,
                        const Location& location) {
  if (!command.shell_form || command.words.empty() || has_shell_) return;
  warn(location, "JSONArgsRecommended",
       fmt::format("JSON arguments recommended for {} to prevent unintended behavior related to "
                   "OS signals",
                   name));
}

void Checker::working_dir(const WorkdirInstruction& workdir, const Location& location) {
  const std::string& path = workdir.path;
  const size_t first = path.find_first_not_of("\"'");
  const char start = first == std::string::npos ? '\0' : path[first];
  // A path that begins with a variable may be absolute.
  if (start != '/' && start != '$' && !has_working_dir_)
    warn(location, "WorkdirRelativePath",
         fmt::format("Relative workdir \"{}\" can have unexpected results if the base image "
                     "changes",
                     path));
  has_working_dir_ = true;
}

void Checker::expose(const ExposeInstruction& expose, const Location& location) {
  for (const std::string& port : expose.ports) {
    if (port.find('$') != std::string::npos) continue;
    const std::string protocol =
        port.find('/') == std::string::npos ? std::string() : port.substr(port.find('/') + 1);
    if (protocol != to_lower(protocol))
      warn(location, "ExposeProtoCasing",
           fmt::format("Defined protocol '{}' in EXPOSE instruction should be lowercase", port));
    if (port.find(':') != std::string::npos)
      warn(location, "ExposeInvalidFormat",
           fmt::format("EXPOSE instruction should not define an IP address or host-port mapping, "
                       "found '{}'",
                       port));
  }
}

/// One of these words between underscores makes a name a secret's, unless another says otherwise.
bool is_secret_name(std::string_view name) {
  constexpr std::array<std::string_view, 10> secret = {
      "apikey",   "auth",  "credential", "credentials", "key",
      "password", "pword", "passwd",     "secret",      "token"};
  constexpr std::array<std::string_view, 3> harmless = {"public", "file", "version"};
  bool found = false;
  for (const std::string& word : base::split(to_lower(name), '_')) {
    if (std::find(harmless.begin(), harmless.end(), word) != harmless.end()) return false;
    found = found || std::find(secret.begin(), secret.end(), word) != secret.end();
  }
  return found;
}

void Checker::secrets(const Instruction& instruction) {
  const auto look = [&](std::string_view kind, const std::string& name) {
    if (is_secret_name(name))
      warn(instruction.location, "SecretsUsedInArgOrEnv",
           fmt::format("Do not use ARG or ENV instructions for sensitive data ({} \"{}\")", kind,
                       name));
  };
  if (const auto* arg = std::get_if<ArgInstruction>(&instruction.operation))
    for (const auto& [name, value] : arg->names) look("ARG", name);
  if (const auto* env = std::get_if<EnvInstruction>(&instruction.operation))
    for (const auto& [name, value] : env->pairs) look("ENV", name);
}

void Checker::instructions(const Stage& stage) {
  repeated(stage);
  for (const Instruction& one : stage.instructions) {
    secrets(one);
    std::visit(base::overloaded{
                   [&](const ShellInstruction&) { has_shell_ = true; },
                   [&](const CmdInstruction& cmd) { json_form("CMD", cmd.command, one.location); },
                   [&](const EntrypointInstruction& entry) {
                     json_form("ENTRYPOINT", entry.command, one.location);
                   },
                   [&](const WorkdirInstruction& workdir) { working_dir(workdir, one.location); },
                   [&](const ExposeInstruction& ports) { expose(ports, one.location); },
                   [&](const MaintainerInstruction&) {
                     warn(one.location, "MaintainerDeprecated",
                          "Maintainer instruction is deprecated in favor of using label");
                   },
                   [](const auto&) {},
               },
               one.operation);
  }
  if (has_working_dir_ && !stage.from.name.empty()) with_working_dir_.insert(stage.from.name);
}

const std::vector<std::string>& rules() {
  static const std::vector<std::string> names = {"StageNameCasing",
                                                 "FromAsCasing",
                                                 "NoEmptyContinuation",
                                                 "ConsistentInstructionCasing",
                                                 "DuplicateStageName",
                                                 "ReservedStageName",
                                                 "JSONArgsRecommended",
                                                 "MaintainerDeprecated",
                                                 "UndefinedArgInFrom",
                                                 "WorkdirRelativePath",
                                                 "UndefinedVar",
                                                 "MultipleInstructionsDisallowed",
                                                 "LegacyKeyValueFormat",
                                                 "InvalidBaseImagePlatform",
                                                 "RedundantTargetPlatform",
                                                 "SecretsUsedInArgOrEnv",
                                                 "InvalidDefaultArgInFrom",
                                                 "FromPlatformFlagConstDisallowed",
                                                 "CopyIgnoredFile",
                                                 "InvalidDefinitionDescription",
                                                 "ExposeProtoCasing",
                                                 "ExposeInvalidFormat"};
  return names;
}

}  // namespace

void check_file(const Dockerfile& file, std::vector<Problem>& problems) {
  Checker(file, problems).run();
}

void take_check_directive(const std::string& value, const Location& location, Dockerfile& file,
                          std::vector<Problem>& problems) {
  for (const std::string& part : base::split(value, ';')) {
    const size_t equals = part.find('=');
    const std::string key(trim(std::string_view(part).substr(0, equals)));
    const std::string_view text =
        equals == std::string::npos ? "" : trim(std::string_view(part).substr(equals + 1));
    if (key == "error") {
      file.checks_are_errors = equal_fold(text, "true");
      if (!equal_fold(text, "true") && !equal_fold(text, "false"))
        problems.push_back(
            {location,
             fmt::format("'error' of a check directive is true or false, not '{}'", text)});
    } else if (key == "skip" || key == "experimental") {
      for (const std::string& name : base::split(text, ',')) {
        const std::string rule(trim(name));
        const bool is_known =
            rule == "all" || std::find(rules().begin(), rules().end(), rule) != rules().end();
        if (!is_known) {
          const std::optional<std::string> near = base::did_you_mean(rule, rules());
          problems.push_back(
              {location,
               fmt::format("there is no check '{}'{}", rule,
                           near ? fmt::format("; did you mean {}?", *near) : std::string()),
               true});
        }
        if (key == "skip") file.skipped_checks.push_back(rule);
      }
    } else {
      problems.push_back(
          {location, fmt::format("a check directive has 'skip', 'error' and 'experimental', not "
                                 "'{}'",
                                 key)});
    }
  }
}

void settle_problems(const Dockerfile& file, std::vector<Problem>& problems) {
  const std::vector<std::string>& skipped = file.skipped_checks;
  std::erase_if(problems, [&](const Problem& problem) {
    return !problem.rule.empty() && problem.warning &&
           std::any_of(skipped.begin(), skipped.end(), [&](const std::string& name) {
             return name == "all" || name == problem.rule;
           });
  });
  if (file.checks_are_errors)
    for (Problem& problem : problems)
      if (!problem.rule.empty()) problem.warning = false;
  std::stable_sort(problems.begin(), problems.end(), [](const Problem& a, const Problem& b) {
    return std::tie(a.location.line, a.location.column) <
           std::tie(b.location.line, b.location.column);
  });
}

}  // namespace builder
