#include "reconciler/operations.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "base/file.h"
#include "base/overloaded.h"
#include "base/text.h"
#include "base/trace.h"
#include "reconciler/policy.h"

namespace reconciler {

using base::ErrorCode;
using planner::ContainerRecord;
using planner::HealthState;
using planner::NetworkRecord;
using planner::Phase;
using planner::VolumeRecord;
using planner::Wanted;

/// Writes records and remembers what was written.
class Operations::Recorder {
 public:
  Recorder(SerialStore& store, Outcome& outcome) : store_(store), outcome_(outcome) {}

  base::Result<> put(const ContainerRecord& record) {
    return keep(record, [&](StorePort& store) { return store.put_container(record); });
  }
  base::Result<> put(const NetworkRecord& record) {
    return keep(record, [&](StorePort& store) { return store.put_network(record); });
  }
  base::Result<> put(const VolumeRecord& record) {
    return keep(record, [&](StorePort& store) { return store.put_volume(record); });
  }
  base::Result<> erase_container(const std::string& id) {
    return keep(ErasedContainer{id}, [&](StorePort& store) { return store.erase_container(id); });
  }
  base::Result<> erase_network(const std::string& name) {
    return keep(ErasedNetwork{name}, [&](StorePort& store) { return store.erase_network(name); });
  }
  base::Result<> erase_volume(const std::string& name) {
    return keep(ErasedVolume{name}, [&](StorePort& store) { return store.erase_volume(name); });
  }

  /// For facts that are true whether or not they can be written, as on a full disk: the loop gets
  /// them now, and writes them when it can.
  void put_fact(const ContainerRecord& record) {
    if (!put(record)) {
      outcome_.changes.emplace_back(record);
      outcome_.dirty = true;
    }
  }

 private:
  template <class Change, class Call>
  base::Result<> keep(Change change, const Call& call) {
    TRY(store_.with(call));
    outcome_.changes.emplace_back(std::move(change));
    return {};
  }

  SerialStore& store_;
  Outcome& outcome_;
};

namespace {

uint64_t hash_of(const std::string& text) {  // FNV-1a: a name, not a secret
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char letter : text)
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3u;
  return hash;
}

/// The same container and target always give the same volume, so a repeated or replacing creation
/// finds it again.
std::string anonymous_volume_name(const std::string& id, const std::string& target) {
  return fmt::format("{}-{:016x}", id, hash_of(target));
}

std::string without_mask(const std::string& cidr) { return cidr.substr(0, cidr.find('/')); }

bool is_empty_folder(const std::string& path) {
  std::error_code error;
  const bool empty = std::filesystem::is_empty(path, error);
  return error || empty;
}

bool has_healthcheck(const spec::Service& service, const ImageRuntimeConfig& image) {
  if (service.healthcheck && service.healthcheck->disable) return false;
  if (service.healthcheck && !service.healthcheck->test.empty()) return true;
  return !image.healthcheck.disable && !image.healthcheck.test.empty();
}

/// Mounts with no source, and what the image declares and no mount covers.
std::vector<std::string> anonymous_targets(const spec::Service& service,
                                           const ImageRuntimeConfig& image) {
  std::set<std::string> covered;
  std::vector<std::string> targets;
  for (const spec::Mount& mount : service.volumes) {
    covered.insert(mount.target);
    if (mount.type == spec::MountType::Volume && mount.source.empty())
      targets.push_back(mount.target);
  }
  for (const std::string& target : image.volumes)
    if (covered.insert(target).second) targets.push_back(target);
  return targets;
}

base::Result<ShareSource> bind_share(const ContainerRecord& record, const spec::Mount& mount) {
  if (!base::path_exists(mount.source)) {
    if (!mount.create_host_path)
      return base::fail(ErrorCode::NotFound,
                        "bind mount source '{}' of container '{}' does not exist; create it, or "
                        "set create_host_path",
                        mount.source, record.id);
    TRY_DURING(base::make_directories(mount.source), "make the bind mount source of '{}'",
               record.id);
  }
  return ShareSource{mount.source, mount.target, mount.read_only, false};
}

/// `8080`, or `8000-8010` for a choice.
std::string host_port_text(const spec::Port& port) {
  return port.published_last == 0 ? fmt::format("{}", port.published)
                                  : fmt::format("{}-{}", port.published, port.published_last);
}

base::Error port_in_use(const spec::Port& port, const base::Error& cause) {
  if (port.published_last != 0) return cause;  // it says all there is to say
  return base::Error(ErrorCode::Busy,
                     fmt::format("port {} on {} is already in use ({}); stop what uses it, or "
                                 "publish another port",
                                 port.published, port.host_ip, cause.to_string()));
}

/// What `before` held of this port that still answers to it, where the host's number is our choice.
std::optional<uint16_t> held_number(const spec::Port& port,
                                    const std::vector<planner::PublishedPort>& before) {
  if (port.published != 0 && port.published_last == 0) return std::nullopt;
  for (const planner::PublishedPort& held : before) {
    const bool is_chosen = port.published == 0 || (held.published >= port.published &&
                                                   held.published <= port.published_last);
    if (held.host_ip == port.host_ip && held.target == port.target &&
        held.protocol == port.protocol && is_chosen)
      return held.published;
  }
  return std::nullopt;
}

}  // namespace

