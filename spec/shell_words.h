#pragma once
/// A command written as one text, split into words as a POSIX shell would, but never run by one.

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spec {

/// Quotes and backslashes work, nothing else does. An unquoted `; & | < >` or a backtick is an
/// error that says how to ask for a shell: others cut the command off there in silence.
base::Result<std::vector<std::string>> split_words(std::string_view text);

}  // namespace spec
