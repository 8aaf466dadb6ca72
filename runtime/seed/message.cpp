#include "runtime/seed/message.h"

#include <charconv>

namespace runtime {
namespace {

std::vector<std::string> split_at_zeros(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\0', at);
    if (end == std::string::npos) return {};
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

bool read_number(const std::string& text, int& number) {
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stopped == end && number >= 0;
}

}  // namespace

std::string encode_seed_order(const SeedOrder& order) {
  std::string text = std::to_string(order.numbers.size());
  text.push_back('\0');
  for (const int number : order.numbers) text.append(std::to_string(number)).push_back('\0');
  for (const std::string& word : order.words) text.append(word).push_back('\0');
  return text;
}

SeedOrder decode_seed_order(const std::string& text) {
  const std::vector<std::string> parts = split_at_zeros(text);
  int count = 0;
  if (parts.empty() || !read_number(parts.front(), count) ||
      static_cast<size_t>(count) >= parts.size())
    return {};
  SeedOrder order;
  for (size_t i = 1; i <= static_cast<size_t>(count); ++i) {
    int number = 0;
    if (!read_number(parts[i], number)) return {};
    order.numbers.push_back(number);
  }
  order.words.assign(parts.begin() + 1 + count, parts.end());
  return order;
}

}  // namespace runtime
