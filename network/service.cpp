#include "network/service.h"

#include <algorithm>
#include <cerrno>
#include <list>
#include <map>

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <spdlog/spdlog.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/uv.h"
#include "dns/forwarder.h"
#include "dns/server.h"
#include "dns/zone.h"
#include "network/inside.h"
#include "network/message.h"
#include "network/namespace.h"
#include "network/publisher.h"
#include "network/state.h"
#include "network/uplink.h"

namespace network {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using nlohmann::json;

constexpr size_t control_clients_max = 64;
constexpr int inside_timeout_ms = 5'000;
constexpr int keeper_end_timeout_ms = 2'000;
constexpr int socket_timeout_ms = 1'000;
constexpr size_t names_per_container_max = 64;

struct Answer {
  json value = json::object();
  base::UniqueFd descriptor;
};

struct ControlClient {
  Service::State* service = nullptr;
  std::list<ControlClient>::iterator self;
  base::UniqueFd socket;
  base::UvHandle<uv_poll_t> poll;
  Message request;
};

base::Deadline inside_deadline() { return base::Deadline::in_ms(inside_timeout_ms); }

std::optional<std::string> optional_text(const json& call, const char* key) {
  const auto found = call.find(key);
  if (found == call.end() || !found->is_string()) return std::nullopt;
  return found->get<std::string>();
}

}  // namespace

struct Service::State {
  uv_loop_t* loop = nullptr;
  Folders folders;
  std::string programs;
  std::optional<WayOut> forced;
  base::UniqueFd lock;
  NetworkState network;
  Keeper keeper;
  base::UvHandle<uv_poll_t> keeper_watch;
  dns::Zone zone;
  std::unique_ptr<dns::Forwarder> forwarder;
  std::unique_ptr<dns::Server> server;
  std::unique_ptr<Uplink> uplink;
  std::unique_ptr<Publisher> publisher;
  base::UniqueFd listener;
  base::UvHandle<uv_poll_t> listener_poll;
  std::list<ControlClient> clients;
  bool ended = false;

  base::Result<> take_lock();
  base::Result<> restore_state();
  base::Result<> prepare_namespace();
  base::Result<> serve_dns();
  base::Result<> start_uplink(const std::string& log_file);
  void restore_ports();
  base::Result<> listen();
  base::Result<> watch_keeper();
  void revive();
  base::Result<> save() { return save_state(folders.state_file(), network); }
  base::Result<> save_less();

  TapSetup tap_of(const Lease& lease) const;
  void turn_names(const Lease& lease);
  base::Result<Lease*> lease_named(const json& call);

  base::Result<Answer> dispatch(const json& call);
  base::Result<Answer> describe() const;
  base::Result<Answer> lease(const json& call);
  base::Result<base::UniqueFd> tap_for(const Lease& lease);
  base::Result<Answer> release(const json& call);
  base::Result<Answer> announce(const json& call);
  base::Result<Answer> publish(const json& call);
  base::Result<Answer> unpublish(const json& call);
  base::Result<Answer> shutdown();

  void accept_client();
  void on_request(ControlClient& client);
};

namespace {

void on_control_listener(uv_poll_t* poll, int, int) {
  if (auto* state = static_cast<Service::State*>(poll->data)) state->accept_client();
}

void on_control_client(uv_poll_t* poll, int, int) {
  if (auto* client = static_cast<ControlClient*>(poll->data)) client->service->on_request(*client);
}

void on_keeper_end(uv_poll_t* poll, int, int) {
  if (auto* state = static_cast<Service::State*>(poll->data)) state->revive();
}

base::Result<base::UvHandle<uv_poll_t>> watch_readable(uv_loop_t* loop, int fd, void* data,
                                                       uv_poll_cb callback) {
  auto poll = TRY(base::make_handle<uv_poll_t>(
      [&](uv_poll_t* handle) { return uv_poll_init(loop, handle, fd); }));
  poll->data = data;
  uv_poll_start(poll.get(), UV_READABLE, callback);
  return poll;
}

}  // namespace

base::Result<> Service::State::take_lock() {
  TRY(base::make_directories(folders.run));
  lock = TRY(base::open_file(folders.lock(), O_RDWR | O_CREAT));
  // Freed by the kernel however we end; no pid file can be stale.
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return {};
  if (errno == EWOULDBLOCK)
    return fail(ErrorCode::Busy, "another process serves this network already");
  return fail_errno(errno, "lock");
}

