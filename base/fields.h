#pragma once
/// `type=local,src=/x`: the short form many flags have.

#include <map>
#include <string>
#include <string_view>

namespace base {

/// By key; a piece without `=` has an empty value, and of a key that is written twice the last
/// counts.
std::map<std::string, std::string> comma_fields(std::string_view text);

}  // namespace base
