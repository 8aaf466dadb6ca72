#pragma once
/// Letters of ASCII: names of headers, hosts and keywords compare without regard to their case.

#include <string>
#include <string_view>

namespace base {

constexpr char lower_case(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
inline std::string lower_case(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = lower_case(c);
  return result;
}

}  // namespace base
