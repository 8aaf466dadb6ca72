#pragma once
/// The few rtnetlink requests a network needs, each acknowledged by the kernel before it returns.
/// Works on the network namespace of the calling thread.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"
#include "dns/ipv4.h"

namespace network {

enum class RouteKind { Via, Prohibit };

class Netlink {
 public:
  static base::Result<Netlink> create();

  /// A bridge that forwards at once and keeps its MAC. Already there is success.
  base::Result<> add_bridge(const std::string& name, const std::string& mac);
  base::Result<> bring_up(const std::string& name);
  /// Whoever holds a TAP open keeps a descriptor of nothing. Not there is success.
  base::Result<> remove(const std::string& name);
  base::Result<> set_mtu(const std::string& name, uint32_t mtu);
  base::Result<> set_master(const std::string& name, const std::string& bridge);
  /// One IFLA_BRPORT_* flag; Unsupported where this kernel does not know it.
  base::Result<> set_bridge_port(const std::string& name, uint16_t attribute, bool on);
  base::Result<> add_address(const std::string& name, dns::Ipv4 address, uint8_t prefix);
  base::Result<> add_route(const dns::Ipv4Net& to, RouteKind kind, dns::Ipv4 gateway = {});
  /// The bridge knows this MAC at this port and nowhere else.
  base::Result<> add_static_fdb(const std::string& port, const std::string& mac);
  /// No ARP may change who has `address`.
  base::Result<> add_permanent_neighbour(const std::string& name, dns::Ipv4 address,
                                         const std::string& mac);

 private:
  explicit Netlink(base::UniqueFd socket) : socket_(std::move(socket)) {}
  base::Result<> send(std::string& message, std::string_view what);
  base::UniqueFd socket_;
  uint32_t sequence_ = 0;
};

/// Waits until an interface of this name exists. `watched` (or -1) is a pidfd: when that process
/// ends, waiting is pointless and ends as well.
base::Result<> await_link(const std::string& name, int watched, const base::Deadline& deadline);

}  // namespace network
