#include "network/netlink.h"

#include <cerrno>
#include <cstring>

#include <arpa/inet.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

namespace network {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;

constexpr size_t alignment = 4;

template <class T>
void append(std::string& message, const T& value) {
  message.append(reinterpret_cast<const char*>(&value), sizeof value);
  message.append((alignment - message.size() % alignment) % alignment, '\0');
}

template <class Header>
std::string begin(uint16_t type, unsigned flags, const Header& header) {
  std::string message;
  nlmsghdr head{};
  head.nlmsg_type = type;
  head.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
  append(message, head);
  append(message, header);
  return message;
}

void put(std::string& message, unsigned type, std::string_view data) {
  rtattr head{};
  head.rta_type = static_cast<uint16_t>(type);
  head.rta_len = static_cast<uint16_t>(sizeof head + data.size());
  append(message, head);
  message += data;
  message.append((alignment - message.size() % alignment) % alignment, '\0');
}

template <class T>
std::string_view bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string nested(unsigned type, std::string_view data) {
  std::string attribute;
  put(attribute, type, data);
  return attribute;
}

std::string mac_bytes(const std::string& mac) {
  std::string bytes;
  for (size_t at = 0; at + 1 < mac.size(); at += 3)
    bytes.push_back(static_cast<char>(std::stoi(mac.substr(at, 2), nullptr, 16)));
  return bytes;
}

base::Result<int> index_of(const std::string& name) {
  const unsigned index = ::if_nametoindex(name.c_str());
  if (index == 0) return fail(ErrorCode::NotFound, "there is no interface '{}'", name);
  return static_cast<int>(index);
}

base::Result<ifinfomsg> link_header(const std::string& name) {
  ifinfomsg link{};
  link.ifi_family = AF_UNSPEC;
  link.ifi_index = TRY(index_of(name));
  return link;
}

}  // namespace

base::Result<Netlink> Netlink::create() {
  base::UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!socket) return fail_errno(errno, "netlink socket");
  return Netlink(std::move(socket));
}

base::Result<> Netlink::send(std::string& message, std::string_view what) {
  nlmsghdr head{};
  std::memcpy(&head, message.data(), sizeof head);
  head.nlmsg_len = static_cast<uint32_t>(message.size());
  head.nlmsg_seq = ++sequence_;
  std::memcpy(message.data(), &head, sizeof head);
  if (::send(socket_.get(), message.data(), message.size(), 0) < 0) return fail_errno(errno, what);
  // Requests to the kernel are carried out within send(); the answer is there already.
  alignas(nlmsghdr) char answer[8192];
  const ssize_t count = ::recv(socket_.get(), answer, sizeof answer, 0);
  if (count < static_cast<ssize_t>(NLMSG_LENGTH(sizeof(int)))) return fail_errno(EPROTO, what);
  const auto* reply = reinterpret_cast<const nlmsghdr*>(answer);
  if (reply->nlmsg_type != NLMSG_ERROR || reply->nlmsg_seq != sequence_)
    return fail_errno(EPROTO, what);
  int status = 0;
  std::memcpy(&status, NLMSG_DATA(reply), sizeof status);
  if (status != 0) return fail_errno(-status, what);
  return {};
}

base::Result<> Netlink::add_bridge(const std::string& name, const std::string& mac) {
  if (::if_nametoindex(name.c_str()) != 0) return {};
  std::string message = begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, ifinfomsg{});
  put(message, IFLA_IFNAME, {name.c_str(), name.size() + 1});
  put(message, IFLA_ADDRESS, mac_bytes(mac));
  const uint32_t no_delay = 0;
  const uint8_t off = 0;
  std::string data = nested(IFLA_BR_FORWARD_DELAY, bytes_of(no_delay));
  data += nested(IFLA_BR_MCAST_SNOOPING, bytes_of(off));
  const std::string info = nested(IFLA_INFO_KIND, "bridge") + nested(IFLA_INFO_DATA, data);
  put(message, IFLA_LINKINFO | NLA_F_NESTED, info);
  return send(message, fmt::format("add bridge '{}'", name));
}

base::Result<> Netlink::bring_up(const std::string& name) {
  ifinfomsg link = TRY(link_header(name));
  link.ifi_flags = IFF_UP;
  link.ifi_change = IFF_UP;
  std::string message = begin(RTM_NEWLINK, 0, link);
  return send(message, fmt::format("bring up '{}'", name));
}

base::Result<> Netlink::remove(const std::string& name) {
  if (::if_nametoindex(name.c_str()) == 0) return {};
  std::string message = begin(RTM_DELLINK, 0, TRY(link_header(name)));
  const auto gone = send(message, fmt::format("remove '{}'", name));
  // Its holder may have closed it in between.
  if (!gone && ::if_nametoindex(name.c_str()) != 0) return gone;
  return {};
}