std::vector<std::string> networks_in_order(const spec::Service& service) {
  std::vector<std::string> names;
  for (const auto& [name, attachment] : service.networks) names.push_back(name);
  std::stable_sort(names.begin(), names.end(), [&](const auto& a, const auto& b) {
    return service.networks.at(a).priority > service.networks.at(b).priority;
  });
  return names;
}

std::string hosts_text(const ContainerRecord& record, const std::vector<NetworkLease>& leases) {
  const spec::Service& service = record.applied;
  std::string text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
  const std::string hostname = service.hostname.value_or(record.id);
  for (const NetworkLease& lease : leases) {
    text += without_mask(lease.address);
    if (service.domainname) text += fmt::format(" {}.{}", hostname, *service.domainname);
    text += ' ' + hostname + '\n';
  }
  if (leases.empty()) text += "127.0.1.1 " + hostname + '\n';
  for (const std::string& entry : service.extra_hosts) {
    const size_t equals = entry.find('=');
    if (equals == std::string::npos) continue;
    std::string address = entry.substr(equals + 1);
    if (address == "host-gateway")
      address = leases.empty() ? "127.0.0.1"
                               : (leases.front().gateway.empty() ? leases.front().dns_server
                                                                 : leases.front().gateway);
    text += address + ' ' + entry.substr(0, equals) + '\n';
  }
  return text;
}

/// Containers of a stack must find each other by name, so our server stays first there; a single
/// container gets exactly the servers that were asked for.
std::string resolv_conf_text(const ContainerRecord& record,
                             const std::vector<NetworkLease>& leases) {
  const spec::Service& service = record.applied;
  std::string text;
  const bool ours = service.dns.empty() || !record.project.empty();
  if (ours && !leases.empty()) text += "nameserver " + leases.front().dns_server + '\n';
  for (const std::string& server : service.dns) text += "nameserver " + server + '\n';
  std::vector<std::string> search = service.dns_search;
  if (search.empty() && service.domainname) search.push_back(*service.domainname);
  if (!search.empty()) text += "search " + base::join(search, " ") + '\n';
  if (!service.dns_options.empty())
    text += "options " + base::join(service.dns_options, " ") + '\n';
  return text;
}

Outcome Operations::run(const planner::Operation& operation, const View& view) {
  Outcome outcome;
  Recorder recorder(store_, outcome);
  outcome.result = std::visit(
      base::overloaded{
          [&](const planner::CreateNetwork& op) { return create_network(op, view, recorder); },
          [&](const planner::RemoveNetwork& op) { return remove_network(op, view, recorder); },
          [&](const planner::CreateVolume& op) { return create_volume(op, view, recorder); },
          [&](const planner::RemoveVolume& op) { return remove_volume(op, view, recorder); },
          [&](const planner::CreateContainer& op) { return create(op, view, recorder); },
          [&](const planner::UpdateContainer& op) { return update(op, view, recorder); },
          [&](const planner::StartContainer& op) { return start(op, view, recorder); },
          [&](const planner::StopContainer& op) { return stop(op, view, recorder); },
          [&](const planner::KillContainer& op) { return kill(op, view, recorder); },
          [&](const planner::RemoveContainer& op) { return remove(op, view, recorder); },
          [&](const planner::AwaitContainer&) -> base::Result<> {
            return base::fail(ErrorCode::Internal, "waiting is the loop's work, not a thread's");
          },
      },
      operation);
  return outcome;
}

