#pragma once
/// The fixed names inside a network's namespace, and where its files are.

#include <cstdint>
#include <string>
#include <string_view>

#include "dns/ipv4.h"

namespace network {

inline constexpr const char* bridge_name = "br0";
inline constexpr const char* uplink_name = "out0";
inline constexpr uint32_t guest_mtu = 1500;

/// The link between the namespace and the way out (RFC 2544 addresses: never routed anywhere).
inline constexpr dns::Ipv4 uplink_address{0xC6120002};  // 198.18.0.2
inline constexpr dns::Ipv4 uplink_gateway{0xC6120001};  // 198.18.0.1
inline constexpr uint8_t uplink_prefix = 24;
inline constexpr uint32_t uplink_mtu = 65520;
/// The user libslirp runs as where root may choose; nobody else is this user.
inline constexpr uint32_t uplink_uid = 1'879'113'728;

/// Sixteen hex digits: a folder name for any network name, however long.
std::string folder_name(std::string_view network);

struct Folders {
  std::string run;    ///< Sockets and locks; gone after a reboot.
  std::string state;  ///< Subnet and leases; durable.
  std::string control() const { return run + "/control"; }
  std::string lock() const { return run + "/lock"; }
  std::string state_file() const { return state + "/state.json"; }
};

}  // namespace network
