#include "network/inside.h"

#include <cerrno>
#include <cstring>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "network/firewall.h"
#include "network/names.h"
#include "network/netlink.h"

namespace network {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;

/// Locally administered; the same on every network, as networks never meet.
constexpr const char* bridge_mac = "02:c0:a8:40:00:01";
constexpr int dns_backlog = 64;
constexpr uint16_t dns_port = 53;

base::Result<> write_setting(const std::string& path, std::string_view value) {
  const base::UniqueFd file = TRY(base::open_file(path, O_WRONLY));
  return base::write_all(file.get(), value);
}

base::Result<base::UniqueFd> open_tun() {
  auto opened = base::open_file("/dev/net/tun", O_RDWR);
  if (opened) return opened;
  if (opened.error().code() == ErrorCode::Denied)
    return fail(ErrorCode::Denied,
                "/dev/net/tun may not be opened; as root allow it with `chmod 0666 /dev/net/tun` "
                "(it gives no power outside a user's own namespaces), or run the service as root");
  if (opened.error().code() == ErrorCode::NotFound)
    return fail(ErrorCode::Unsupported,
                "/dev/net/tun is missing; load the kernel's module with `modprobe tun`");
  return opened;
}

/// Unknown flags of old kernels leave a weaker but working port; nftables pins it all the same.
/// The bridge itself answers who has a pinned address: no guest can, and none is woken for it.
/// (Neighbour suppression would not: it leaves requests that come in by a suppressed port alone.)
base::Result<> harden_port(Netlink& netlink, const TapSetup& setup) {
  TRY(netlink.add_static_fdb(setup.name, setup.mac));
  for (const auto& [attribute, on] : {std::pair<uint16_t, bool>{IFLA_BRPORT_LEARNING, false},
                                      {IFLA_BRPORT_UNICAST_FLOOD, false},
                                      {IFLA_BRPORT_LOCKED, true},
                                      {IFLA_BRPORT_PROXYARP, true}}) {
    const auto set = netlink.set_bridge_port(setup.name, attribute, on);
    if (!set && set.error().code() != ErrorCode::Unsupported) return set;
  }
  return netlink.add_permanent_neighbour(bridge_name, setup.address, setup.mac);
}

base::Result<base::UniqueFd> open_bound(int type, dns::Ipv4 address, uint16_t port) {
  base::UniqueFd socket(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail_errno(errno, "socket");
  const int on = 1;
  // A restarted process takes the address over while old TCP connections still fade away.
  if (type == SOCK_STREAM) ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(port);
  name.sin_addr.s_addr = htonl(address.value);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0)
    return fail_errno(errno, fmt::format("bind {}:{}", dns::format_ipv4(address), port));
  return socket;
}

}  // namespace

base::Result<std::string> set_up_bridge(const BridgeSetup& setup) {
  Netlink netlink = TRY(Netlink::create());
  TRY(netlink.bring_up("lo"));
  TRY(netlink.add_bridge(bridge_name, bridge_mac));
  TRY(netlink.set_mtu(bridge_name, guest_mtu));
  TRY(netlink.add_address(bridge_name, setup.gateway, setup.subnet.prefix));
  TRY(netlink.bring_up(bridge_name));
  // IPv6 is not offered to guests; without it the bridge has no address that nobody filters.
  const auto no_ipv6 =
      write_setting(fmt::format("/proc/sys/net/ipv6/conf/{}/disable_ipv6", bridge_name), "1");
  // Where Docker or Kubernetes loaded br_netfilter, frames between guests would pass the rules made
  // for routed packets. The switch is this namespace's own; without the module there is none.
  static_cast<void>(write_setting("/proc/sys/net/bridge/bridge-nf-call-iptables", "0"));
  std::string notes;
  if (!no_ipv6) notes += no_ipv6.error().to_string() + "\n";
  if (const auto filtered = install_firewall(); !filtered)
    notes +=
        "no packet filter, guests are pinned by the bridge alone: " + filtered.error().to_string() +
        "\n";
  return notes;
}

base::Result<base::UniqueFd> make_tap(const TapSetup& setup) {
  base::UniqueFd tap = TRY(open_tun());
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  std::strncpy(request.ifr_name, setup.name.c_str(), IFNAMSIZ - 1);
  if (::ioctl(tap.get(), TUNSETIFF, &request) != 0) return fail_errno(errno, "make a TAP");
  // QEMU asks for what its guest can take; until then nothing is offloaded that a reader of plain
  // frames could not understand.
  const int header_bytes = 12;
  if (::ioctl(tap.get(), TUNSETVNETHDRSZ, &header_bytes) != 0 ||
      ::ioctl(tap.get(), TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) != 0)
    return fail_errno(errno, "switch the TAP's offloads on");
  Netlink netlink = TRY(Netlink::create());
  TRY(netlink.set_mtu(setup.name, guest_mtu));
  TRY(netlink.set_master(setup.name, bridge_name));
  TRY(harden_port(netlink, setup));
  TRY(pin_guest(setup));
  TRY(netlink.bring_up(setup.name));
  return tap;
}

base::Result<> remove_tap(const TapSetup& setup) {
  // Each for itself: pins that stayed would meet the next guest with this address.
  const auto removed = TRY(Netlink::create()).remove(setup.name);
  TRY(unpin_guest(setup));
  return removed;
}

base::Result<std::vector<base::UniqueFd>> open_dns_sockets(dns::Ipv4 gateway) {
  std::vector<base::UniqueFd> sockets;
  sockets.push_back(TRY(open_bound(SOCK_DGRAM, gateway, dns_port)));
  sockets.push_back(TRY(open_bound(SOCK_STREAM, gateway, dns_port)));
  if (::listen(sockets.back().get(), dns_backlog) != 0) return fail_errno(errno, "listen");
  return sockets;
}

base::Result<std::vector<base::UniqueFd>> open_sockets(int type, size_t count) {
  std::vector<base::UniqueFd> sockets;
  for (size_t i = 0; i < count; ++i) {
    base::UniqueFd socket(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) return fail_errno(errno, "socket");
    sockets.push_back(std::move(socket));
  }
  return sockets;
}

base::Result<base::UniqueFd> make_uplink_tap() {
  base::UniqueFd tap = TRY(open_tun());
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  std::strncpy(request.ifr_name, uplink_name, IFNAMSIZ - 1);
  if (::ioctl(tap.get(), TUNSETIFF, &request) != 0) return fail_errno(errno, "make a TAP");
  return tap;
}

base::Result<> route_through_uplink(int watched, const base::Deadline& deadline) {
  TRY(await_link(uplink_name, watched, deadline));
  Netlink netlink = TRY(Netlink::create());
  TRY(netlink.add_address(uplink_name, uplink_address, uplink_prefix));
  TRY(netlink.set_mtu(uplink_name, uplink_mtu));
  TRY(netlink.bring_up(uplink_name));
  TRY(netlink.add_route({}, RouteKind::Via, uplink_gateway));
  constexpr dns::Ipv4Net link_local{{0xA9FE0000}, 16};  // 169.254.0.0/16: cloud metadata
  TRY(netlink.add_route(link_local, RouteKind::Prohibit));
  return write_setting("/proc/sys/net/ipv4/ip_forward", "1");
}

}  // namespace network
