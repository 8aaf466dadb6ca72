#include <algorithm>
#include <charconv>
#include <cmath>

#include <arpa/inet.h>
#include <fmt/format.h>

#include "base/lower_case.h"
#include "base/text.h"
#include "base/units.h"
#include "spec/readers.h"

namespace spec {

void Reading::error(const Node& node, std::string summary, std::string detail,
                    std::string suggestion) const {
  context.reporter.error(node.place, address, std::move(summary), std::move(detail),
                         std::move(suggestion));
}

namespace readers {
namespace {

std::optional<int64_t> parse_integer(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  int radix = 10;
  if (text.starts_with("0x")) radix = 16;
  if (text.starts_with("0o")) radix = 8;
  if (radix != 10) text.remove_prefix(2);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, radix);
  if (error != std::errc() || end != text.data() + text.size() || text.starts_with('-'))
    return std::nullopt;
  return negative ? -value : value;
}

struct BooleanWord {
  std::string_view word;
  bool value;
  bool old;  ///< YAML 1.1 only.
};
constexpr BooleanWord boolean_words[] = {
    {"true", true, false}, {"false", false, false}, {"yes", true, true}, {"no", false, true},
    {"y", true, true},     {"n", false, true},      {"on", true, true},  {"off", false, true}};

std::optional<std::pair<std::string, int>> split_subnet(const std::string& subnet) {
  const size_t slash = subnet.find('/');
  if (slash == std::string::npos) return std::nullopt;
  const auto bits = parse_integer(std::string_view(subnet).substr(slash + 1));
  const std::string address = subnet.substr(0, slash);
  if (!bits || *bits < 0 || *bits > 32 || !is_ipv4(address)) return std::nullopt;
  return std::pair(address, static_cast<int>(*bits));
}

uint32_t ipv4_number(const std::string& address) {
  in_addr parsed{};
  ::inet_pton(AF_INET, address.c_str(), &parsed);
  return ntohl(parsed.s_addr);
}

uint32_t network_mask(int bits) { return bits == 0 ? 0 : ~uint32_t{0} << (32 - bits); }

}  // namespace

std::optional<std::string> text(Reading& reading, const Node& node) {
  if (!node.is_scalar()) return std::nullopt;
  if (!node.text.empty()) return node.text;
  reading.error(node, "must not be empty", "give a value or remove the line");
  return std::nullopt;
}

std::optional<int64_t> integer(Reading& reading, const Node& node, int64_t min, int64_t max) {
  if (!node.is_scalar()) return std::nullopt;
  const auto value = parse_integer(node.text);
  if (value && *value >= min && *value <= max) return value;
  reading.error(node, fmt::format("must be a whole number from {} to {}", min, max),
                fmt::format("'{}' is not", node.text));
  return std::nullopt;
}

std::optional<bool> boolean(Reading& reading, const Node& node) {
  if (!node.is_scalar()) return std::nullopt;
  const std::string lowered = base::lower_case(node.text);
  for (const auto& [word, value, old] : boolean_words) {
    if (lowered != word) continue;
    if (old)
      reading.context.reporter.warning(
          node.place, reading.address, "not a boolean of YAML 1.2",
          fmt::format("'{}' is read as {}; write that", node.text, value));
    return value;
  }
  reading.error(node, "must be true or false", fmt::format("'{}' is neither", node.text));
  return std::nullopt;
}

std::optional<uint64_t> bytes(Reading& reading, const Node& node) {
  if (!node.is_scalar()) return std::nullopt;
  auto value = base::parse_bytes(node.text);
  if (value) return *value;
  reading.error(node, "not an amount of bytes", value.error().to_string());
  return std::nullopt;
}

std::optional<int64_t> duration(Reading& reading, const Node& node) {
  if (!node.is_scalar()) return std::nullopt;
  auto value = base::parse_duration_ns(node.text);
  if (value && *value >= 0) return *value;
  reading.error(node, "not a duration",
                value ? "a duration is not negative" : value.error().to_string());
  return std::nullopt;
}

std::optional<uint32_t> file_mode(Reading& reading, const Node& node) {
  const bool is_decimal =
      node.type == ScalarType::Integer && !node.interpolated && !node.text.starts_with('0');
  if (is_decimal) {
    reading.error(node, "a mode must be written in octal",
                  fmt::format("write \"{}\" or 0o{}", node.text, node.text));
    return std::nullopt;
  }
  std::string_view digits = node.text;
  if (digits.starts_with("0o")) digits.remove_prefix(2);
  uint32_t mode = 0;
  bool is_octal = !digits.empty() && digits.size() <= 5;
  for (const char c : digits) {
    is_octal = is_octal && c >= '0' && c <= '7';
    mode = mode * 8 + static_cast<uint32_t>(c - '0');
  }
  if (is_octal && mode <= 07777) return mode;
  reading.error(node, "not a file mode", "write octal digits in quotes, such as \"1777\"");
  return std::nullopt;
}

std::vector<std::string> texts(Reading& reading, const Node& node) {
  std::vector<std::string> result;
  if (node.is_scalar()) result.push_back(node.text);
  for (size_t i = 0; i < node.children.size(); ++i) {
    Reading inner = at_index(reading, i);
    if (auto value = text(inner, node.children[i])) result.push_back(std::move(*value));
  }
  return result;
}

std::vector<Pair> pairs(Reading& reading, const Node& node) {
  std::vector<Pair> result;
  for (const Node& child : node.children) {
    Pair pair{.key = child.key, .value = std::nullopt, .node = &child};
    if (node.is_list()) {
      const size_t equals = child.text.find('=');
      pair.key = child.text.substr(0, equals);
      if (equals != std::string::npos) pair.value = child.text.substr(equals + 1);
    } else if (child.is_scalar()) {
      pair.value = child.text;
    }
    if (pair.key.empty())
      reading.error(child, "a name is missing", "write NAME=value");
    else
      result.push_back(std::move(pair));
  }
  return result;
}

Reading inside(const Reading& reading, std::string_view key) {
  Reading inner = reading;
  inner.address = join_address(reading.address, key);
  return inner;
}

Reading at_index(const Reading& reading, size_t index) {
  Reading inner = reading;
  inner.address = item_address(reading.address, index);
  return inner;
}

std::string absolute_path(const ReadContext& context, const std::string& path) {
  std::string full = path;
  if (path == "~" || path.starts_with("~/"))
    full = context.home_directory + path.substr(1);
  else if (!path.starts_with('/'))
    full = context.project_directory + "/" + path;
  // By words only: whether a folder is a link is for whoever opens it to find out.
  std::vector<std::string> pieces;
  for (std::string& piece : base::split(full, '/')) {
    if (piece.empty() || piece == ".") continue;
    if (piece != "..")
      pieces.push_back(std::move(piece));
    else if (!pieces.empty())
      pieces.pop_back();
  }
  return "/" + base::join(pieces, "/");
}

bool is_ipv4(const std::string& address) {
  in_addr parsed{};
  return ::inet_pton(AF_INET, address.c_str(), &parsed) == 1;
}

bool is_ip(const std::string& address) {
  in6_addr parsed{};
  return is_ipv4(address) || ::inet_pton(AF_INET6, address.c_str(), &parsed) == 1;
}

bool is_ipv4_subnet(const std::string& subnet) {
  const auto parts = split_subnet(subnet);
  return parts && (ipv4_number(parts->first) & ~network_mask(parts->second)) == 0;
}

bool subnet_contains(const std::string& subnet, const std::string& address) {
  const auto parts = split_subnet(subnet);
  if (!parts || !is_ipv4(address)) return false;
  return ((ipv4_number(parts->first) ^ ipv4_number(address)) & network_mask(parts->second)) == 0;
}

}  // namespace readers
}  // namespace spec
