/// Dockerfiles of strangers: whatever comes, it is read within its bounds; every problem can be
/// shown, and no byte of the file reaches a terminal as a control byte; expansion ends.

#include <algorithm>
#include <cstdlib>
#include <string>

#include "base/limits.h"
#include "builder/dockerfile.h"
#include "builder/expand.h"
#include "builder/lint.h"

namespace {

void check_text(const std::string& text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) < 0x20 && c != '\n') std::abort();
}

void expand_all(const builder::Dockerfile& file) {
  builder::UsedVariables used;
  const builder::Expander expander(
      file.escape,
      [](std::string_view name) -> std::optional<std::string> {
        if (name.size() > 8) return std::nullopt;
        return std::string(name) + " $A 'x' *";
      },
      &used);
  for (const builder::Stage& stage : file.stages) {
    static_cast<void>(builder::expand(stage.from, expander).has_value());
    for (const builder::Instruction& one : stage.instructions)
      static_cast<void>(builder::expand(one.operation, expander).has_value());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const builder::Parsed parsed = builder::parse_dockerfile(text);
  if (parsed.problems.size() > base::limits::dockerfile_problems_max + 1) std::abort();
  const auto lines = static_cast<uint32_t>(1 + std::count(text.begin(), text.end(), '\n'));
  for (const builder::Problem& problem : parsed.problems) {
    if (problem.location.line == 0 || problem.location.line > lines) std::abort();
    check_text(builder::render(problem, "Dockerfile", text));
  }
  if (!parsed.ok()) return 0;
  if (parsed.file.stages.empty()) std::abort();
  expand_all(parsed.file);
  for (const builder::Problem& problem :
       builder::lint_variables(parsed.file, {[](const builder::FromInstruction&) {
                                 return std::optional<std::vector<std::string>>(std::in_place);
                               }}))
    check_text(builder::render(problem, "Dockerfile", text));
  return 0;
}