// ---- networks and volumes
// ------------------------------------------------------------------------

base::Result<> Operations::create_network(const planner::CreateNetwork& op, const View& view,
                                          Recorder& out) {
  NetworkRecord record = op.record;
  const bool is_new = !view.network;
  NetworkSetup setup;
  setup.name = record.name;
  setup.internal = record.applied.internal;
  setup.subnet = record.applied.subnet;
  setup.gateway = record.applied.gateway;
  // Made again, it keeps the addresses that its containers still carry.
  if (!setup.subnet && !record.subnet.empty()) setup.subnet = record.subnet;
  if (!record.gateway.empty()) setup.gateway = record.gateway;
  // A network made again has forgotten who was on it. Until everybody is back on it the record
  // says that it is not alive, so that a crash in between does not end the repair.
  const bool is_repair = view.network && !view.network->alive;
  record.alive = !is_repair;
  if (is_repair) TRY(out.put(record));
  const NetworkObservation made =
      TRY_DURING(ports_.network.create(setup), "create network '{}'", record.name);
  record.subnet = made.subnet;
  record.gateway = made.gateway;
  if (record.created_wall_ns == 0)
    record.created_wall_ns = is_new ? ports_.workers.wall_ns() : view.network->created_wall_ns;
  auto written = out.put(record);
  if (!written && is_new) (void)ports_.network.remove(record.name);
  return written;
}

Outcome Operations::note_network_alive(const View& view) {
  Outcome outcome;
  if (!view.network) return outcome;
  NetworkRecord record = *view.network;
  record.alive = true;
  outcome.result = Recorder(store_, outcome).put(record);
  return outcome;
}

/// A VM that no record wants to run: what a failed start could not take down itself.
Outcome Operations::end_stray(const View& view) {
  Outcome outcome;
  if (!view.container || view.container->phase == Phase::Running ||
      view.container->phase == Phase::Unknown)
    return outcome;
  const auto stopped = ports_.runtime.stop(view.container->id, SIGKILL, 0);
  outcome.result = stopped ? release(*view.container)
                           : base::Result<>(tl::unexpected<base::Error>(stopped.error()));
  return outcome;
}

base::Result<> Operations::remove_network(const planner::RemoveNetwork& op, const View& view,
                                          Recorder& out) {
  TRY_DURING(ports_.network.remove(op.name), "remove network '{}'", op.name);
  if (!view.network) return {};
  return out.erase_network(op.name);
}

/// The record comes first and goes last, so that no folder with data is ever without one.
base::Result<> Operations::create_volume(const planner::CreateVolume& op, const View& view,
                                         Recorder& out) {
  VolumeRecord record = view.volume.value_or(op.record);
  if (record.created_wall_ns == 0) record.created_wall_ns = ports_.workers.wall_ns();
  record.present = false;
  if (!view.volume) TRY(out.put(record));
  const auto made = ports_.runtime.create_volume(record.name);
  if (!made) {
    if (!view.volume) (void)out.erase_volume(record.name);
    return tl::unexpected<base::Error>(
        base::Error(made.error()).during(fmt::format("create volume '{}'", record.name)));
  }
  record.present = true;
  return out.put(record);
}

base::Result<> Operations::remove_volume(const planner::RemoveVolume& op, const View& view,
                                         Recorder& out) {
  TRY_DURING(ports_.runtime.remove_volume(op.name), "remove volume '{}'", op.name);
  if (!view.volume) return {};
  return out.erase_volume(op.name);
}

// ---- creating
// ------------------------------------------------------------------------------------

base::Result<ImageRuntimeConfig> Operations::resolve_image(const ContainerRecord& record) {
  const std::string platform = record.applied.platform.value_or("");
  if (record.image_digest.empty()) return ports_.image.resolve(record.applied.image, platform);
  const auto current = ports_.image.digest_of(record.applied.image);
  if (current && *current == record.image_digest)
    return ports_.image.resolve(record.applied.image, platform);
  auto by_digest = ports_.image.resolve(record.image_digest, platform);
  if (by_digest || by_digest.error().code() != ErrorCode::NotFound ||
      ports_.image.digest_of(record.image_digest))
    return by_digest;
  return base::fail(ErrorCode::NotFound,
                    "image '{}' is not what container '{}' was made from any more ({} is gone); "
                    "recreate the container, or load that image again",
                    record.applied.image, record.id, record.image_digest);
}