base::Result<> Service::State::restore_state() {
  network = TRY(load_state(folders.state_file()));
  const std::string boot_id = TRY(base::identify_process(::getpid())).boot_id;
  const bool same_boot = network.boot_id == boot_id;
  network.boot_id = boot_id;
  if (same_boot && network.keeper) {
    auto found = open_keeper(*network.keeper);
    if (found) {
      keeper = std::move(*found);
      return {};
    }
    spdlog::warn("the namespace of network '{}' is gone; making a new one", network.name);
  }
  if (same_boot && network.uplink) stop_uplink(network.uplink->process);
  forget_running(network);
  keeper = TRY(make_keeper());
  network.keeper = keeper.process;
  auto saved = save();
  // A keeper that nobody remembers would live for ever.
  if (!saved) static_cast<void>(base::signal_process(keeper.pidfd.get(), SIGKILL));
  return saved;
}

base::Result<> Service::State::prepare_namespace() {
  const BridgeSetup setup{.subnet = network.subnet, .gateway = network.gateway()};
  const InsideResult done = TRY(run_inside(
      keeper, "set the bridge up",
      [&]() -> base::Result<InsideResult> {
        return InsideResult{.text = TRY(set_up_bridge(setup))};
      },
      inside_deadline()));
  if (!done.text.empty()) spdlog::warn("network '{}': {}", network.name, done.text);
  return {};
}

base::Result<> Service::State::serve_dns() {
  InsideResult sockets = TRY(run_inside(
      keeper, "open the DNS sockets",
      [&]() -> base::Result<InsideResult> {
        return InsideResult{.descriptors = TRY(open_dns_sockets(network.gateway()))};
      },
      inside_deadline()));
  if (sockets.descriptors.size() != 2) return fail(ErrorCode::Internal, "no DNS sockets");
  if (!network.internal)
    forwarder = std::make_unique<dns::Forwarder>(loop, dns::ForwarderOptions{});
  for (const Lease& lease : network.leases) turn_names(lease);
  server = TRY(dns::Server::create(
      loop, std::move(sockets.descriptors[0]), std::move(sockets.descriptors[1]), zone,
      forwarder.get(),
      {.answers = {
           .forward = !network.internal, .domain = network.domain, .subnet = network.subnet}}));
  return {};
}

base::Result<> Service::State::start_uplink(const std::string& log_file) {
  if (network.internal) return {};
  uplink = std::make_unique<Uplink>(
      loop, keeper,
      UplinkOptions{.programs = programs,
                    .forced = forced,
                    .log_file = log_file.empty() ? folders.run + "/out.log" : log_file + ".out"},
      [this](std::optional<UplinkState> process) {
        network.uplink = std::move(process);
        if (const auto saved = save(); !saved)
          spdlog::warn("cannot remember the way out, ignoring: {}", saved.error().to_string());
      });
  // Containers of a network without a way out still reach each other: not a reason to fail.
  if (const auto started = uplink->start(network.uplink); !started)
    spdlog::warn("network '{}' has no way out yet: {}", network.name, started.error().to_string());
  return {};
}

void Service::State::restore_ports() {
  publisher = std::make_unique<Publisher>(loop, [this](int type, size_t count) {
    return run_inside(
               keeper, "open sockets",
               [&]() -> base::Result<InsideResult> {
                 return InsideResult{.descriptors = TRY(open_sockets(type, count))};
               },
               base::Deadline::in_ms(socket_timeout_ms))
        .map([](InsideResult&& result) { return std::move(result.descriptors); });
  });
  for (Lease& lease : network.leases)
    std::erase_if(lease.ports, [&](const PublishedPort& published) {
      spec::Port port = published.port;
      port.published = published.host_port;
      port.published_last = 0;
      const auto restored = publisher->publish(lease.container, port, lease.address);
      if (!restored)
        spdlog::warn("port of '{}' is lost: {}", lease.container, restored.error().to_string());
      return !restored;
    });
}

base::Result<> Service::State::listen() {
  listener = TRY(base::listen_unix(folders.control()));
  TRY(base::set_nonblocking(listener.get(), true));
  listener_poll = TRY(watch_readable(loop, listener.get(), this, on_control_listener));
  return {};
}

base::Result<> Service::State::watch_keeper() {
  keeper_watch = TRY(watch_readable(loop, keeper.pidfd.get(), this, on_keeper_end));
  return {};
}

/// The keeper was killed; our descriptors still hold the namespace, so another one can enter it.
void Service::State::revive() {
  keeper_watch.reset();
  ::waitpid(static_cast<pid_t>(keeper.process.pid), nullptr, WNOHANG);
  auto revived = revive_keeper(keeper);
  if (!revived) {
    spdlog::error("network '{}' lost its keeper: {}", network.name, revived.error().to_string());
    return;
  }
  keeper = std::move(*revived);
  network.keeper = keeper.process;
  const auto saved = save();
  const auto watched = watch_keeper();
  if (!saved || !watched) spdlog::error("network '{}' cannot note its new keeper", network.name);
}

