#include "network/state.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"

namespace network {
namespace {

using base::ErrorCode;
using base::fail;
using nlohmann::json;

constexpr uint64_t fnv_offset = 0xcbf29ce484222325;
constexpr uint64_t fnv_prime = 0x100000001b3;

uint64_t hash_of(std::string_view text) {
  uint64_t hash = fnv_offset;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * fnv_prime;
  return hash;
}

json identity_json(const std::optional<base::ProcessIdentity>& identity) {
  if (!identity) return nullptr;
  return {{"pid", identity->pid}, {"start_ticks", identity->start_ticks}};
}

std::optional<base::ProcessIdentity> identity_from(const json& value, const std::string& boot_id) {
  if (!value.is_object()) return std::nullopt;
  return base::ProcessIdentity{
      .pid = base::json_int_or(value, "pid", 0),
      .start_ticks = static_cast<uint64_t>(base::json_int_or(value, "start_ticks", 0)),
      .boot_id = boot_id};
}

json uplink_json(const std::optional<UplinkState>& uplink) {
  if (!uplink) return nullptr;
  json value = identity_json(uplink->process);
  value["kind"] = name_of(uplink->kind);
  value["reason"] = uplink->reason;
  return value;
}

std::optional<UplinkState> uplink_from(const json& value, const std::string& boot_id) {
  auto process = identity_from(value, boot_id);
  if (!process) return std::nullopt;
  const auto kind = parse_way_out(base::json_string_or(value, "kind", ""));
  return UplinkState{.process = std::move(*process),
                     .kind = kind && *kind ? **kind : WayOut::Pasta,
                     .reason = base::json_string_or(value, "reason", "")};
}

json lease_json(const Lease& lease) {
  json ports = json::array();
  for (const PublishedPort& port : lease.ports) ports.push_back(port_to_json(port));
  return {{"container", lease.container},
          {"address", dns::format_ipv4(lease.address)},
          {"mac", lease.mac},
          {"names", lease.names},
          {"announced", lease.announced},
          {"ports", std::move(ports)}};
}

base::Result<Lease> lease_from(const json& value) {
  Lease lease;
  lease.container = TRY(base::json_string(value, "container"));
  lease.address = TRY(dns::parse_ipv4(TRY(base::json_string(value, "address"))));
  lease.mac = TRY(check_mac(TRY(base::json_string(value, "mac"))));
  lease.announced = base::json_bool_or(value, "announced", false);
  for (const json& name : value.value("names", json::array()))
    if (name.is_string()) lease.names.push_back(name.get<std::string>());
  for (const json& port : value.value("ports", json::array()))
    if (port.is_object()) lease.ports.push_back(port_from_json(port));
  return lease;
}

base::Result<NetworkState> state_from(const json& value) {
  NetworkState state;
  state.name = TRY(base::json_string(value, "name"));
  state.subnet = TRY(dns::parse_ipv4_net(TRY(base::json_string(value, "subnet"))));
  if (value.contains("gateway"))
    state.chosen_gateway = TRY(dns::parse_ipv4(TRY(base::json_string(value, "gateway"))));
  state.internal = base::json_bool_or(value, "internal", false);
  state.domain = base::json_string_or(value, "domain", "");
  state.boot_id = base::json_string_or(value, "boot_id", "");
  state.keeper = identity_from(value.value("keeper", json()), state.boot_id);
  state.uplink = uplink_from(value.value("uplink", json()), state.boot_id);
  for (const json& lease : value.value("leases", json::array())) {
    if (!lease.is_object()) return fail(ErrorCode::InvalidState, "a lease is not an object");
    state.leases.push_back(TRY(lease_from(lease)));
  }
  return state;
}

/// One that a machine can have, be it the gateway or a container.
bool is_host_of(const dns::Ipv4Net& subnet, dns::Ipv4 address) {
  return subnet.contains(address) && address > subnet.first && address < subnet.last();
}

bool address_is_free(const NetworkState& state, dns::Ipv4 address) {
  return is_host_of(state.subnet, address) && address != state.gateway() &&
         std::none_of(state.leases.begin(), state.leases.end(),
                      [&](const Lease& lease) { return lease.address == address; });
}

base::Result<dns::Ipv4> choose_address(const NetworkState& state,
                                       const std::optional<std::string>& wanted) {
  if (wanted) {
    const dns::Ipv4 address = TRY(dns::parse_ipv4(*wanted));
    if (address_is_free(state, address)) return address;
    for (const Lease& lease : state.leases)
      if (lease.address == address)
        return fail(ErrorCode::Busy, "address {} of network '{}' belongs to '{}'", *wanted,
                    state.name, lease.container);
    return fail(ErrorCode::InvalidArgument,
                "address {} cannot be used on network '{}' ({}); choose another of these, and not "
                "its gateway {}",
                *wanted, state.name, dns::format_ipv4_net(state.subnet),
                dns::format_ipv4(state.gateway()));
  }
  for (dns::Ipv4 next{state.subnet.first.value + 1}; next < state.subnet.last(); ++next.value)
    if (address_is_free(state, next)) return next;
  return fail(ErrorCode::NoSpace, "network '{}' ({}) has no free address; remove containers",
              state.name, dns::format_ipv4_net(state.subnet));
}

bool mac_is_free(const NetworkState& state, const std::string& mac) {
  return std::none_of(state.leases.begin(), state.leases.end(),
                      [&](const Lease& lease) { return lease.mac == mac; });
}

base::Result<std::string> choose_mac(const NetworkState& state,
                                     const reconciler::LeaseRequest& request) {
  if (request.mac_address) {
    std::string mac = TRY(check_mac(*request.mac_address));
    if (mac_is_free(state, mac)) return mac;
    return fail(ErrorCode::Busy, "MAC address {} is already used on network '{}'", mac, state.name);
  }
  // From the names, so that a container made again looks the same to its peers' ARP caches.
  for (uint32_t salt = 0;; ++salt) {
    const uint64_t hash = hash_of(fmt::format("{}/{}/{}", state.name, request.container, salt));
    std::string mac =
        fmt::format("02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", hash & 255, hash >> 8 & 255,
                    hash >> 16 & 255, hash >> 24 & 255, hash >> 32 & 255);
    if (mac_is_free(state, mac)) return mac;
  }
}

}  // namespace

std::string folder_name(std::string_view network) {
  return fmt::format("{:016x}", hash_of(network));
}

Lease* NetworkState::find(const std::string& container) {
  const auto found = std::find_if(leases.begin(), leases.end(),
                                  [&](const Lease& lease) { return lease.container == container; });
  return found == leases.end() ? nullptr : &*found;
}

base::Result<NetworkState> load_state(const std::string& path) {
  const std::string text = TRY(base::read_file(path, state_file_bytes_max));
  const auto parsed = base::parse_json(text);
  auto state = parsed && parsed->is_object()
                   ? state_from(*parsed)
                   : base::Result<NetworkState>(fail(ErrorCode::InvalidState, "not JSON"));
  if (!state)
    return fail(ErrorCode::InvalidState,
                "'{}' cannot be read ({}); move it away to start this network anew", path,
                state.error().to_string());
  return state;
}

base::Result<> save_state(const std::string& path, const NetworkState& state) {
  json leases = json::array();
  for (const Lease& lease : state.leases) leases.push_back(lease_json(lease));
  const json value = {{"name", state.name},
                      {"subnet", dns::format_ipv4_net(state.subnet)},
                      {"gateway", dns::format_ipv4(state.gateway())},
                      {"internal", state.internal},
                      {"domain", state.domain},
                      {"boot_id", state.boot_id},
                      {"keeper", identity_json(state.keeper)},
                      {"uplink", uplink_json(state.uplink)},
                      {"leases", std::move(leases)}};
  return base::write_file_atomically(path, base::dump_json_pretty(value) + "\n");
}

void forget_running(NetworkState& state) {
  state.keeper.reset();
  state.uplink.reset();
  for (Lease& lease : state.leases) {
    lease.announced = false;
    lease.ports.clear();
  }
}

std::string_view name_of(WayOut kind) { return kind == WayOut::Pasta ? "pasta" : "libslirp"; }

base::Result<std::optional<WayOut>> parse_way_out(std::string_view text) {
  if (text.empty()) return std::nullopt;
  for (const WayOut kind : {WayOut::Pasta, WayOut::Libslirp})
    if (text == name_of(kind)) return kind;
  return fail(ErrorCode::InvalidArgument, "'{}' is no way out of a network; use pasta or libslirp",
              base::escape_controls(text));
}

base::Result<dns::Ipv4Net> choose_subnet(const std::vector<dns::Ipv4Net>& taken) {
  constexpr uint32_t pool_first = 0xC0A84000;  // 192.168.64.0
  constexpr uint32_t pool_networks = 64;
  for (uint32_t i = 0; i < pool_networks; ++i) {
    const dns::Ipv4Net net{{pool_first + (i << 8)}, 24};
    if (std::none_of(taken.begin(), taken.end(),
                     [&](const dns::Ipv4Net& other) { return other.overlaps(net); }))
      return net;
  }
  return fail(ErrorCode::NoSpace,
              "all 64 networks of 192.168.64.0/18 are taken; remove one, or name a subnet");
}

base::Result<dns::Ipv4Net> check_subnet(const std::string& text,
                                        const std::vector<dns::Ipv4Net>& taken) {
  const dns::Ipv4Net net = TRY(dns::parse_ipv4_net(text));
  constexpr uint8_t prefix_min = 8;
  constexpr uint8_t prefix_max = 29;
  const uint32_t top = net.first.value >> 24;
  const bool reserved = top == 0 || top == 127 || top >= 224 || net.first.value >> 16 == 0xA9FE;
  if (net.prefix < prefix_min || net.prefix > prefix_max || reserved)
    return fail(ErrorCode::InvalidArgument,
                "subnet '{}' cannot be a container network; use a private one from /{} to /{}",
                text, prefix_min, prefix_max);
  for (const dns::Ipv4Net& other : taken)
    if (net.overlaps(other))
      return fail(ErrorCode::InvalidArgument,
                  "subnet '{}' overlaps {}, which is in use; choose another", text,
                  dns::format_ipv4_net(other));
  return net;
}

base::Result<dns::Ipv4> check_gateway(const std::string& text, const dns::Ipv4Net& subnet) {
  const dns::Ipv4 gateway = TRY(dns::parse_ipv4(text));
  if (!is_host_of(subnet, gateway))
    return fail(ErrorCode::InvalidArgument,
                "gateway {} is no address of a machine in {}; choose another", text,
                dns::format_ipv4_net(subnet));
  return gateway;
}

base::Result<Lease*> reserve(NetworkState& state, const reconciler::LeaseRequest& request) {
  if (Lease* known = state.find(request.container)) {
    const bool same_address =
        !request.ipv4_address || TRY(dns::parse_ipv4(*request.ipv4_address)) == known->address;
    const bool same_mac =
        !request.mac_address || TRY(check_mac(*request.mac_address)) == known->mac;
    if (!same_address || !same_mac)
      return fail(ErrorCode::InvalidState,
                  "container '{}' has address {} on network '{}'; release it before asking for "
                  "another",
                  request.container, dns::format_ipv4(known->address), state.name);
    known->names = request.names;
    return known;
  }
  if (state.leases.size() >= leases_max)
    return fail(ErrorCode::NoSpace, "network '{}' already has {} containers", state.name,
                leases_max);
  Lease lease;
  lease.container = request.container;
  lease.address = TRY(choose_address(state, request.ipv4_address));
  lease.mac = TRY(choose_mac(state, request));
  lease.names = request.names;
  state.leases.push_back(std::move(lease));
  return &state.leases.back();
}

base::Result<std::string> check_mac(const std::string& text) {
  std::string mac;
  bool right = text.size() == 17;
  for (size_t i = 0; right && i < text.size(); ++i) {
    const char c = text[i] >= 'A' && text[i] <= 'F' ? static_cast<char>(text[i] + 32) : text[i];
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    right = i % 3 == 2 ? c == ':' : hex;
    mac += c;
  }
  // The lowest bit of the first octet marks a group address, which no interface can have.
  right = right && std::string_view("02468ace").find(mac[1]) != std::string_view::npos &&
          mac != "00:00:00:00:00:00";
  if (right) return mac;
  return fail(ErrorCode::InvalidArgument, "'{}' is not a MAC address such as 02:00:00:00:00:01",
              text);
}

nlohmann::json port_to_json(const PublishedPort& published) {
  return {{"host_ip", published.port.host_ip},
          {"published", published.port.published},
          {"target", published.port.target},
          {"udp", published.port.protocol == spec::Protocol::Udp},
          {"published_last", published.port.published_last},
          {"host_port", published.host_port},
          {"address", published.address}};
}

PublishedPort port_from_json(const nlohmann::json& value) {
  const auto number = [&](const char* key) {
    return static_cast<uint16_t>(std::clamp<int64_t>(base::json_int_or(value, key, 0), 0, 65535));
  };
  return {.port = {.host_ip = base::json_string_or(value, "host_ip", "127.0.0.1"),
                   .published = number("published"),
                   .target = number("target"),
                   .protocol = base::json_bool_or(value, "udp", false) ? spec::Protocol::Udp
                                                                       : spec::Protocol::Tcp,
                   .published_last = number("published_last")},
          .host_port = number("host_port"),
          .address = base::json_string_or(value, "address", "")};
}

}  // namespace network
