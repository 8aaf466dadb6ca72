#pragma once
/// Which frames of a network may go out through libslirp.
///
/// Pure. The packet filter of the namespace says the same to routed packets; this is the second
/// wall, inside the process that turns frames into connections of the host's.

#include <string_view>

namespace network::slirp {

/// True for ARP, and for IPv4 to an address that can lie beyond the host: not this host, its
/// loopback, link-local addresses (cloud metadata), multicast, reserved ones, or the link between
/// namespace and way out itself, where libslirp's own services would answer.
/// `frame` begins with the Ethernet header; anything malformed or of another protocol may not.
bool may_leave(std::string_view frame);

}  // namespace network::slirp
