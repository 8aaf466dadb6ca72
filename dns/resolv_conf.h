#pragma once
/// The name servers of a resolv.conf: what the host itself would ask.

#include <string>
#include <string_view>
#include <vector>

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/result.h"

namespace dns {

inline constexpr size_t upstreams_max = 8;
inline constexpr uint64_t resolv_conf_bytes_max = 64 * 1024;

/// IPv4 or IPv6 address with a port, ready for the socket calls.
struct Upstream {
  sockaddr_storage address{};
  bool operator==(const Upstream& other) const;
  int family() const { return address.ss_family; }
  const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&address); }
  socklen_t length() const {
    return family() == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  }
};

/// `10.0.0.1`, `fd00::1` or `fe80::1%eth0`.
base::Result<Upstream> parse_upstream(std::string_view text, uint16_t port);
std::string format_upstream(const Upstream& upstream);

/// The `nameserver` lines in their order, at most `upstreams_max`; odd lines are skipped.
std::vector<Upstream> parse_resolv_conf(std::string_view text);

}  // namespace dns