base::Result<> Operations::make_anonymous_volumes(ContainerRecord& record,
                                                  const ImageRuntimeConfig& image, const View& view,
                                                  std::vector<std::string>& made, Recorder& out) {
  for (const std::string& target : anonymous_targets(record.applied, image)) {
    VolumeRecord volume;
    volume.name = anonymous_volume_name(record.id, target);
    auto& names = record.anonymous_volumes;
    if (std::find(names.begin(), names.end(), volume.name) == names.end())
      names.push_back(volume.name);
    const auto known = view.anonymous_volumes.find(volume.name);
    if (known != view.anonymous_volumes.end() && known->second.present) continue;
    volume.project = record.project;
    volume.key = volume.name;
    volume.applied.name = volume.name;
    volume.anonymous = true;
    View inner;
    if (known != view.anonymous_volumes.end()) inner.volume = known->second;
    TRY(create_volume(planner::CreateVolume{volume}, inner, out));
    if (known == view.anonymous_volumes.end()) made.push_back(volume.name);
  }
  return {};
}

base::Result<std::vector<ShareSource>> Operations::shares_of(const ContainerRecord& record,
                                                             const ImageRuntimeConfig& image) {
  std::vector<ShareSource> shares;
  const auto share_volume = [&](const std::string& name, const std::string& target, bool read_only,
                                bool no_copy) {
    const std::string path = ports_.runtime.volume_path(name);
    shares.push_back({path, target, read_only, !no_copy && is_empty_folder(path)});
  };
  std::set<std::string> covered;
  for (const spec::Mount& mount : record.applied.volumes) {
    covered.insert(mount.target);
    switch (mount.type) {
      case spec::MountType::Bind: shares.push_back(TRY(bind_share(record, mount))); break;
      case spec::MountType::Volume:
        share_volume(
            mount.source.empty() ? anonymous_volume_name(record.id, mount.target) : mount.source,
            mount.target, mount.read_only, mount.no_copy);
        break;
      case spec::MountType::Tmpfs: break;  // made in the guest, from the service
    }
  }
  for (const std::string& target : image.volumes)
    if (covered.insert(target).second)
      share_volume(anonymous_volume_name(record.id, target), target, false, false);
  return shares;
}

base::Result<> Operations::create(const planner::CreateContainer& op, const View& view,
                                  Recorder& out) {
  ContainerRecord record = op.record;
  if (view.container && view.container->generation == record.generation &&
      (view.container->phase == Phase::Running || view.container->phase == Phase::Exited))
    return {};  // an earlier attempt came further than this step
  for (const auto& [network, attachment] : record.applied.networks)
    if (std::find(view.networks.begin(), view.networks.end(), network) == view.networks.end())
      return base::fail(ErrorCode::NotFound,
                        "create '{}': network '{}' does not exist any more; plan again", record.id,
                        network);
  base::TraceScope resolving(record.id, "daemon", "create: the image is looked up");
  const ImageRuntimeConfig image =
      TRY_DURING(resolve_image(record), "create container '{}'", record.id);
  resolving.close();
  if (record.image_digest.empty())
    record.image_digest = TRY(ports_.image.digest_of(record.applied.image));
  std::vector<std::string> made_volumes;
  const auto attempt = [&]() -> base::Result<> {
    TRY(make_anonymous_volumes(record, image, view, made_volumes, out));
    ContainerSetup setup{record.id, record.generation, record.applied, image, {}};
    setup.shares = TRY(shares_of(record, image));
    base::TraceScope making(record.id, "daemon", "create: its disk");
    TRY(ports_.runtime.create(setup));
    making.close();
    record.phase = Phase::Created;
    record.created_wall_ns = ports_.workers.wall_ns();
    note_size(record);
    const base::TraceScope writing(record.id, "daemon", "create: its record");
    return out.put(record);
  };
  auto result = attempt();
  if (result) return {};
  // Nothing may stay that no record names.
  if (!view.container) (void)ports_.runtime.remove(record.id);
  for (const std::string& volume : made_volumes)
    if (ports_.runtime.remove_volume(volume)) (void)out.erase_volume(volume);
  return tl::unexpected<base::Error>(
      std::move(result.error()).during(fmt::format("create container '{}'", record.id)));
}

// ---- starting
// ------------------------------------------------------------------------------------

