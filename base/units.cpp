#include "base/units.h"

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "base/lower_case.h"

namespace base {
namespace {

/// The number at the front of `text`, which then starts behind it.
std::optional<double> take_number(std::string_view& text) {
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

/// 2^(10*k) for the suffixes b, k/kb/kib, m…, g…, t…, p…; empty is bytes.
std::optional<double> byte_factor(std::string_view suffix) {
  if (suffix.empty() || suffix == "b") return 1;
  const size_t power = std::string_view("kmgtp").find(suffix.front());
  if (power == std::string_view::npos) return std::nullopt;
  const std::string_view rest = suffix.substr(1);
  if (!rest.empty() && rest != "b" && rest != "ib") return std::nullopt;
  return std::exp2(10.0 * static_cast<double>(power + 1));
}

struct DurationUnit {
  std::string_view name;
  int64_t nanoseconds;
};

// Longer names first where one begins with another ("ms" before "m").
constexpr std::array duration_units = {
    DurationUnit{"ns", 1},
    DurationUnit{"us", 1'000},
    DurationUnit{"µs", 1'000},
    DurationUnit{"ms", 1'000'000},
    DurationUnit{"s", 1'000'000'000},
    DurationUnit{"m", 60'000'000'000},
    DurationUnit{"h", 3'600'000'000'000},
    DurationUnit{"d", 86'400'000'000'000},
    DurationUnit{"w", 604'800'000'000'000},
};

const DurationUnit* take_unit(std::string_view& text) {
  for (const DurationUnit& unit : duration_units) {
    if (text.substr(0, unit.name.size()) != unit.name) continue;
    text.remove_prefix(unit.name.size());
    return &unit;
  }
  return nullptr;
}

}  // namespace

Result<uint64_t> parse_bytes(std::string_view text) {
  const std::string lowered = lower_case(text);
  std::string_view rest = lowered;
  const std::optional<double> number = take_number(rest);
  while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
  const std::optional<double> factor = byte_factor(rest);
  if (!number || *number < 0 || !factor)
    return fail(ErrorCode::InvalidArgument,
                "'{}' is not an amount of bytes; write for instance 512m or 1g", text);
  const double bytes = *number * *factor;
  if (bytes >= 9.0e18) return fail(ErrorCode::InvalidArgument, "'{}' is too many bytes", text);
  return static_cast<uint64_t>(bytes);
}

std::string format_bytes(uint64_t bytes) {
  constexpr std::string_view suffixes = "kmgtp";
  std::string suffix;
  for (size_t i = 0; i < suffixes.size() && bytes != 0 && bytes % 1024 == 0; ++i) {
    bytes /= 1024;
    suffix = suffixes[i];
  }
  return std::to_string(bytes) + suffix;
}

Result<int64_t> parse_duration_ns(std::string_view text) {
  if (text == "0") return 0;
  std::string_view rest = text;
  const bool negative = !rest.empty() && rest.front() == '-';
  if (!rest.empty() && (rest.front() == '-' || rest.front() == '+')) rest.remove_prefix(1);
  double total = 0;
  bool complete = !rest.empty();
  while (!rest.empty() && complete) {
    const std::optional<double> number = take_number(rest);
    const DurationUnit* unit = number ? take_unit(rest) : nullptr;
    complete = unit != nullptr;
    if (complete) total += *number * static_cast<double>(unit->nanoseconds);
  }
  if (!complete)
    return fail(ErrorCode::InvalidArgument,
                "'{}' is not a duration; write for instance 30s, 1m30s or 250ms", text);
  if (total >= 9.0e18) return fail(ErrorCode::InvalidArgument, "duration '{}' is too long", text);
  return static_cast<int64_t>(negative ? -total : total);
}

std::string format_duration_ns(int64_t nanoseconds) {
  if (nanoseconds == 0) return "0s";
  std::string text;
  if (nanoseconds < 0) text = "-";
  uint64_t rest =
      nanoseconds < 0 ? 0 - static_cast<uint64_t>(nanoseconds) : static_cast<uint64_t>(nanoseconds);
  constexpr std::array<std::pair<std::string_view, uint64_t>, 6> units = {{
      {"h", 3'600'000'000'000},
      {"m", 60'000'000'000},
      {"s", 1'000'000'000},
      {"ms", 1'000'000},
      {"us", 1'000},
      {"ns", 1},
  }};
  for (const auto& [name, size] : units) {
    if (rest < size) continue;
    text += std::to_string(rest / size);
    text += name;
    rest %= size;
  }
  return text;
}

}  // namespace base
