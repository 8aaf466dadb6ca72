#include "guest/agent/network.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <linux/ipv6.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>

#include "base/fd.h"
#include "base/file.h"
#include "base/text.h"
#include "guest/agent/limits.h"

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

constexpr const char* interfaces_folder = "/sys/class/net";

struct Subnet {
  std::string address;
  unsigned prefix = 0;
  bool is_v6() const { return address.find(':') != std::string::npos; }
};

Result<Subnet> parse_subnet(const std::string& text) {
  Subnet subnet;
  const size_t slash = text.find('/');
  subnet.address = text.substr(0, slash);
  subnet.prefix = subnet.is_v6() ? 128 : 32;
  if (slash == std::string::npos) return subnet;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + slash + 1, end, subnet.prefix);
  if (error != std::errc{} || stop != end || subnet.prefix > (subnet.is_v6() ? 128u : 32u))
    return fail(ErrorCode::InvalidArgument, "'{}' is no address", text);
  return subnet;
}

Result<ifreq> request_for(const std::string& name) {
  ifreq request{};
  if (name.empty() || name.size() >= IFNAMSIZ)
    return fail(ErrorCode::InvalidArgument, "'{}' is no name of an interface", name);
  std::memcpy(request.ifr_name, name.data(), name.size());
  return request;
}

Result<sockaddr> address_v4(const std::string& text) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  if (::inet_pton(AF_INET, text.c_str(), &address.sin_addr) != 1)
    return fail(ErrorCode::InvalidArgument, "'{}' is no IPv4 address", text);
  sockaddr result{};
  std::memcpy(&result, &address, sizeof address);
  return result;
}

sockaddr netmask_v4(unsigned prefix) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = prefix == 0 ? 0 : htonl(~uint32_t{0} << (32 - prefix));
  sockaddr result{};
  std::memcpy(&result, &address, sizeof address);
  return result;
}

Result<> call(int socket, unsigned long what, void* argument, std::string_view purpose) {
  if (::ioctl(socket, what, argument) != 0) return fail_errno(errno, purpose);
  return {};
}

Result<> set_flags(int socket, const std::string& name, short on, short off) {
  ifreq request = TRY(request_for(name));
  TRY(call(socket, SIOCGIFFLAGS, &request, name));
  request.ifr_flags = static_cast<short>((request.ifr_flags | on) & ~off);
  return call(socket, SIOCSIFFLAGS, &request, fmt::format("bring '{}' up or down", name));
}

Result<> set_mac(int socket, const std::string& name, const std::string& mac) {
  ifreq request = TRY(request_for(name));
  std::array<unsigned, 6> bytes{};
  if (std::sscanf(mac.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x", &bytes[0], &bytes[1], &bytes[2],
                  &bytes[3], &bytes[4], &bytes[5]) != 6)
    return fail(ErrorCode::InvalidArgument, "'{}' is no MAC address", mac);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  for (size_t i = 0; i < bytes.size(); ++i)
    request.ifr_hwaddr.sa_data[i] = static_cast<char>(bytes[i]);
  return call(socket, SIOCSIFHWADDR, &request, fmt::format("give '{}' the MAC {}", name, mac));
}

Result<> set_mtu(int socket, const std::string& name, uint32_t mtu) {
  ifreq request = TRY(request_for(name));
  request.ifr_mtu = static_cast<int>(mtu);
  return call(socket, SIOCSIFMTU, &request, fmt::format("give '{}' the MTU {}", name, mtu));
}

Result<> rename_interface(int socket, const std::string& from, const std::string& to) {
  if (from == to) return {};
  ifreq request = TRY(request_for(from));
  const ifreq target = TRY(request_for(to));
  std::memcpy(request.ifr_newname, target.ifr_name, IFNAMSIZ);
  return call(socket, SIOCSIFNAME, &request, fmt::format("rename '{}' to '{}'", from, to));
}

Result<> add_v4(int socket, const std::string& label, const Subnet& subnet) {
  ifreq request = TRY(request_for(label));
  request.ifr_addr = TRY(address_v4(subnet.address));
  TRY(call(socket, SIOCSIFADDR, &request, fmt::format("add {}", subnet.address)));
  request.ifr_netmask = netmask_v4(subnet.prefix);
  return call(socket, SIOCSIFNETMASK, &request, fmt::format("add {}", subnet.address));
}

Result<> add_v6(const std::string& name, const Subnet& subnet) {
  const UniqueFd socket(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "IPv6");
  in6_ifreq request{};
  if (::inet_pton(AF_INET6, subnet.address.c_str(), &request.ifr6_addr) != 1)
    return fail(ErrorCode::InvalidArgument, "'{}' is no IPv6 address", subnet.address);
  request.ifr6_prefixlen = subnet.prefix;
  request.ifr6_ifindex = static_cast<int>(::if_nametoindex(name.c_str()));
  return call(socket.get(), SIOCSIFADDR, &request, fmt::format("add {}", subnet.address));
}