/// After something was taken away. On a full disk that must be possible: what is gone here is gone,
/// and the next change writes it down.
base::Result<> Service::State::save_less() {
  auto saved = save();
  if (saved || saved.error().code() != ErrorCode::NoSpace) return saved;
  spdlog::warn("network '{}' cannot be written down, going on: {}", network.name,
               saved.error().to_string());
  return {};
}

TapSetup Service::State::tap_of(const Lease& lease) const {
  return {.name = fmt::format("t{}", lease.address.value - network.subnet.first.value),
          .address = lease.address,
          .mac = lease.mac};
}

void Service::State::turn_names(const Lease& lease) {
  zone.remove(lease.address);
  if (!lease.announced) return;
  for (const std::string& name : lease.names)
    if (!zone.add(name, lease.address))
      spdlog::warn("'{}' of container '{}' cannot be a DNS name, ignoring", name, lease.container);
}

base::Result<Lease*> Service::State::lease_named(const json& call) {
  const std::string container = TRY(base::json_string(call, "container"));
  if (Lease* found = network.find(container)) return found;
  return fail(ErrorCode::NotFound, "container '{}' has no address on network '{}'", container,
              network.name);
}

base::Result<Answer> Service::State::dispatch(const json& call) {
  const std::string name = base::json_string_or(call, "call", "");
  if (name == "describe") return describe();
  if (name == "lease") return lease(call);
  if (name == "release") return release(call);
  if (name == "announce") return announce(call);
  if (name == "publish") return publish(call);
  if (name == "unpublish") return unpublish(call);
  if (name == "shutdown") return shutdown();
  return fail(ErrorCode::InvalidArgument, "container-network knows no call '{}'", name);
}

base::Result<Answer> Service::State::describe() const {
  return Answer{.value = {{"name", network.name},
                          {"subnet", dns::format_ipv4_net(network.subnet)},
                          {"gateway", dns::format_ipv4(network.gateway())},
                          {"internal", network.internal},
                          {"pid", ::getpid()},
                          {"keeper", keeper.process.pid},
                          {"uplink", network.uplink ? network.uplink->process.pid : 0},
                          {"names", zone.size()},
                          {"connections", publisher->connections()}}};
}

base::Result<base::UniqueFd> Service::State::tap_for(const Lease& lease) {
  auto made = run_inside(
      keeper, "make the TAP",
      [&]() -> base::Result<InsideResult> {
        InsideResult result;
        result.descriptors.push_back(TRY(make_tap(tap_of(lease))));
        return result;
      },
      inside_deadline());
  if (!made) return tl::unexpected(std::move(made.error()));
  if (made->descriptors.size() != 1) return fail(ErrorCode::Internal, "the TAP got lost");
  return std::move(made->descriptors.front());
}

base::Result<Answer> Service::State::lease(const json& call) {
  reconciler::LeaseRequest request;
  request.network = network.name;
  request.container = TRY(base::json_string(call, "container"));
  request.ipv4_address = optional_text(call, "ipv4_address");
  request.mac_address = optional_text(call, "mac_address");
  for (const json& name : call.value("names", json::array()))
    if (name.is_string()) request.names.push_back(name.get<std::string>());
  if (request.container.empty() || request.names.size() > names_per_container_max)
    return fail(ErrorCode::InvalidArgument, "a container needs an id and at most {} names",
                names_per_container_max);
  const NetworkState before = network;
  Lease& lease = *TRY(reserve(network, request));
  auto tap = tap_for(lease);
  const bool held = !tap && tap.error().code() == ErrorCode::Busy;
  if (tap) lease.announced = false;  // A VM that is yet to start answers to nothing.
  auto saved = !tap && !held ? base::Result<>(tl::unexpected(tap.error())) : save();
  if (!saved) {
    network = before;
    return tl::unexpected(std::move(saved.error()));
  }
  turn_names(lease);
  return Answer{.value = {{"address", fmt::format("{}/{}", dns::format_ipv4(lease.address),
                                                  network.subnet.prefix)},
                          {"gateway", network.internal ? "" : dns::format_ipv4(network.gateway())},
                          {"dns_server", dns::format_ipv4(network.gateway())},
                          {"mac", lease.mac},
                          {"mtu", guest_mtu}},
                .descriptor = tap ? std::move(*tap) : base::UniqueFd()};
}

base::Result<Answer> Service::State::release(const json& call) {
  const std::string container = TRY(base::json_string(call, "container"));
  Lease* lease = network.find(container);
  if (!lease) return Answer{};
  publisher->unpublish(container);
  zone.remove(lease->address);
  const auto removed = run_inside(
      keeper, "take the TAP away",
      [&]() -> base::Result<InsideResult> {
        TRY(remove_tap(tap_of(*lease)));
        return InsideResult{};
      },
      inside_deadline());
  if (!removed) spdlog::warn("{}, ignoring", removed.error().to_string());
  std::erase_if(network.leases, [&](const Lease& held) { return held.container == container; });
  TRY(save_less());
  return Answer{};
}