base::Result<NetworkLease> Operations::lease(const ContainerRecord& record,
                                             const std::string& network) {
  const spec::Attachment& attachment = record.applied.networks.at(network);
  LeaseRequest request;
  request.network = network;
  request.container = record.id;
  request.names.push_back(record.id);
  if (!record.service.empty() && record.service != record.id)
    request.names.push_back(record.service);
  for (const std::string& alias : attachment.aliases)
    if (std::find(request.names.begin(), request.names.end(), alias) == request.names.end())
      request.names.push_back(alias);
  request.ipv4_address = attachment.ipv4_address;
  request.mac_address = attachment.mac_address;
  return ports_.network.lease(request);
}

/// The number that was ours is taken again if it is still free, else another of the choice.
base::Result<uint16_t> Operations::publish_one(PublishRequest request,
                                               std::optional<uint16_t> held) {
  if (held) {
    PublishRequest again = request;
    again.port.published = *held;
    again.port.published_last = 0;
    auto number = ports_.network.publish(again);
    if (number || number.error().code() != ErrorCode::Busy) return number;
  }
  return ports_.network.publish(request);
}

base::Result<std::vector<planner::PublishedPort>> Operations::publish(const ContainerRecord& record,
                                                                      const std::string& network,
                                                                      const std::string& address) {
  std::vector<planner::PublishedPort> held = record.published;
  std::vector<planner::PublishedPort> published;
  for (const spec::Port& port : record.applied.ports) {
    const auto before = held_number(port, held);
    std::erase_if(held, [&](const planner::PublishedPort& one) {
      return before && one.published == *before && one.host_ip == port.host_ip &&
             one.protocol == port.protocol;
    });
    auto number = publish_one({record.id, network, without_mask(address), port}, before);
    if (!number) {
      (void)ports_.network.unpublish(network, record.id);
      if (number.error().code() == ErrorCode::Busy)
        return tl::unexpected<base::Error>(port_in_use(port, number.error()));
      return tl::unexpected<base::Error>(
          std::move(number.error())
              .during(fmt::format("publish port {} on {}", host_port_text(port), port.host_ip)));
    }
    published.push_back({port.host_ip, *number, port.target, port.protocol});
  }
  return published;
}

base::Result<> Operations::announce(const ContainerRecord& record, bool on) {
  for (const auto& [network, attachment] : record.applied.networks)
    TRY_DURING(ports_.network.announce(network, record.id, on), "announce '{}'", record.id);
  return {};
}

/// Tries all, returns the first failure.
base::Result<> Operations::release(const ContainerRecord& record) {
  base::Result<> first;
  for (const auto& [network, attachment] : record.applied.networks) {
    auto released = ports_.network.release(network, record.id);
    if (!released && first)
      first = tl::unexpected<base::Error>(
          std::move(released.error())
              .during(fmt::format("release '{}' from network '{}'", record.id, network)));
  }
  return first;
}

void Operations::note_size(ContainerRecord& record) const {
  const MachineSize size = ports_.runtime.size_of(record.applied);
  record.machine_cpus = size.cpus;
  record.machine_memory_bytes = size.memory_bytes;
}

/// Ports before the process: one that finds its port busy must not have done anything yet.
base::Result<> Operations::bring_up(ContainerRecord& record, const ImageRuntimeConfig& image) {
  StartRequest request;
  request.setup = {record.id, record.generation, record.applied, image, {}};
  request.setup.shares = TRY(shares_of(record, image));
  request.setup.keep_disk = !record.auto_remove;
  record.places.clear();
  record.published.clear();
  record.paused_reason.clear();
  for (const std::string& network : networks_in_order(record.applied)) {
    const base::TraceScope joining(record.id, "daemon", "start: its place on a network");
    NetworkLease lease = TRY_DURING(this->lease(record, network), "join network '{}'", network);
    record.places.push_back({network, lease.address, lease.gateway, lease.mac});
    request.leases.push_back(std::move(lease));
  }
  note_size(record);
  request.hosts = hosts_text(record, request.leases);
  request.resolv_conf = resolv_conf_text(record, request.leases);
  if (!record.applied.ports.empty() && !record.places.empty()) {
    const auto& place = record.places.front();
    // An attempt that was interrupted may have left some, with numbers nobody wrote down.
    TRY(ports_.network.unpublish(place.network, record.id));
    record.published = TRY(publish(record, place.network, place.address));
  }
  record.started_wall_ns = ports_.workers.wall_ns();
  TRY(ports_.runtime.start(request));
  const bool checked = has_healthcheck(record.applied, image);
  record.health = checked ? HealthState::Starting : HealthState::None;
  const base::TraceScope announcing(record.id, "daemon", "start: its names are announced");
  if (!checked) TRY(announce(record, true));
  return {};
}

