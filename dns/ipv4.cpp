#include "dns/ipv4.h"

#include <charconv>
#include <optional>

namespace dns {
namespace {

std::optional<uint32_t> parse_decimal(std::string_view text, uint32_t most) {
  if (text.empty() || text.size() > 3 || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  uint32_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc() || end != text.data() + text.size() || value > most)
    return std::nullopt;
  return value;
}

}  // namespace

base::Result<Ipv4> parse_ipv4(std::string_view text) {
  uint32_t value = 0;
  std::string_view rest = text;
  for (int part = 0; part < 4; ++part) {
    const size_t dot = part < 3 ? rest.find('.') : rest.size();
    const auto number =
        dot == std::string_view::npos ? std::nullopt : parse_decimal(rest.substr(0, dot), 255);
    if (!number)
      return base::fail(base::ErrorCode::InvalidArgument,
                        "'{}' is not an IPv4 address such as 192.168.64.2", text);
    value = value << 8 | *number;
    rest.remove_prefix(part < 3 ? dot + 1 : dot);
  }
  return Ipv4{value};
}

std::string format_ipv4(Ipv4 address) {
  return fmt::format("{}.{}.{}.{}", address.value >> 24, address.value >> 16 & 255,
                     address.value >> 8 & 255, address.value & 255);
}

base::Result<Ipv4Net> parse_ipv4_net(std::string_view text) {
  const size_t slash = text.find('/');
  const auto prefix =
      slash == std::string_view::npos ? std::nullopt : parse_decimal(text.substr(slash + 1), 32);
  if (!prefix)
    return base::fail(base::ErrorCode::InvalidArgument,
                      "'{}' is not an IPv4 network such as 192.168.64.0/24", text);
  Ipv4Net net{TRY(parse_ipv4(text.substr(0, slash))), static_cast<uint8_t>(*prefix)};
  net.first.value &= net.mask();
  return net;
}

std::string format_ipv4_net(const Ipv4Net& net) {
  return fmt::format("{}/{}", format_ipv4(net.first), net.prefix);
}

}  // namespace dns