base::Result<Answer> Service::State::announce(const json& call) {
  const bool on = base::json_bool_or(call, "on", true);
  Lease& lease = *TRY(lease_named(call));
  if (lease.announced == on) return Answer{};
  lease.announced = on;
  turn_names(lease);
  TRY(on ? save() : save_less());
  return Answer{};
}

base::Result<Answer> Service::State::publish(const json& call) {
  Lease& lease = *TRY(lease_named(call));
  PublishedPort wanted = port_from_json(call.value("port", json::object()));
  if (wanted.port.target == 0)
    return fail(ErrorCode::InvalidArgument, "a published port needs the container's port");
  for (const PublishedPort& known : lease.ports)
    if (known.port == wanted.port) return Answer{.value = {{"host_port", known.host_port}}};
  wanted.host_port = TRY(publisher->publish(lease.container, wanted.port, lease.address));
  lease.ports.push_back(wanted);
  TRY(save());
  return Answer{.value = {{"host_port", wanted.host_port}}};
}

base::Result<Answer> Service::State::unpublish(const json& call) {
  const std::string container = TRY(base::json_string(call, "container"));
  Lease* lease = network.find(container);
  if (!lease || lease->ports.empty()) return Answer{};
  publisher->unpublish(container);
  lease->ports.clear();
  TRY(save_less());
  return Answer{};
}

base::Result<Answer> Service::State::shutdown() {
  if (!network.leases.empty())
    return fail(ErrorCode::Busy, "network '{}' is used by container '{}'{}; remove it first",
                network.name, network.leases.front().container,
                network.leases.size() > 1 ? " and others" : "");
  ended = true;
  uv_stop(loop);
  return Answer{};
}

void Service::State::accept_client() {
  base::UniqueFd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) return;
  ucred peer{};
  socklen_t length = sizeof peer;
  const bool known = ::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
                     (peer.uid == ::geteuid() || peer.uid == 0);
  if (!known || clients.size() >= control_clients_max) return;
  ControlClient& client = clients.emplace_back();
  client.service = this;
  client.self = std::prev(clients.end());
  client.socket = std::move(socket);
  auto poll = watch_readable(loop, client.socket.get(), &client, on_control_client);
  if (poll)
    client.poll = std::move(*poll);
  else
    clients.erase(client.self);
}

void Service::State::on_request(ControlClient& client) {
  const auto complete = receive_some(client.socket.get(), client.request);
  if (complete && !*complete) return;
  if (!complete) {
    clients.erase(client.self);
    return;
  }
  const auto call = base::parse_json(client.request.text);
  auto answer = call && call->is_object()
                    ? dispatch(*call)
                    : base::Result<Answer>(fail(ErrorCode::InvalidArgument, "not a JSON object"));
  client.request = {};
  std::vector<int> descriptors;
  if (answer && answer->descriptor) descriptors.push_back(answer->descriptor.get());
  const std::string line =
      answer ? encode_success_json(base::dump_json(answer->value)) : encode_failure(answer.error());
  if (!send_message(client.socket.get(), line, descriptors)) clients.erase(client.self);
}

Service::Service(std::unique_ptr<State> state) : state_(std::move(state)) {}

Service::~Service() {
  if (!state_->ended) return;
  NetworkState& network = state_->network;
  if (network.uplink) stop_uplink(network.uplink->process);
  const Keeper& keeper = state_->keeper;
  static_cast<void>(base::signal_process(keeper.pidfd.get(), SIGKILL));
  static_cast<void>(base::await_process(keeper.pidfd.get(), keeper.process.pid,
                                        base::Deadline::in_ms(keeper_end_timeout_ms)));
  ::unlink(state_->folders.control().c_str());
  // Otherwise whoever starts it again would warn of a namespace that got lost.
  forget_running(network);
  if (const auto saved = state_->save(); !saved)
    spdlog::warn("network '{}' ended, and cannot say so: {}", network.name,
                 saved.error().to_string());
}

bool Service::ended() const { return state_->ended; }

base::Result<std::unique_ptr<Service>> Service::create(uv_loop_t* loop,
                                                       const ServiceOptions& options) {
  auto state = std::make_unique<State>();
  state->loop = loop;
  state->folders = options.folders;
  state->programs = options.programs;
  state->forced = options.way_out;
  TRY(state->take_lock());
  TRY_DURING(state->restore_state(), "take network over");
  TRY(state->prepare_namespace());
  TRY(state->serve_dns());
  state->restore_ports();
  TRY(state->start_uplink(options.log_file));
  TRY(state->watch_keeper());
  TRY(state->save());
  TRY(state->listen());
  return std::unique_ptr<Service>(new Service(std::move(state)));
}

}  // namespace network
