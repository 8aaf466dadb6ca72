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

/// Takes parts one by one; fails for ever once one is missing or no number.
class Reader {
 public:
  explicit Reader(const std::vector<std::string>& parts) : parts_(parts) {}
  uint64_t number(uint64_t maximum) {
    uint64_t number = 0;
    if (at_ >= parts_.size()) return fail();
    const std::string& text = parts_[at_++];
    const char* end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, number);
    return error == std::errc() && stopped == end && number <= maximum ? number : fail();
  }
  bool failed() const { return failed_; }
  std::vector<std::string> rest() const {
    return {parts_.begin() + static_cast<std::ptrdiff_t>(at_), parts_.end()};
  }

 private:
  uint64_t fail() {
    failed_ = true;
    at_ = parts_.size();
    return 0;
  }
  const std::vector<std::string>& parts_;
  size_t at_ = 0;
  bool failed_ = false;
};

}  // namespace

std::string encode_seed_order(const SeedOrder& order) {
  std::string text;
  const auto add = [&](const std::string& part) { text.append(part).push_back('\0'); };
  add(std::to_string(order.numbers.size()));
  for (const int number : order.numbers) add(std::to_string(number));
  add(std::to_string(order.parts.size()));
  for (const SeedPart& part : order.parts) {
    add(std::to_string(part.number));
    add(std::to_string(part.first_sector));
    add(std::to_string(part.sectors));
  }
  for (const std::string& word : order.words) add(word);
  return text;
}

SeedOrder decode_seed_order(const std::string& text) {
  const std::vector<std::string> parts = split_at_zeros(text);
  Reader reader(parts);
  SeedOrder order;
  const auto descriptor = [&] { return static_cast<int>(reader.number(INT32_MAX)); };
  const uint64_t numbers = reader.number(seed_descriptors_max);
  for (uint64_t i = 0; i < numbers; ++i) order.numbers.push_back(descriptor());
  const uint64_t joined = reader.number(seed_descriptors_max);
  for (uint64_t i = 0; i < joined; ++i) {
    SeedPart part;
    part.number = descriptor();
    part.first_sector = reader.number(UINT64_MAX / seed_sector_bytes);
    part.sectors = reader.number(UINT64_MAX / seed_sector_bytes - part.first_sector);
    order.parts.push_back(part);
  }
  if (reader.failed()) return {};
  order.words = reader.rest();
  return order;
}

}  // namespace runtime
