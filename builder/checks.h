#pragma once
/// Checks of a whole file that need only its text; their names are those of `docker build --check`.

#include <string>
#include <vector>

#include "builder/dockerfile.h"

namespace builder {

/// StageNameCasing, FromAsCasing and LegacyKeyValueFormat are told while lines are read; here are
/// the others.
void check_file(const Dockerfile& file, std::vector<Problem>& problems);

/// `# check=skip=A,B;error=true`
void take_check_directive(const std::string& value, const Location& location, Dockerfile& file,
                          std::vector<Problem>& problems);

/// Without what the file skips; warnings of rules become errors if it wants them to. In order.
void settle_problems(const Dockerfile& file, std::vector<Problem>& problems);

}  // namespace builder