base::Result<> Netlink::set_mtu(const std::string& name, uint32_t mtu) {
  std::string message = begin(RTM_NEWLINK, 0, TRY(link_header(name)));
  put(message, IFLA_MTU, bytes_of(mtu));
  return send(message, fmt::format("set the MTU of '{}'", name));
}

base::Result<> Netlink::set_master(const std::string& name, const std::string& bridge) {
  std::string message = begin(RTM_NEWLINK, 0, TRY(link_header(name)));
  const int master = TRY(index_of(bridge));
  put(message, IFLA_MASTER, bytes_of(master));
  return send(message, fmt::format("put '{}' on '{}'", name, bridge));
}

base::Result<> Netlink::set_bridge_port(const std::string& name, uint16_t attribute, bool on) {
  std::string message = begin(RTM_NEWLINK, 0, TRY(link_header(name)));
  const uint8_t value = on ? 1 : 0;
  const std::string info = nested(IFLA_INFO_SLAVE_KIND, "bridge") +
                           nested(IFLA_INFO_SLAVE_DATA, nested(attribute, bytes_of(value)));
  put(message, IFLA_LINKINFO | NLA_F_NESTED, info);
  auto done = send(message, fmt::format("set bridge port flag {} of '{}'", attribute, name));
  if (done) return {};
  return fail(ErrorCode::Unsupported, "{}", done.error().to_string());
}

base::Result<> Netlink::add_address(const std::string& name, dns::Ipv4 address, uint8_t prefix) {
  ifaddrmsg head{};
  head.ifa_family = AF_INET;
  head.ifa_prefixlen = prefix;
  head.ifa_index = static_cast<uint32_t>(TRY(index_of(name)));
  std::string message = begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, head);
  const uint32_t wire = htonl(address.value);
  put(message, IFA_LOCAL, bytes_of(wire));
  put(message, IFA_ADDRESS, bytes_of(wire));
  auto done = send(message, fmt::format("give {} to '{}'", dns::format_ipv4(address), name));
  if (!done && done.error().code() == ErrorCode::Exists) return {};
  return done;
}

base::Result<> Netlink::add_route(const dns::Ipv4Net& to, RouteKind kind, dns::Ipv4 gateway) {
  rtmsg head{};
  head.rtm_family = AF_INET;
  head.rtm_dst_len = to.prefix;
  head.rtm_table = RT_TABLE_MAIN;
  head.rtm_protocol = RTPROT_STATIC;
  head.rtm_scope = RT_SCOPE_UNIVERSE;
  head.rtm_type = kind == RouteKind::Via ? RTN_UNICAST : RTN_PROHIBIT;
  std::string message = begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, head);
  const uint32_t destination = htonl(to.first.value);
  const uint32_t via = htonl(gateway.value);
  if (to.prefix > 0) put(message, RTA_DST, bytes_of(destination));
  if (kind == RouteKind::Via) put(message, RTA_GATEWAY, bytes_of(via));
  return send(message, fmt::format("add a route to {}", dns::format_ipv4_net(to)));
}

base::Result<> Netlink::add_static_fdb(const std::string& port, const std::string& mac) {
  ndmsg head{};
  head.ndm_family = AF_BRIDGE;
  head.ndm_state = NUD_NOARP;
  head.ndm_flags = NTF_MASTER;
  head.ndm_ifindex = TRY(index_of(port));
  std::string message = begin(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, head);
  put(message, NDA_LLADDR, mac_bytes(mac));
  return send(message, fmt::format("pin {} to '{}'", mac, port));
}

base::Result<> Netlink::add_permanent_neighbour(const std::string& name, dns::Ipv4 address,
                                                const std::string& mac) {
  ndmsg head{};
  head.ndm_family = AF_INET;
  head.ndm_state = NUD_PERMANENT;
  head.ndm_ifindex = TRY(index_of(name));
  std::string message = begin(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, head);
  const uint32_t wire = htonl(address.value);
  put(message, NDA_DST, bytes_of(wire));
  put(message, NDA_LLADDR, mac_bytes(mac));
  return send(message, fmt::format("pin {} to {}", dns::format_ipv4(address), mac));
}

base::Result<> await_link(const std::string& name, int watched, const base::Deadline& deadline) {
  const base::UniqueFd events(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK;
  if (!events ||
      ::bind(events.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "watch interfaces");
  // Subscribed before looking, so that no interface can appear unseen in between.
  while (::if_nametoindex(name.c_str()) == 0) {
    pollfd waited[] = {{.fd = events.get(), .events = POLLIN, .revents = 0},
                       {.fd = watched, .events = POLLIN, .revents = 0}};
    const int ready = ::poll(waited, 2, deadline.remaining_ms());
    if (ready == 0) return fail(ErrorCode::Timeout, "interface '{}' did not appear", name);
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
    if (waited[1].revents != 0)
      return fail(ErrorCode::Io, "the process that was to make interface '{}' ended", name);
    char event[8192];
    if (waited[0].revents != 0) ::recv(events.get(), event, sizeof event, MSG_DONTWAIT);
  }
  return {};
}

}  // namespace network
