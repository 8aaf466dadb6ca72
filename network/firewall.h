#pragma once
/// The packet filter inside a network's namespace (nftables), as one transaction each.
///
/// Frames enter the bridge only from the TAP, MAC and address that belong together, and only as
/// IPv4 or ARP. The namespace itself answers DNS and ping, nothing else. What leaves is translated
/// to the way out's address. The host's own rules are never touched: these live in the namespace.

#include "base/result.h"

namespace network {

struct TapSetup;

/// Idempotent; replaces the rules and keeps the pins.
base::Result<> install_firewall();
base::Result<> pin_guest(const TapSetup& setup);
base::Result<> unpin_guest(const TapSetup& setup);

}  // namespace network
