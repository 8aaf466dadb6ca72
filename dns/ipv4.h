#pragma once
/// IPv4 addresses and networks as values: parsed strictly, compared, counted.

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace dns {

/// An address in host byte order, so that arithmetic means what it says.
struct Ipv4 {
  uint32_t value = 0;
  auto operator<=>(const Ipv4&) const = default;
};

/// A network: `first` has no host bits set.
struct Ipv4Net {
  Ipv4 first;
  uint8_t prefix = 0;
  uint32_t mask() const { return prefix == 0 ? 0 : ~uint32_t{0} << (32 - prefix); }
  bool contains(Ipv4 address) const { return (address.value & mask()) == first.value; }
  Ipv4 last() const { return {first.value | ~mask()}; }
  bool overlaps(const Ipv4Net& other) const {
    return contains(other.first) || other.contains(first);
  }
  auto operator<=>(const Ipv4Net&) const = default;
};

/// Four decimal numbers, no leading zeros, nothing around them.
base::Result<Ipv4> parse_ipv4(std::string_view text);
std::string format_ipv4(Ipv4 address);

/// `192.168.64.0/24`. Host bits are cleared: `192.168.64.1/24` names the same network.
base::Result<Ipv4Net> parse_ipv4_net(std::string_view text);
std::string format_ipv4_net(const Ipv4Net& net);

}  // namespace dns