/// After a failed start nothing may run, listen or answer.
base::Error Operations::taken_down(const ContainerRecord& record, base::Error error) {
  if (const auto stopped = ports_.runtime.stop(record.id, SIGKILL, 0); !stopped)
    return base::Error(error.code(), fmt::format("{}; taking it down failed too: {}",
                                                 error.to_string(), stopped.error().to_string()));
  if (const auto released = release(record); !released)
    return base::Error(error.code(),
                       fmt::format("{}; {}", error.to_string(), released.error().to_string()));
  return error;
}

base::Result<> Operations::start(const planner::StartContainer& op, const View& view,
                                 Recorder& out) {
  if (!view.container)
    return base::fail(ErrorCode::NotFound, "cannot start '{}': it does not exist", op.id);
  ContainerRecord record = *view.container;
  if (record.phase == Phase::Running) {  // only the wish is new
    record.wanted = Wanted::Running;
    return out.put(record);
  }
  const auto attempt = [&]() -> base::Result<> {
    if (record.phase == Phase::Missing)
      return base::fail(ErrorCode::InvalidState,
                        "its disk is missing; remove it and create it again");
    base::TraceScope resolving(record.id, "daemon", "start: the image is looked up");
    const ImageRuntimeConfig image = TRY(resolve_image(record));
    resolving.close();
    TRY(bring_up(record, image));
    record.phase = Phase::Running;
    record.wanted = Wanted::Running;
    record.exit_code = 0;
    record.out_of_memory = false;
    record.exit_reason.clear();
    record.finished_wall_ns = 0;
    const base::TraceScope writing(record.id, "daemon", "start: its record");
    return out.put(record);
  };
  auto result = attempt();
  if (result) return {};
  base::Error error = taken_down(record, std::move(result.error()));
  if (view.container->phase == Phase::Unknown) {
    ContainerRecord down = *view.container;  // it was up before, and is down now
    down.phase = Phase::Exited;
    down.exit_code = 255;
    down.exit_reason = "taken down after a failed start";
    down.health = HealthState::None;
    down.places.clear();
    down.published.clear();
    down.paused_reason.clear();
    down.finished_wall_ns = ports_.workers.wall_ns();
    out.put_fact(down);
  }
  return tl::unexpected<base::Error>(
      std::move(error).during(fmt::format("start container '{}'", op.id)));
}

// ---- changing, stopping, removing
// ----------------------------------------------------------------

base::Result<> Operations::update(const planner::UpdateContainer& op, const View& view,
                                  Recorder& out) {
  if (!view.container)
    return base::fail(ErrorCode::NotFound, "cannot update '{}': it does not exist", op.record.id);
  ContainerRecord record = *view.container;
  const spec::Service before = record.applied;
  record.applied = op.record.applied;
  record.generation = op.record.generation;
  const bool ports_changed = before.ports != record.applied.ports;
  if (!ports_changed || record.phase != Phase::Running || record.places.empty())
    return out.put(record);

  const planner::NetworkPlace& place = record.places.front();
  TRY(ports_.network.unpublish(place.network, record.id));
  auto published = publish(record, place.network, place.address);
  if (published) {
    record.published = std::move(*published);
    return out.put(record);
  }
  ContainerRecord restored = *view.container;
  if (auto old_ports = publish(restored, place.network, place.address))
    restored.published = std::move(*old_ports);
  else
    restored.published.clear();
  out.put_fact(restored);
  return tl::unexpected<base::Error>(
      std::move(published.error()).during(fmt::format("update container '{}'", record.id)));
}

int Operations::stop_signal_of(const ContainerRecord& record) {
  if (record.applied.stop_signal)
    return parse_signal(*record.applied.stop_signal).value_or(SIGTERM);
  // An image that is gone cannot tell its signal; the usual one is better than no stop.
  const auto image = resolve_image(record);
  if (!image || image->stop_signal.empty()) return SIGTERM;
  return parse_signal(image->stop_signal).value_or(SIGTERM);
}

bool is_up(const ContainerRecord& record) {
  return record.phase == Phase::Running || record.phase == Phase::Unknown;
}

