#include "network/slirp/frame.h"

#include <algorithm>
#include <cstdint>

#include "dns/ipv4.h"
#include "network/names.h"

namespace network::slirp {
namespace {

constexpr size_t ethernet_bytes = 14;
constexpr size_t ipv4_bytes_min = 20;
constexpr unsigned ethertype_ipv4 = 0x0800;
constexpr unsigned ethertype_arp = 0x0806;

constexpr dns::Ipv4Net unreachable[] = {
    {{0x00000000}, 8},                                  // this host
    {{0x7F000000}, 8},                                  // loopback
    {{0xA9FE0000}, 16},                                 // link-local: cloud metadata
    {{0xE0000000}, 3},                                  // multicast, reserved, broadcast
    {{uplink_gateway.value & ~0xFFU}, uplink_prefix}};  // the link itself
static_assert(uplink_prefix == 24);

uint32_t big_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

}  // namespace

bool may_leave(std::string_view frame) {
  if (frame.size() < ethernet_bytes) return false;
  const uint32_t type = big_endian(frame.substr(12, 2));
  if (type == ethertype_arp) return true;
  if (type != ethertype_ipv4 || frame.size() < ethernet_bytes + ipv4_bytes_min) return false;
  const std::string_view packet = frame.substr(ethernet_bytes);
  if (static_cast<uint8_t>(packet[0]) >> 4 != 4) return false;
  const dns::Ipv4 destination{big_endian(packet.substr(16, 4))};
  return std::none_of(std::begin(unreachable), std::end(unreachable),
                      [&](const dns::Ipv4Net& net) { return net.contains(destination); });
}

}  // namespace network::slirp
