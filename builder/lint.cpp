#include "builder/lint.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "base/overloaded.h"
#include "base/text.h"
#include "builder/checks.h"
#include "builder/expand.h"

namespace builder {
namespace {

using Names = std::set<std::string, std::less<>>;

constexpr std::array<std::string_view, 12> predefined = {
    "HTTP_PROXY", "http_proxy", "HTTPS_PROXY",       "https_proxy",
    "FTP_PROXY",  "ftp_proxy",  "NO_PROXY",          "no_proxy",
    "ALL_PROXY",  "all_proxy",  "SOURCE_DATE_EPOCH", "BUILDKIT_SYNTAX"};
constexpr std::array<std::string_view, 9> platforms = {
    "TARGETPLATFORM", "TARGETOS",  "TARGETARCH",   "TARGETVARIANT", "BUILDPLATFORM",
    "BUILDOS",        "BUILDARCH", "BUILDVARIANT", "TARGETSTAGE"};

/// What a shell or a kernel sets in every container.
constexpr std::string_view always_set = "PATH";

class Linter {
 public:
  Linter(const Dockerfile& file, const LintInput& input) : file_(file), input_(input) {}

  std::vector<Problem> run() {
    for (const Instruction& one : file_.global_arguments)
      if (const auto* arg = std::get_if<ArgInstruction>(&one.operation))
        for (const auto& [name, value] : arg->names) declare_global(name, value);
    for (const Stage& stage : file_.stages) this->stage(stage);
    settle_problems(file_, problems_);
    return std::move(problems_);
  }

 private:
  void declare_global(const std::string& name, const std::optional<std::string>& value) {
    globals_.insert(name);
    const Expander expander(file_.escape, lookup_in(defaults_));
    if (!value) return;
    const base::Result<std::string> expanded = expander.word(*value);
    defaults_[name] = expanded.value_or("");
  }

  static Lookup lookup_in(const std::map<std::string, std::string, std::less<>>& values) {
    return [&values](std::string_view name) -> std::optional<std::string> {
      const auto found = values.find(name);
      return found == values.end() ? std::nullopt : std::optional(found->second);
    };
  }

  void stage(const Stage& stage);
  void from(const Stage& stage);
  void instruction(const Instruction& one, Names& known);
  void warn(const Location& location, std::string rule, std::string message) {
    problems_.push_back({location, std::move(message), true, std::move(rule)});
  }

  const Dockerfile& file_;
  const LintInput& input_;
  std::vector<Problem> problems_;
  Names globals_;
  std::map<std::string, std::string, std::less<>> defaults_;
  std::map<std::string, std::optional<Names>> stages_;  ///< Variables at the end, by name.
};

std::string suggestion(std::string_view name, const Names& known) {
  const std::vector<std::string> candidates(known.begin(), known.end());
  const std::optional<std::string> near = base::did_you_mean(name, candidates);
  return near ? fmt::format(" (did you mean ${}?)", *near) : std::string();
}

void Linter::from(const Stage& stage) {
  Names known = globals_;
  for (const std::string_view name : platforms) known.emplace(name);
  UsedVariables used;
  const Expander names(
      file_.escape,
      [&](std::string_view name) {
        return known.count(name) != 0 ? std::optional<std::string>("x") : std::nullopt;
      },
      &used);
  if (!expand(stage.from, names)) return;  // told when the stage is built
  for (const std::string& name : used.unset)
    warn(stage.location, "UndefinedArgInFrom",
         fmt::format("FROM argument '{}' is not declared{}", name, suggestion(name, known)));
  const bool given = std::any_of(used.found.begin(), used.found.end(),
                                 [](const auto& name) { return is_platform_argument(name); });
  if (used.found.empty() || given) return;
  const Expander values(file_.escape, lookup_in(defaults_));
  const base::Result<std::string> image = values.word(stage.from.image);
  const bool is_name = image && !image->empty() && !image->starts_with(':') &&
                       !image->ends_with(':') && !image->ends_with('@') &&
                       image->find(' ') == std::string::npos;
  if (!is_name)
    warn(stage.location, "InvalidDefaultArgInFrom",
         fmt::format("Default value for ARG {} results in empty or invalid base image name",
                     stage.from.image));
}

/// Names used before they are set; what the instruction sets itself is known behind it.
void Linter::instruction(const Instruction& one, Names& known) {
  UsedVariables used;
  const Expander expander(
      file_.escape,
      [&](std::string_view name) {
        return known.count(name) != 0 ? std::optional<std::string>("x") : std::nullopt;
      },
      &used);
  const base::Result<Operation> expanded = expand(one.operation, expander);
  if (expanded)
    for (const std::string& name : used.unset)
      warn(one.location, "UndefinedVar",
           fmt::format("Usage of undefined variable '${}'{}", name, suggestion(name, known)));
  if (const auto* arg = std::get_if<ArgInstruction>(&one.operation))
    for (const auto& [name, value] : arg->names) known.insert(name);
  if (const auto* env = std::get_if<EnvInstruction>(&one.operation))
    for (const auto& [name, value] : env->pairs) known.insert(name);
}

void Linter::stage(const Stage& stage) {
  from(stage);
  const auto before = stages_.find(stage.from.image);
  std::optional<Names> known;
  if (before != stages_.end()) {
    known = before->second;
  } else if (stage.from.image == "scratch") {
    known.emplace();
  } else if (input_.base_variables) {
    if (const auto names = input_.base_variables(stage.from))
      known.emplace(names->begin(), names->end());
  }
  if (known) {
    known->emplace(always_set);
    for (const std::string_view name : predefined) known->emplace(name);
    for (const Instruction& one : stage.instructions) instruction(one, *known);
  }
  if (!stage.from.name.empty()) stages_[stage.from.name] = std::move(known);
}

}  // namespace

std::vector<Problem> lint_variables(const Dockerfile& file, const LintInput& input) {
  return Linter(file, input).run();
}

bool is_predefined_argument(std::string_view name) {
  return std::find(predefined.begin(), predefined.end(), name) != predefined.end();
}

bool is_platform_argument(std::string_view name) {
  return std::find(platforms.begin(), platforms.end(), name) != platforms.end();
}

}  // namespace builder