int64_t grace_ms_of(const planner::StopContainer& op, const ContainerRecord& record) {
  constexpr int64_t grace_default_ms = 10'000;
  return op.grace_ms.value_or(record.applied.stop_grace_period_ns
                                  ? *record.applied.stop_grace_period_ns / 1'000'000
                                  : grace_default_ms);
}

base::Result<int> Operations::signal_of(const planner::StopContainer& op,
                                        const ContainerRecord& record) {
  if (!op.signal) return is_up(record) ? stop_signal_of(record) : SIGTERM;
  const auto parsed = parse_signal(*op.signal);
  if (!parsed)
    return base::fail(ErrorCode::InvalidArgument, "cannot stop '{}': no such signal: '{}'", op.id,
                      *op.signal);
  return *parsed;
}

/// Before the effect: a crash must not bring it back.
void Operations::want_stopped(ContainerRecord& record, Recorder& out) {
  if (record.wanted == Wanted::Stopped) return;
  record.wanted = Wanted::Stopped;
  out.put_fact(record);
}

Outcome Operations::ask_to_stop(const planner::StopContainer& op, const View& view) {
  Outcome outcome;
  if (!view.container || !is_up(*view.container)) return outcome;
  ContainerRecord record = *view.container;
  const auto signal = signal_of(op, record);
  if (!signal) {
    outcome.result = tl::unexpected(signal.error());
    return outcome;
  }
  Recorder recorder(store_, outcome);
  want_stopped(record, recorder);
  if (view.is_going) ports_.runtime.give_up_disk(op.id);
  outcome.result = ports_.runtime.begin_stop(op.id, *signal);
  return outcome;
}

base::Result<> Operations::stop(const planner::StopContainer& op, const View& view, Recorder& out) {
  if (!view.container) return {};
  ContainerRecord record = *view.container;
  const int signal = TRY(signal_of(op, record));
  const bool was_up = is_up(record);
  want_stopped(record, out);
  if (view.is_going) ports_.runtime.give_up_disk(op.id);
  const ExitStatus exit = TRY_DURING(ports_.runtime.stop(op.id, signal, grace_ms_of(op, record)),
                                     "stop container '{}'", op.id);
  TRY(release(record));
  if (!was_up) return {};
  record.phase = Phase::Exited;
  record.health = HealthState::None;
  record.exit_code = exit.code;
  record.out_of_memory = exit.out_of_memory;
  record.exit_reason = exit.reason;
  record.finished_wall_ns = ports_.workers.wall_ns();
  record.places.clear();
  record.published.clear();
  record.paused_reason.clear();
  out.put_fact(record);
  return {};
}

base::Result<> Operations::kill(const planner::KillContainer& op, const View& view, Recorder& out) {
  if (!view.container)
    return base::fail(ErrorCode::NotFound, "cannot kill '{}': it does not exist", op.id);
  const auto signal = parse_signal(op.signal);
  if (!signal)
    return base::fail(ErrorCode::InvalidArgument, "cannot kill '{}': no such signal: '{}'", op.id,
                      op.signal);
  ContainerRecord record = *view.container;
  if (record.phase != Phase::Running && record.phase != Phase::Unknown)
    return base::fail(ErrorCode::InvalidState, "cannot kill '{}': it is not running", op.id);
  const bool is_final = *signal == SIGKILL || *signal == stop_signal_of(record);
  if (is_final && record.wanted != Wanted::Stopped) {
    record.wanted = Wanted::Stopped;  // who kills it does not want it back
    out.put_fact(record);
  }
  TRY_DURING(ports_.runtime.kill(op.id, *signal), "kill container '{}'", op.id);
  return {};
}

base::Result<> Operations::remove(const planner::RemoveContainer& op, const View& view,
                                  Recorder& out) {
  if (view.container && view.container->phase == Phase::Running)
    return base::fail(ErrorCode::InvalidState, "cannot remove '{}': it is running; stop it first",
                      op.id);
  if (!view.container || view.container->phase != Phase::Created)
    TRY_DURING(ports_.runtime.stop(op.id, SIGKILL, 0), "remove container '{}'", op.id);
  for (const std::string& network : view.networks)
    TRY_DURING(ports_.network.release(network, op.id), "remove container '{}'", op.id);
  base::TraceScope removing(op.id, "daemon", "it is removed");
  TRY_DURING(ports_.runtime.remove(op.id), "remove container '{}'", op.id);
  removing.close();
  if (!view.container) return {};
  if (op.anonymous_volumes)
    for (const auto& [name, volume] : view.anonymous_volumes) {
      TRY_DURING(ports_.runtime.remove_volume(name), "remove container '{}'", op.id);
      TRY(out.erase_volume(name));
    }
  return out.erase_container(op.id);
}

