#pragma once
/// Checks that need to know which variables are set: UndefinedVar, UndefinedArgInFrom,
/// InvalidDefaultArgInFrom. All others need only the text, and are done by parse_dockerfile().
///
/// Pure. `# check=skip=…` and `# check=error=true` are honoured.

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "builder/dockerfile.h"

namespace builder {

struct LintInput {
  /// Names that a base image's environment sets; nullopt if the image is not at hand, and then
  /// nothing is said about variables of stages built from it.
  std::function<std::optional<std::vector<std::string>>(const FromInstruction& from)>
      base_variables;
};

/// In order of place. Warnings, unless the file wants them to be errors.
std::vector<Problem> lint_variables(const Dockerfile& file, const LintInput& input);

/// Names of the arguments that every build may use without ARG (`HTTP_PROXY`, …).
bool is_predefined_argument(std::string_view name);
/// Names that are set for every build and need an ARG in a stage (`TARGETPLATFORM`, …).
bool is_platform_argument(std::string_view name);

}  // namespace builder
