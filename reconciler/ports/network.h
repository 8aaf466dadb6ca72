#pragma once
/// The port to networks. Implemented by network/ (a bridge in a namespace, one `container-network`
/// process each) and by tests/sim. Synchronous, any thread, idempotent, as in runtime.h.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "spec/stack.h"

namespace reconciler {

struct NetworkSetup {
  std::string name;  ///< Full name, unique on this system.
  bool internal = false;
  std::optional<std::string> subnet;   ///< IPv4 CIDR; absent: the next free one of the pool.
  std::optional<std::string> gateway;  ///< Of that subnet; absent: its first address.
};

struct NetworkObservation {
  std::string name;
  std::string subnet;   ///< `192.168.64.0/24`
  std::string gateway;  ///< `192.168.64.1`: also the DNS server.
  bool internal = false;
  bool alive = false;  ///< Its process answers; false: it is to be made again.
};

struct LeaseRequest {
  std::string network;             ///< Full name.
  std::string container;           ///< Id; leases are kept by it until `release`.
  std::vector<std::string> names;  ///< DNS names: container, service, aliases.
  std::optional<std::string> ipv4_address;
  std::optional<std::string> mac_address;
};

/// A place on a network. The same container asking again gets the same address and MAC.
struct NetworkLease {
  std::string network;
  std::string address;  ///< CIDR: `192.168.64.3/24`
  std::string gateway;  ///< Empty on an internal network.
  std::string dns_server;
  std::string mac;
  uint32_t mtu = 1500;
  std::shared_ptr<base::UniqueFd> tap;  ///< Open TAP descriptor with vnet headers; may be null.
};

/// One published port: host side to container side.
struct PublishRequest {
  std::string container;
  std::string network;
  std::string address;  ///< Of the container, without mask.
  spec::Port port;
};

class NetworkPort {
 public:
  virtual ~NetworkPort() = default;
  virtual base::Result<NetworkObservation> create(const NetworkSetup& setup) = 0;
  /// Ends the process and the namespace. Absent is success; leases left are Busy.
  virtual base::Result<> remove(const std::string& name) = 0;
  virtual base::Result<std::vector<NetworkObservation>> list() = 0;

  /// Reserves the address and makes the TAP; names answer from `announce` on.
  virtual base::Result<NetworkLease> lease(const LeaseRequest& request) = 0;
  /// Forgets address, names and published ports. Absent is success.
  virtual base::Result<> release(const std::string& network, const std::string& container) = 0;
  /// Turns the container's DNS names on (running and not unhealthy) or off.
  virtual base::Result<> announce(const std::string& network, const std::string& container,
                                  bool on) = 0;

  /// Listens on the host and forwards. Busy if taken, naming the port; Denied for a port the user
  /// may not bind. Returns the host port (chosen if 0 was asked).
  virtual base::Result<uint16_t> publish(const PublishRequest& request) = 0;
  virtual base::Result<> unpublish(const std::string& network, const std::string& container) = 0;
};

}  // namespace reconciler
