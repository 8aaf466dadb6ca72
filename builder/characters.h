#pragma once
/// Characters as the Dockerfile's reference parser sees them: UTF-8, white space of Unicode.

#include <cstddef>
#include <string>
#include <string_view>

namespace builder {

/// Bytes of the character at `at`; 1 for what is no UTF-8.
size_t character_bytes(std::string_view text, size_t at);
/// Bytes of the white space character at `at`, or 0 if it is none.
size_t space_bytes(std::string_view text, size_t at);

std::string_view trim_left(std::string_view text);
std::string_view trim(std::string_view text);
/// ASCII only.
std::string to_lower(std::string_view text);
std::string to_upper(std::string_view text);
bool equal_fold(std::string_view a, std::string_view b);

}  // namespace builder