// ---- facts
// -----------------------------------------------------------------------------------------

Outcome Operations::note_exit(const View& view, const ExitStatus& seen) {
  Outcome outcome;
  if (!view.container) return outcome;
  ContainerRecord record = *view.container;
  if (record.phase != Phase::Running && record.phase != Phase::Unknown) return outcome;
  const base::TraceScope noting(record.id, "daemon", "its end is in the records");
  ExitStatus exit = seen;
  // A message about an earlier life may arrive late; what the driver sees now decides.
  if (const auto observed = ports_.runtime.observe(record.id)) {
    if (observed->phase == VmPhase::Running) return outcome;
    if (observed->exit) exit = *observed->exit;
  }
  if (exit.vm_died) (void)ports_.runtime.stop(record.id, SIGKILL, 0);
  outcome.result = release(record);
  if (!outcome.result) return outcome;  // it stays as it was; the next look tries again
  Recorder recorder(store_, outcome);
  record.phase = Phase::Exited;
  record.health = HealthState::None;
  record.exit_code = exit.code;
  record.out_of_memory = exit.out_of_memory;
  record.exit_reason = exit.reason;
  record.finished_wall_ns =
      exit.finished_wall_ns != 0 ? exit.finished_wall_ns : ports_.workers.wall_ns();
  record.places.clear();
  record.published.clear();
  record.paused_reason.clear();
  recorder.put_fact(record);
  return outcome;
}

Outcome Operations::note_health(const View& view, HealthState health) {
  Outcome outcome;
  if (!view.container || view.container->phase != Phase::Running) return outcome;
  ContainerRecord record = *view.container;
  if (record.health == health) return outcome;
  if (health == HealthState::Healthy || health == HealthState::None)
    outcome.result = announce(record, true);
  else if (health == HealthState::Unhealthy)
    outcome.result = announce(record, false);
  if (!outcome.result) return outcome;
  record.health = health;
  Recorder(store_, outcome).put_fact(record);
  return outcome;
}

Outcome Operations::note_phase(const View& view, Phase phase) {
  Outcome outcome;
  if (!view.container || view.container->phase == phase) return outcome;
  ContainerRecord record = *view.container;
  record.phase = phase;
  Recorder(store_, outcome).put_fact(record);
  return outcome;
}

Outcome Operations::note_paused(const View& view, const std::string& reason) {
  Outcome outcome;
  if (!view.container || view.container->phase != Phase::Running) return outcome;
  ContainerRecord record = *view.container;
  if (record.paused_reason == reason) return outcome;
  record.paused_reason = reason;
  Recorder(store_, outcome).put_fact(record);
  return outcome;
}

Outcome Operations::rejoin(const View& view, const std::string& network) {
  Outcome outcome;
  if (!view.container || view.container->phase != Phase::Running) return outcome;
  ContainerRecord record = *view.container;
  const auto place =
      std::find_if(record.places.begin(), record.places.end(),
                   [&](const planner::NetworkPlace& each) { return each.network == network; });
  if (place == record.places.end()) return outcome;
  const auto attempt = [&]() -> base::Result<> {
    // The guest keeps the address it was given, so that very one is asked for.
    ContainerRecord asking = record;
    asking.applied.networks.at(network).ipv4_address = without_mask(place->address);
    asking.applied.networks.at(network).mac_address = place->mac;
    TRY(lease(asking, network));
    if (place == record.places.begin() && !record.applied.ports.empty()) {
      TRY(ports_.network.unpublish(network, record.id));
      record.published = TRY(publish(asking, network, place->address));
    }
    if (record.health == HealthState::None || record.health == HealthState::Healthy)
      TRY(ports_.network.announce(network, record.id, true));
    return {};
  };
  outcome.result = attempt();
  if (outcome.result) Recorder(store_, outcome).put_fact(record);
  return outcome;
}

Outcome Operations::rewrite(const View& view) {
  Outcome outcome;
  if (view.container) Recorder(store_, outcome).put_fact(*view.container);
  return outcome;
}

}  // namespace reconciler
