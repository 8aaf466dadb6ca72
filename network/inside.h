#pragma once
/// What is done inside a network's namespace. Every function acts on the calling thread's network
/// namespace and needs CAP_NET_ADMIN there; they are the `work` of run_inside.

#include <cstdint>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"
#include "dns/ipv4.h"

namespace network {

struct BridgeSetup {
  dns::Ipv4Net subnet;
  dns::Ipv4 gateway;
};
/// Bridge, gateway address, loopback and packet filter. Idempotent. Returns notes on what this
/// kernel lacks; empty where all is in place.
base::Result<std::string> set_up_bridge(const BridgeSetup& setup);

struct TapSetup {
  std::string name;
  dns::Ipv4 address;  ///< Of the guest.
  std::string mac;    ///< Of the guest.
};
/// A TAP with vnet headers and offloads on the bridge, pinned to its guest's MAC and address.
/// Busy if a running VM holds it; Denied if /dev/net/tun is closed to us.
base::Result<base::UniqueFd> make_tap(const TapSetup& setup);
/// Takes a guest's TAP and pins away. A machine that has been told to end and holds the TAP still
/// is cut off, so that its name and address are free for the next.
base::Result<> remove_tap(const TapSetup& setup);

/// {UDP bound, TCP listening} on the gateway's port 53.
base::Result<std::vector<base::UniqueFd>> open_dns_sockets(dns::Ipv4 gateway);

/// Non-blocking sockets of the namespace, not connected yet. `type` is SOCK_STREAM or SOCK_DGRAM.
base::Result<std::vector<base::UniqueFd>> open_sockets(int type, size_t count);

/// A TAP of plain frames with the way out's name, for libslirp. It lives as long as the descriptor.
/// Busy while another way out still has the name.
base::Result<base::UniqueFd> make_uplink_tap();

/// Waits for the way out's interface, then routes through it; never to link-local addresses
/// (cloud metadata). `watched` is a pidfd of the process that makes it.
base::Result<> route_through_uplink(int watched, const base::Deadline& deadline);

}  // namespace network
