#include "network/driver.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <spdlog/spdlog.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/names.h"
#include "network/message.h"
#include "network/names.h"
#include "network/state.h"
#include "network/uplink.h"

namespace network {
namespace {

using base::ErrorCode;
using base::fail;
using nlohmann::json;

constexpr int call_timeout_ms = 10'000;
constexpr int observe_timeout_ms = 1'000;
constexpr int start_timeout_ms = 15'000;
constexpr int end_timeout_ms = 5'000;
constexpr int ready_descriptor = 3;
constexpr size_t log_name_bytes_max = 100;

struct Reply {
  json value;
  std::vector<base::UniqueFd> descriptors;
};

base::Result<Reply> exchange(int socket, const json& call, const base::Deadline& deadline) {
  TRY(send_message(socket, base::dump_json(call), {}));
  Message message = TRY(receive_message(socket, deadline));
  return Reply{.value = TRY(base::parse_json(TRY(decode_reply(message.text)))),
               .descriptors = std::move(message.descriptors)};
}

/// IPv4 networks this host is part of: a container network over one of them would hide it.
std::vector<dns::Ipv4Net> host_networks() {
  std::vector<dns::Ipv4Net> networks;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return networks;
  for (const ifaddrs* entry = list; entry; entry = entry->ifa_next) {
    if (!entry->ifa_addr || !entry->ifa_netmask || entry->ifa_addr->sa_family != AF_INET) continue;
    const auto value = [](const sockaddr* address) {
      return ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr);
    };
    const uint32_t mask = value(entry->ifa_netmask);
    networks.push_back(
        {{value(entry->ifa_addr) & mask}, static_cast<uint8_t>(__builtin_popcount(mask))});
  }
  ::freeifaddrs(list);
  return networks;
}

/// One that has ended and was not collected yet runs no more.
bool runs(const base::ProcessIdentity& process) {
  const auto opened = base::open_process(process);
  return opened && !base::await_process(opened->get(), process.pid, base::Deadline::in_ms(0));
}

/// Nobody is on it and nothing of it runs; it starts again when somebody comes.
bool rests(const NetworkState& network) {
  return network.leases.empty() && !(network.keeper && runs(*network.keeper)) &&
         !(network.uplink && runs(network.uplink->process));
}

json names_json(const std::vector<std::string>& names) { return json(names); }

}  // namespace

struct NetworkDriver::State {
  NetworkDriverOptions options;
  std::mutex mutex;  ///< Of the table below, and of choosing subnets.
  std::map<std::string, std::unique_ptr<std::mutex>> networks;

  Folders folders_of(const std::string& name) const {
    const std::string folder = "/networks/" + folder_name(name);
    return {.run = options.run_root + folder, .state = options.state_root + folder};
  }
  std::unique_lock<std::mutex> lock(const std::string& name);
  base::Result<std::vector<NetworkState>> load_all() const;
  base::Result<> record_new(const reconciler::NetworkSetup& setup);
  base::Result<> spawn_process(const std::string& name) const;
  base::Result<base::UniqueFd> connect(const std::string& name) const;
  base::Result<> end(const std::string& name) const;
  base::Result<Reply> call(const std::string& name, const json& call);
};

std::unique_lock<std::mutex> NetworkDriver::State::lock(const std::string& name) {
  std::mutex* network = nullptr;
  {
    const std::lock_guard guard(mutex);
    auto& entry = networks[name];
    if (!entry) entry = std::make_unique<std::mutex>();
    network = entry.get();
  }
  return std::unique_lock(*network);
}

base::Result<std::vector<NetworkState>> NetworkDriver::State::load_all() const {
  std::vector<NetworkState> states;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(options.state_root + "/networks", error), end;
       !error && entry != end; entry.increment(error)) {
    auto state = load_state(entry->path().string() + "/state.json");
    if (state)
      states.push_back(std::move(*state));
    else if (state.error().code() != ErrorCode::NotFound)
      spdlog::warn("{}, ignoring", state.error().to_string());
  }
  if (error) return base::fail_errno(error.value(), "list networks");
  std::sort(states.begin(), states.end(),
            [](const NetworkState& a, const NetworkState& b) { return a.name < b.name; });
  return states;
}