Result<> add_route_v6(const guest::Interface& interface) {
  const UniqueFd socket(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "IPv6");
  in6_rtmsg route{};
  if (::inet_pton(AF_INET6, interface.gateway.c_str(), &route.rtmsg_gateway) != 1)
    return fail(ErrorCode::InvalidArgument, "'{}' is no IPv6 address", interface.gateway);
  route.rtmsg_metric = 1;
  route.rtmsg_flags = RTF_UP | RTF_GATEWAY;
  route.rtmsg_ifindex = static_cast<int>(::if_nametoindex(interface.name.c_str()));
  return call(socket.get(), SIOCADDRT, &route, fmt::format("route over {}", interface.gateway));
}

Result<> add_default_route(int socket, const guest::Interface& interface) {
  if (interface.gateway.empty()) return {};
  if (interface.gateway.find(':') != std::string::npos) return add_route_v6(interface);
  rtentry route{};
  route.rt_gateway = TRY(address_v4(interface.gateway));
  route.rt_dst = netmask_v4(0);
  route.rt_genmask = netmask_v4(0);
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  std::string name = interface.name;
  route.rt_dev = name.data();
  return call(socket, SIOCADDRT, &route, fmt::format("route over {}", interface.gateway));
}

Result<std::vector<std::string>> interface_names() {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(interfaces_folder), ::closedir);
  if (!folder) return fail_errno(errno, interfaces_folder);
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(folder.get()))
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  return names;
}

/// NICs come with MACs that tell their place, whatever order the kernel found them in.
Result<std::string> find_nic(size_t index) {
  const std::string mac = guest::unconfigured_mac(index);
  for (const std::string& name : TRY(interface_names())) {
    const auto found = base::read_file(fmt::format("{}/{}/address", interfaces_folder, name), 64);
    if (found && found->starts_with(mac)) return name;
  }
  return fail(ErrorCode::NotFound, "the VM has no NIC number {}", index);
}

Result<> configure_interface(int socket, const guest::Interface& interface,
                             const std::string& found) {
  TRY(set_mac(socket, found, interface.mac));
  TRY(set_mtu(socket, found, interface.mtu));
  TRY(rename_interface(socket, found, interface.name));
  TRY(set_flags(socket, interface.name, IFF_UP, 0));
  int further = 0;
  for (const std::string& text : interface.addresses) {
    const Subnet subnet = TRY(parse_subnet(text));
    if (subnet.is_v6()) {
      TRY(add_v6(interface.name, subnet));
      continue;
    }
    TRY(add_v4(socket,
               further == 0 ? interface.name : fmt::format("{}:{}", interface.name, further),
               subnet));
    ++further;
  }
  return add_default_route(socket, interface);
}

uint64_t counter(const std::string& name, const char* which) {
  const auto text =
      base::read_file(fmt::format("{}/{}/statistics/{}", interfaces_folder, name, which), 64);
  uint64_t value = 0;
  if (text) std::from_chars(text->data(), text->data() + text->size(), value);
  return value;
}

}  // namespace

/// All are found first: a name wanted by one may be what another is still called.
Result<> bring_up_loopback() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "socket");
  return set_flags(socket.get(), "lo", IFF_UP, 0);
}

Result<> configure_interfaces(const std::vector<guest::Interface>& interfaces) {
  if (interfaces.empty()) return {};
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "socket");
  std::vector<std::string> found;
  bool as_wanted = true;
  for (size_t i = 0; i < interfaces.size(); ++i) {
    found.push_back(TRY(find_nic(i)));
    as_wanted = as_wanted && found.back() == interfaces[i].name;
  }
  // Out of each other's way first: one may bear a name that another is to have.
  for (size_t i = 0; !as_wanted && i < interfaces.size(); ++i) {
    const std::string free_name = fmt::format("nic{}", i);
    TRY(rename_interface(socket.get(), found[i], free_name));
    found[i] = free_name;
  }
  for (size_t i = 0; i < interfaces.size(); ++i)
    TRY_DURING(configure_interface(socket.get(), interfaces[i], found[i]), "interface '{}'",
               interfaces[i].name);
  return {};
}

Result<> forget_interfaces(const std::vector<guest::Interface>& interfaces) {
  if (interfaces.empty()) return {};
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "socket");
  for (size_t i = 0; i < interfaces.size(); ++i) {
    const std::string& name = interfaces[i].name;
    ifreq request = TRY(request_for(name));
    request.ifr_addr = TRY(address_v4("0.0.0.0"));
    TRY(call(socket.get(), SIOCSIFADDR, &request, fmt::format("take the address of '{}'", name)));
    TRY(set_flags(socket.get(), name, 0, IFF_UP));
    TRY(set_mac(socket.get(), name, guest::unconfigured_mac(i)));
  }
  return {};
}

Result<std::vector<guest::NetworkStatistics>> interface_statistics() {
  std::vector<guest::NetworkStatistics> result;
  for (const std::string& name : TRY(interface_names())) {
    if (name == "lo") continue;
    result.push_back({.interface = name,
                      .received_bytes = counter(name, "rx_bytes"),
                      .received_packets = counter(name, "rx_packets"),
                      .sent_bytes = counter(name, "tx_bytes"),
                      .sent_packets = counter(name, "tx_packets")});
  }
  return result;
}

}  // namespace agent
