#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace runtime {

/// Of a console that long, what last_words() may need.
inline constexpr size_t console_end_bytes = 8u << 10;

/// What a machine's console said last, on one line of some hundred bytes: from where its kernel
/// begins to complain of itself, else the last lines. `console_end`: the console's last bytes.
std::string last_words(std::string_view console_end);

}  // namespace runtime
