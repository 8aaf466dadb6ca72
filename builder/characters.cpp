#include "builder/characters.h"

#include <algorithm>
#include <array>

#include "base/lower_case.h"

namespace builder {
namespace {

char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

/// White space beyond ASCII, as UTF-8.
constexpr std::array<std::string_view, 19> wide_spaces = {
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
    "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
    "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
    "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};

}  // namespace

size_t character_bytes(std::string_view text, size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  const size_t length = first < 0xC2   ? 1
                        : first < 0xE0 ? 2
                        : first < 0xF0 ? 3
                        : first < 0xF5 ? 4
                                       : 1;
  if (length > text.size() - at) return 1;
  for (size_t i = 1; i < length; ++i)
    if ((static_cast<unsigned char>(text[at + i]) & 0xC0) != 0x80) return 1;
  return length;
}

size_t space_bytes(std::string_view text, size_t at) {
  if (at >= text.size()) return 0;
  const char c = text[at];
  if (c == ' ' || (c >= '\t' && c <= '\r')) return 1;
  if (static_cast<unsigned char>(c) < 0x80) return 0;
  for (const std::string_view space : wide_spaces)
    if (text.substr(at).starts_with(space)) return space.size();
  return 0;
}

std::string_view trim_left(std::string_view text) {
  while (const size_t count = space_bytes(text, 0)) text.remove_prefix(count);
  return text;
}

std::string_view trim(std::string_view text) {
  text = trim_left(text);
  size_t end = 0;  // behind the last character that is no white space
  for (size_t at = 0; at < text.size();) {
    const size_t space = space_bytes(text, at);
    at += space != 0 ? space : character_bytes(text, at);
    if (space == 0) end = at;
  }
  return text.substr(0, end);
}

std::string to_lower(std::string_view text) { return base::lower_case(text); }

std::string to_upper(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), upper);
  return result;
}

bool equal_fold(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return base::lower_case(x) == base::lower_case(y); });
}

}  // namespace builder
