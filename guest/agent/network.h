#pragma once
/// The VM's interfaces: names, hardware addresses, addresses and routes (netdevice(7), ioctl
/// calls).

#include <vector>

#include "base/result.h"
#include "guest/protocol/protocol.h"

namespace agent {

base::Result<> bring_up_loopback();
base::Result<> configure_interfaces(const std::vector<guest::Interface>& interfaces);
/// Down, without addresses, and with the MACs that tell their place.
base::Result<> forget_interfaces(const std::vector<guest::Interface>& interfaces);
base::Result<std::vector<guest::NetworkStatistics>> interface_statistics();

}  // namespace agent