/// Chooses the subnet and writes the first state file, or checks that the existing one agrees.
base::Result<> NetworkDriver::State::record_new(const reconciler::NetworkSetup& setup) {
  const std::lock_guard guard(mutex);
  const Folders folders = folders_of(setup.name);
  const auto known = load_state(folders.state_file());
  if (known) {
    const bool same_subnet =
        !setup.subnet || TRY(dns::parse_ipv4_net(*setup.subnet)) == known->subnet;
    const bool same_gateway =
        !setup.gateway || TRY(dns::parse_ipv4(*setup.gateway)) == known->gateway();
    if (same_subnet && same_gateway && known->internal == setup.internal) return {};
    return fail(ErrorCode::Exists,
                "network '{}' exists with subnet {}, gateway {}{}; remove it first to change that",
                setup.name, dns::format_ipv4_net(known->subnet), dns::format_ipv4(known->gateway()),
                known->internal ? ", internal" : "");
  }
  if (known.error().code() != ErrorCode::NotFound) return tl::unexpected(known.error());
  std::vector<dns::Ipv4Net> taken = host_networks();
  for (const NetworkState& other : TRY(load_all())) taken.push_back(other.subnet);
  NetworkState state;
  state.name = setup.name;
  state.internal = setup.internal;
  state.domain = options.domain;
  state.subnet = setup.subnet ? TRY(check_subnet(*setup.subnet, taken)) : TRY(choose_subnet(taken));
  if (setup.gateway) state.chosen_gateway = TRY(check_gateway(*setup.gateway, state.subnet));
  TRY(base::make_directories(folders.state));
  return save_state(folders.state_file(), state);
}

base::Result<> NetworkDriver::State::spawn_process(const std::string& name) const {
  const Folders folders = folders_of(name);
  TRY(base::make_directories(folders.run));
  base::Pipe ready = TRY(base::make_pipe());
  const char* path = std::getenv("PATH");
  const std::string log_root = options.log_root.empty() ? options.run_root : options.log_root;
  TRY(base::make_directories(log_root));
  base::SpawnOptions spawned{
      .arguments = {options.programs + "/container-network", "--run", folders.run, "--state",
                    folders.state, "--log",
                    fmt::format("{}/network-{}.log", log_root, name.substr(0, log_name_bytes_max))},
      .environment = {fmt::format("PATH={}", path ? path : "/usr/sbin:/usr/bin:/sbin:/bin")},
      .descriptors = {{ready.writer.get(), ready_descriptor}}};
  if (!options.way_out.empty())
    spawned.arguments.insert(spawned.arguments.end(), {"--way-out", options.way_out});
  if (!options.system.empty())
    spawned.environment.push_back("CONTAINER_APP_ROOT=" + options.system);
  const base::ProcessIdentity process = TRY(base::spawn(spawned));
  ready.writer.reset();
  const auto deadline = base::Deadline::in_ms(start_timeout_ms);
  auto line = receive_line(ready.reader.get(), deadline);
  if (!line)
    return tl::unexpected(
        std::move(line.error()).during(fmt::format("start container-network for '{}'", name)));
  const auto answer = decode_reply(*line);
  if (answer) return {};
  // It is ending; being its parent we must not leave it behind as a zombie.
  if (const auto pidfd = base::open_process(process))
    static_cast<void>(base::await_process(pidfd->get(), process.pid, deadline));
  // Somebody else was quicker: then the network is served, which is all we wanted.
  if (answer.error().code() == ErrorCode::Busy) return {};
  return tl::unexpected(base::Error(answer.error()).during(fmt::format("network '{}'", name)));
}

