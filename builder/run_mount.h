#pragma once
/// `RUN --mount=…`: a line of comma separated values, as CSV quotes them.

#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "builder/dockerfile.h"

namespace builder {

/// Replaces the variables of one value; null: they are not known yet.
using ValueOf = std::function<base::Result<std::string>(std::string_view text)>;

/// InvalidArgument says which option is wrong and which there are. Without `value_of` only what
/// holds no `$` is checked, and options with one keep their default.
base::Result<RunMount> parse_run_mount(std::string_view text, const ValueOf& value_of);

}  // namespace builder
