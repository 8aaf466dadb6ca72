#include "base/base64.h"

#include <cstdint>

namespace base {
namespace {

constexpr std::string_view digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string encode_base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const std::string_view group = bytes.substr(at, 3);
    uint32_t bits = 0;
    for (size_t i = 0; i < 3; ++i)
      bits = bits << 8 | (i < group.size() ? static_cast<uint8_t>(group[i]) : 0u);
    for (size_t i = 0; i < 4; ++i)
      text.push_back(i <= group.size() ? digits[bits >> (18 - 6 * i) & 63] : '=');
  }
  return text;
}

Result<std::string> decode_base64(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  size_t count = 0;
  size_t padding = 0;
  for (const char c : text) {
    const size_t value = digits.find(c);
    if (c == '=' && count % 4 >= 2 - padding && padding < 2)
      ++padding;
    else if (value == std::string_view::npos || padding > 0)
      return fail(ErrorCode::InvalidArgument, "this is no base64");
    bits = bits << 6 | (c == '=' ? 0u : static_cast<uint32_t>(value));
    if (++count % 4 != 0) continue;
    for (size_t i = 0; i < 3 - padding; ++i)
      bytes.push_back(static_cast<char>(bits >> (16 - 8 * i) & 255));
    bits = 0;
  }
  if (count % 4 != 0 || encode_base64(bytes) != text)
    return fail(ErrorCode::InvalidArgument, "this is no base64");
  return bytes;
}

}  // namespace base