/// Connects to the network's process; if it is gone, starts it again first.
base::Result<base::UniqueFd> NetworkDriver::State::connect(const std::string& name) const {
  const Folders folders = folders_of(name);
  if (!base::path_exists(folders.state_file()))
    return fail(ErrorCode::NotFound, "there is no network '{}'; create it first", name);
  if (auto socket = base::connect_unix(folders.control())) return socket;
  TRY(spawn_process(name));
  return base::connect_unix(folders.control());
}

/// Ends the network's process and namespace and waits until they are gone; Busy with leases left.
/// Also of one whose process was killed: what that left is taken over first, to be ended well.
base::Result<> NetworkDriver::State::end(const std::string& name) const {
  const base::UniqueFd socket = TRY(connect(name));
  const auto deadline = base::Deadline::in_ms(end_timeout_ms);
  const Reply described = TRY(exchange(socket.get(), {{"call", "describe"}}, deadline));
  const int64_t pid = TRY(base::json_int(described.value, "pid"));
  const auto identity = base::identify_process(pid);
  TRY(exchange(socket.get(), {{"call", "shutdown"}}, deadline));
  if (identity) {
    if (const auto process = base::open_process(*identity))
      TRY(base::await_process(process->get(), pid, deadline));
  }
  return base::remove_tree(folders_of(name).run);
}

base::Result<Reply> NetworkDriver::State::call(const std::string& name, const json& call) {
  const auto guard = lock(name);
  const base::UniqueFd socket = TRY(connect(name));
  return exchange(socket.get(), call, base::Deadline::in_ms(call_timeout_ms));
}

NetworkDriver::NetworkDriver(std::unique_ptr<State> state) : state_(std::move(state)) {}
NetworkDriver::~NetworkDriver() = default;

base::Result<std::unique_ptr<NetworkDriver>> NetworkDriver::create(NetworkDriverOptions options) {
  TRY(base::make_directories(options.run_root + "/networks"));
  TRY(base::make_directories(options.state_root + "/networks"));
  TRY_DURING(parse_way_out(options.way_out), "CONTAINER_WAY_OUT");
  const std::string program = options.programs + "/container-network";
  if (!base::path_exists(program))
    return fail(ErrorCode::NotFound, "'{}' is missing; install the programs again", program);
  auto state = std::make_unique<State>();
  state->options = std::move(options);
  return std::unique_ptr<NetworkDriver>(new NetworkDriver(std::move(state)));
}

namespace {

reconciler::NetworkObservation observed(const NetworkState& state, bool alive) {
  return {.name = state.name,
          .subnet = dns::format_ipv4_net(state.subnet),
          .gateway = dns::format_ipv4(state.gateway()),
          .internal = state.internal,
          .alive = alive};
}

}  // namespace

base::Result<reconciler::NetworkObservation> NetworkDriver::create(
    const reconciler::NetworkSetup& setup) {
  TRY(base::check_volume_name(setup.name));
  const Folders folders = state_->folders_of(setup.name);
  const bool is_new = !base::path_exists(folders.state_file());
  TRY(state_->record_new(setup));
  if (auto described = state_->call(setup.name, {{"call", "describe"}}); !described) {
    // What could not be made must not block its name and subnet.
    if (is_new) static_cast<void>(base::remove_tree(folders.state));
    return tl::unexpected(std::move(described.error()));
  }
  return observed(TRY(load_state(folders.state_file())), true);
}

base::Result<> NetworkDriver::remove(const std::string& name) {
  const Folders folders = state_->folders_of(name);
  const auto guard = state_->lock(name);
  const auto known = load_state(folders.state_file());
  if (!known && known.error().code() == ErrorCode::NotFound) return {};
  TRY(state_->end(name));
  return base::remove_tree(folders.state);
}

