#pragma once
/// What a network must remember: its subnet, who has which address, what answers and is published.
///
/// Pure but for load and save. Leases and the subnet last; what belongs to one boot of the host
/// (processes, announcements, ports) is dropped when the boot id differs.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/process.h"
#include "base/result.h"
#include "dns/ipv4.h"
#include "network/names.h"
#include "reconciler/ports/network.h"

namespace network {

inline constexpr uint64_t state_file_bytes_max = 8u << 20;
inline constexpr size_t leases_max = 1024;

struct PublishedPort {
  spec::Port port;         ///< `published` is what was asked for, perhaps 0.
  uint16_t host_port = 0;  ///< What it became.
  std::string address;     ///< Of the container.
};

struct Lease {
  std::string container;
  dns::Ipv4 address;
  std::string mac;
  std::vector<std::string> names;
  bool announced = false;
  std::vector<PublishedPort> ports;
};

/// What carries a network's traffic outward.
enum class WayOut { Pasta, Libslirp };

/// The running process that does, and why it is not the preferred one (empty for that).
struct UplinkState {
  base::ProcessIdentity process;
  WayOut kind = WayOut::Pasta;
  std::string reason;
};

struct NetworkState {
  std::string name;
  dns::Ipv4Net subnet;
  std::optional<dns::Ipv4> chosen_gateway;
  bool internal = false;
  std::string domain;
  std::string boot_id;
  std::optional<base::ProcessIdentity> keeper;
  std::optional<UplinkState> uplink;
  std::vector<Lease> leases;

  dns::Ipv4 gateway() const { return chosen_gateway.value_or(dns::Ipv4{subnet.first.value + 1}); }
  Lease* find(const std::string& container);
};

/// NotFound without a file; InvalidState for one that cannot be understood (it is left alone).
base::Result<NetworkState> load_state(const std::string& path);
base::Result<> save_state(const std::string& path, const NetworkState& state);
/// Forgets what a reboot, or the loss of the namespace, has ended.
void forget_running(NetworkState& state);

/// The first free /24 of 192.168.64.0 … 192.168.127.0 that touches nothing in `taken`.
base::Result<dns::Ipv4Net> choose_subnet(const std::vector<dns::Ipv4Net>& taken);
/// Checks one that was asked for: private enough to be a network, with room, overlapping nothing.
base::Result<dns::Ipv4Net> check_subnet(const std::string& text,
                                        const std::vector<dns::Ipv4Net>& taken);
/// Checks a gateway that was asked for: one of the subnet's own, and neither its first, which names
/// the network, nor its last, which means everybody.
base::Result<dns::Ipv4> check_gateway(const std::string& text, const dns::Ipv4Net& subnet);

/// The lease of `request.container`, made if it has none yet; its names are brought up to date.
/// Busy if the address or MAC asked for belongs to another.
base::Result<Lease*> reserve(NetworkState& state, const reconciler::LeaseRequest& request);

nlohmann::json port_to_json(const PublishedPort& published);
/// What is missing or odd gets its default.
PublishedPort port_from_json(const nlohmann::json& value);

/// `pasta`, `libslirp`: the words of files, messages and CONTAINER_WAY_OUT.
std::string_view name_of(WayOut kind);
/// Absent for an empty text; InvalidArgument, naming the words, for any other.
base::Result<std::optional<WayOut>> parse_way_out(std::string_view text);

/// Lower case, six groups, unicast. `02:…` for those we make ourselves.
base::Result<std::string> check_mac(const std::string& text);

}  // namespace network