base::Result<> NetworkDriver::rest() {
  base::Result<> first;
  for (const NetworkState& listed : TRY(state_->load_all())) {
    const auto guard = state_->lock(listed.name);
    const auto network = load_state(state_->folders_of(listed.name).state_file());
    if (!network || rests(*network)) continue;
    auto ended = state_->end(listed.name);
    const bool in_use = !ended && ended.error().code() == ErrorCode::Busy;
    if (!ended && !in_use && first)
      first = tl::unexpected<base::Error>(
          std::move(ended.error()).during(fmt::format("end network '{}'", listed.name)));
  }
  return first;
}

base::Result<std::vector<reconciler::NetworkObservation>> NetworkDriver::list() {
  std::vector<reconciler::NetworkObservation> observations;
  for (const NetworkState& network : TRY(state_->load_all())) {
    const auto socket = base::connect_unix(state_->folders_of(network.name).control());
    const bool alive = socket && exchange(socket->get(), {{"call", "describe"}},
                                          base::Deadline::in_ms(observe_timeout_ms));
    observations.push_back(observed(network, alive || rests(network)));
  }
  return observations;
}

WayOutReport NetworkDriver::way_out() const {
  std::optional<UplinkState> in_use;
  for (const NetworkState& network : state_->load_all().value_or(std::vector<NetworkState>{})) {
    if (!network.uplink || !base::open_process(network.uplink->process)) continue;
    if (!in_use || network.uplink->kind == WayOut::Pasta) in_use = network.uplink;
  }
  if (in_use) return {std::string(name_of(in_use->kind)), in_use->reason};
  if (!state_->options.way_out.empty())
    return {state_->options.way_out, "CONTAINER_WAY_OUT asks for it"};
  return {std::string(name_of(WayOut::Libslirp)), ""};
}

base::Result<reconciler::NetworkLease> NetworkDriver::lease(
    const reconciler::LeaseRequest& request) {
  json call = {
      {"call", "lease"}, {"container", request.container}, {"names", names_json(request.names)}};
  if (request.ipv4_address) call["ipv4_address"] = *request.ipv4_address;
  if (request.mac_address) call["mac_address"] = *request.mac_address;
  Reply reply = TRY(state_->call(request.network, call));
  reconciler::NetworkLease lease;
  lease.network = request.network;
  lease.address = TRY(base::json_string(reply.value, "address"));
  lease.gateway = TRY(base::json_string(reply.value, "gateway"));
  lease.dns_server = TRY(base::json_string(reply.value, "dns_server"));
  lease.mac = TRY(base::json_string(reply.value, "mac"));
  lease.mtu = static_cast<uint32_t>(base::json_int_or(reply.value, "mtu", guest_mtu));
  if (!reply.descriptors.empty())
    lease.tap = std::make_shared<base::UniqueFd>(std::move(reply.descriptors.front()));
  return lease;
}

base::Result<> NetworkDriver::release(const std::string& network, const std::string& container) {
  const auto released = state_->call(network, {{"call", "release"}, {"container", container}});
  if (!released && released.error().code() != ErrorCode::NotFound)
    return tl::unexpected(released.error());
  return {};
}

base::Result<> NetworkDriver::announce(const std::string& network, const std::string& container,
                                       bool on) {
  TRY(state_->call(network, {{"call", "announce"}, {"container", container}, {"on", on}}));
  return {};
}

base::Result<uint16_t> NetworkDriver::publish(const reconciler::PublishRequest& request) {
  const Reply reply = TRY(
      state_->call(request.network,
                   {{"call", "publish"},
                    {"container", request.container},
                    {"port", port_to_json({.port = request.port, .address = request.address})}}));
  return static_cast<uint16_t>(TRY(base::json_int(reply.value, "host_port")));
}

base::Result<> NetworkDriver::unpublish(const std::string& network, const std::string& container) {
  const auto done = state_->call(network, {{"call", "unpublish"}, {"container", container}});
  if (!done && done.error().code() != ErrorCode::NotFound) return tl::unexpected(done.error());
  return {};
}

}  // namespace network
