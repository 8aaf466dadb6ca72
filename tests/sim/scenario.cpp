#include "tests/sim/scenario.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "tests/sim/fakes.h"

namespace sim {

namespace {

using planner::ContainerRecord;
using planner::Phase;
using planner::Plan;
using planner::Snapshot;

constexpr const char* images[] = {"alpine", "nginx", "postgres"};

/// Made and removed by hand; stacks and single containers find them there or do not.
constexpr const char* hand_network = "hand";
constexpr const char* hand_volume = "hand-data";

planner::NetworkRecord network_by_hand() {
  planner::NetworkRecord record;
  record.name = record.key = record.applied.name = hand_network;
  return record;
}

planner::VolumeRecord volume_by_hand() {
  planner::VolumeRecord record;
  record.name = record.key = record.applied.name = hand_volume;
  return record;
}

/// Random stacks and random changes of them.
class StackMaker {
 public:
  explicit StackMaker(Dice& dice) : dice_(dice) {}

  /// `calm`: everything serves and gets healthy, or completes; what a final check can rely on.
  spec::Stack make(const std::string& project, bool calm) {
    spec::Stack stack;
    stack.name = project;
    stack.working_dir = "/project/" + project;
    for (const char* key : {"default", "back"}) {
      spec::Network network;
      network.name = project + "_" + key;
      network.internal = key[0] == 'b' && dice_.one_in(2);
      if (dice_.one_in(4)) network.labels["tier"] = std::to_string(dice_.below(2));
      stack.networks[key] = network;
    }
    for (const char* key : {"data", "cache"}) {
      spec::Volume volume;
      volume.name = project + "_" + key;
      stack.volumes[key] = volume;
    }
    stack.networks["hand"].name = hand_network;
    stack.networks["hand"].external = true;
    stack.volumes["hand"].name = hand_volume;
    stack.volumes["hand"].external = true;
    const uint32_t count = 1 + dice_.below(5);
    for (uint32_t i = 0; i < count; ++i)
      stack.services[fmt::format("s{}", i)] = make_service(i, calm);
    link(stack, calm);
    return stack;
  }

 private:
  spec::Service make_service(uint32_t number, bool calm) {
    spec::Service service;
    service.image = images[dice_.below(3)];
    service.environment["MODE"] = std::to_string(dice_.below(3));
    if (dice_.one_in(3)) service.labels["version"] = std::to_string(dice_.below(3));
    service.networks["default"] = {};
    if (dice_.one_in(3)) service.networks["back"].priority = static_cast<int32_t>(dice_.below(3));
    if (dice_.one_in(3)) service.volumes.push_back(volume("data", "/data"));
    if (dice_.one_in(6)) service.volumes.push_back(volume("", "/scratch"));
    if (dice_.one_in(8)) service.networks["hand"] = {};
    if (dice_.one_in(8)) service.volumes.push_back(volume("hand", "/hand"));
    service.scale = dice_.one_in(4) ? dice_.below(4) : 1;
    if (dice_.one_in(3)) add_port(service, number);
    if (dice_.one_in(3))
      service.healthcheck = spec::HealthCheck{false, {"check"}, {}, {}, {}, {}, {}};
    choose_command(service, calm);
    return service;
  }

  static spec::Mount volume(const std::string& source, const std::string& target) {
    spec::Mount mount;
    mount.source = source;
    mount.target = target;
    return mount;
  }

  void add_port(spec::Service& service, uint32_t number) {
    spec::Port port;
    port.target = 80;
    if (service.scale <= 1 && dice_.one_in(2))
      port.published = static_cast<uint16_t>(8000 + 10 * number + dice_.below(3));
    else if (dice_.one_in(3)) {
      port.published = static_cast<uint16_t>(8000 + 10 * number + 4);
      port.published_last = static_cast<uint16_t>(port.published + 5);
    }
    service.ports.push_back(port);
  }

  void choose_command(spec::Service& service, bool calm) {
    using spec::RestartCondition;
    constexpr RestartCondition policies[] = {RestartCondition::No, RestartCondition::OnFailure,
                                             RestartCondition::Always,
                                             RestartCondition::UnlessStopped};
    service.command = std::vector<std::string>{"serve"};
    service.restart.condition = policies[dice_.below(4)];
    if (calm) return;
    if (dice_.one_in(6)) service.command = std::vector<std::string>{"sick"};
    if (dice_.one_in(6)) service.command = std::vector<std::string>{"deaf"};
    if (dice_.one_in(5))
      service.command = std::vector<std::string>{"exit", std::to_string(50 + dice_.below(20000)),
                                                 std::to_string(dice_.below(2))};
    if (service.restart.condition == RestartCondition::OnFailure && dice_.one_in(2))
      service.restart.retries_max = dice_.below(4);
  }

  void link(spec::Stack& stack, bool calm) {
    std::vector<std::string> earlier;
    for (auto& [name, service] : stack.services) {
      for (const std::string& dependency : earlier)
        if (dice_.one_in(3)) depend(stack, service, dependency, calm);
      earlier.push_back(name);
    }
  }

  void depend(spec::Stack& stack, spec::Service& service, const std::string& on, bool calm) {
    spec::Service& other = stack.services.at(on);
    spec::Dependency dependency;
    dependency.restart = dice_.one_in(4);
    dependency.required = !dice_.one_in(4);
    const bool one_shot = other.command->front() == "exit";
    if (other.healthcheck && !one_shot && dice_.one_in(2)) {
      dependency.condition = spec::DependencyCondition::Healthy;
    } else if ((one_shot || other.depends_on.empty()) && !other.healthcheck && dice_.one_in(4)) {
      dependency.condition = spec::DependencyCondition::CompletedSuccessfully;
      if (calm) {
        other.command = std::vector<std::string>{"exit", "300", "0"};
        other.restart = {};
        one_shots_made_ = true;
      }
    }
    service.depends_on[on] = dependency;
  }

  Dice& dice_;
  bool one_shots_made_ = false;
};

class Scenario {
 public:
  explicit Scenario(uint64_t seed) : world_(seed), dice_(seed * 7919 + 17), maker_(dice_) {
    for (const char* name : images) world_.image.tag(name, std::string("sha256:") + name + "1");
  }

  Verdict run() {
    world_.start_daemon();
    world_.run_until(60'000, [&] { return world_.ready(); });
    const uint32_t commands = 3 + dice_.below(8);
    for (uint32_t i = 0; i < commands; ++i) {
      stir();
      command();
      world_.run_for(dice_.below(dice_.one_in(3) ? 30'000 : 1'500));
      if (world_.ready()) check_made_by_hand();
    }
    calm_down();
    last_wish();
    verdict_.commands = commands;
    verdict_.crashes = world_.crashes;
    for (const std::string& rule : world_.broken_rules) verdict_.broken_rules.push_back(rule);
    verdict_.trace = std::move(world_.weather.trace);
    return std::move(verdict_);
  }

 private:
  void broken(std::string rule) { verdict_.broken_rules.push_back(std::move(rule)); }

  // --- chaos ------------------------------------------------------------------------------------

  void stir() {
    Weather& weather = world_.weather;
    weather.fault_one_in = dice_.one_in(2) ? 0 : 20 + dice_.below(200);
    weather.disk_full = dice_.one_in(10);
    if (dice_.one_in(3)) {
      weather.crash_in = dice_.below(60);
      weather.crash_after_effect = dice_.one_in(2);
    }
    if (dice_.one_in(5))
      world_.network.taken_outside.insert(fmt::format("127.0.0.1:{}/0", 8000 + dice_.below(50)));
    else if (dice_.one_in(3))
      world_.network.taken_outside.clear();
    if (dice_.one_in(6)) {
      const char* name = images[dice_.below(3)];
      world_.image.tag(name, fmt::format("sha256:{}{}", name, 1 + dice_.below(3)));
    }
    hit_something();
  }

  void hit_something() {
    std::vector<std::string> running;
    for (const auto& [id, vm] : world_.runtime.vms)
      if (vm.phase == reconciler::VmPhase::Running) running.push_back(id);
    if (!running.empty()) {
      const std::string& victim = running[dice_.below(static_cast<uint32_t>(running.size()))];
      switch (dice_.below(6)) {
        case 0: world_.runtime.end(victim, 255, true); break;
        case 1: world_.runtime.end(victim, 1, false); break;
        case 2: world_.runtime.set_health(victim, reconciler::Health::Unhealthy); break;
        default: break;
      }
    }
    if (dice_.one_in(8) && !world_.network.bridges.empty()) {
      auto bridge = world_.network.bridges.begin();
      std::advance(bridge, dice_.below(static_cast<uint32_t>(world_.network.bridges.size())));
      world_.network.die(bridge->first);
    }
    if (dice_.one_in(12) && !world_.runtime.volumes.empty())
      world_.runtime.volumes.erase(world_.runtime.volumes.begin());
    if (!dice_.one_in(10)) return;
    world_.crash();
    world_.run_for(dice_.below(5'000));
    world_.start_daemon();
  }

  std::vector<std::string> some_ids() {
    std::vector<std::string> ids;
    for (const auto& [id, record] : world_.snapshot().containers)
      if (dice_.one_in(3)) ids.push_back(id);
    return ids;
  }

  void command() {
    if (!world_.run_until(120'000, [&] { return world_.ready(); })) return;
    const std::string project = dice_.one_in(2) ? "shop" : "blog";
    const std::string owner = fmt::format("command {} on {}", ++number_, project);
    const std::vector<std::string> ids = some_ids();
    World::Make make;
    switch (dice_.below(14)) {
      case 0:
        make = [project, volumes = dice_.one_in(2)](const Snapshot& actual) {
          planner::DownOptions options;
          options.volumes = volumes;
          return planner::plan_down(project, actual, options);
        };
        break;
      case 1:
        make = [ids](const Snapshot& s) { return planner::plan_stop(ids, s, {}, 1000); };
        break;
      case 2:
        make = [ids](const Snapshot& s) { return planner::plan_start(ids, s, "asked"); };
        break;
      case 3: make = [ids](const Snapshot& s) { return planner::plan_kill(ids, s, "KILL"); }; break;
      case 4:
        make = [ids](const Snapshot& s) { return planner::plan_remove(ids, s, true, true); };
        break;
      case 5: make = make_run(); break;
      case 6:
      case 7:
      case 8: make = make_by_hand(); break;
      default: make = make_up(project); break;
    }
    owners_.push_back(owner);
    const auto applied = world_.apply(owner, make, !dice_.one_in(5));
    if (dice_.one_in(8)) world_.daemon().cancel(owner);
    if (dice_.one_in(2))
      world_.run_until(300'000, [&] { return applied->finished || applied->lost; });
  }

  World::Make make_up(const std::string& project) {
    planner::UpOptions options;
    options.remove_orphans = dice_.one_in(2);
    options.force_recreate = dice_.one_in(8);
    options.no_start = dice_.one_in(10);
    options.wait = dice_.one_in(4);
    options.wait_timeout_ms = 20'000;
    return [stack = maker_.make(project, false), options](const Snapshot& actual) {
      return planner::plan_up(stack, actual, options);
    };
  }

  World::Make make_run() {
    ContainerRecord record;
    record.id = fmt::format("job{}", number_);
    record.one_off = true;
    record.auto_remove = dice_.one_in(2);
    record.applied.image = "alpine";
    record.applied.command =
        std::vector<std::string>{"exit", std::to_string(dice_.below(5000)), "0"};
    record.image_digest = world_.image.tags.at("alpine");
    std::vector<planner::VolumeRecord> volumes;
    if (dice_.one_in(2)) record.applied.networks[hand_network] = {};
    if (dice_.one_in(2)) {
      record.applied.volumes.push_back({spec::MountType::Volume, hand_volume, "/hand"});
      volumes.push_back(volume_by_hand());
    }
    return [record, volumes](const Snapshot& actual) {
      return planner::plan_create(record, volumes, actual, true);
    };
  }

  World::Make make_by_hand() {
    switch (dice_.below(6)) {
      case 0:
      case 1:
        return [](const Snapshot& s) { return planner::plan_create_network(network_by_hand(), s); };
      case 2:
        return [](const Snapshot& s) { return planner::plan_create_volume(volume_by_hand(), s); };
      case 3:
        return [](const Snapshot& s) { return planner::plan_remove_network({hand_network}, s); };
      case 4:
        return [](const Snapshot& s) { return planner::plan_remove_volume({hand_volume}, s); };
      default: break;
    }
    if (dice_.one_in(2))
      return
          [](const Snapshot& s) -> base::Result<Plan> { return planner::plan_prune_networks(s); };
    return [named = dice_.one_in(2)](const Snapshot& s) -> base::Result<Plan> {
      return planner::plan_prune_volumes(s, named);
    };
  }

  // --- calm -------------------------------------------------------------------------------------

  void calm_down() {
    Weather& weather = world_.weather;
    weather.note("--- calm ---");
    weather.fault_one_in = 0;
    weather.disk_full = false;
    weather.crash_in.reset();
    weather.fail_next.clear();
    world_.network.taken_outside.clear();
    world_.run_until(120'000, [&] { return world_.ready(); });
    // Whoever still waits gives up, as people do; some waits can never end.
    for (const std::string& owner : owners_) world_.daemon().cancel(owner);
    world_.run_for(300'000);
    if (!world_.ready()) broken("the daemon is not ready in calm weather");
  }

  void last_wish() {
    const spec::Stack stack = maker_.make("shop", true);
    planner::UpOptions options;
    options.remove_orphans = true;
    make_what_is_missing();
    const auto up = [&](const Snapshot& actual) {
      return planner::plan_up(stack, actual, options);
    };
    const auto down = [](const Snapshot& actual) {
      return planner::plan_down("blog", actual,
                                {.volumes = true, .remove_orphans = true, .stop_grace_ms = {}});
    };
    if (const auto gone = world_.apply_and_wait("the last down", down); !gone)
      broken("the last down failed: " + gone.error().to_string());
    if (const auto done = world_.apply_and_wait("the last up", up); !done)
      broken("the last up failed: " + done.error().to_string());
    world_.run_for(100'000);
    check_converged(stack, up);
    check_nothing_leaked();
    check_store();
  }

  void make_what_is_missing() {
    const Snapshot actual = world_.snapshot();
    const auto apply = [&](const World::Make& make) {
      if (const auto made = world_.apply_and_wait("by hand", make); !made)
        broken("what is missing could not be made by hand: " + made.error().to_string());
    };
    if (!actual.networks.contains(hand_network))
      apply([](const Snapshot& s) { return planner::plan_create_network(network_by_hand(), s); });
    const auto volume = actual.volumes.find(hand_volume);
    if (volume == actual.volumes.end() || !volume->second.present)
      apply([](const Snapshot& s) { return planner::plan_create_volume(volume_by_hand(), s); });
  }

  /// Nobody removes them under their users.
  void check_made_by_hand() {
    const Snapshot actual = world_.snapshot();
    for (const auto& [id, record] : actual.containers) {
      if (record.applied.networks.contains(hand_network) && !actual.networks.contains(hand_network))
        broken("'" + id + "' is on a network made by hand that was removed");
      for (const spec::Mount& mount : record.applied.volumes)
        if (mount.source == hand_volume && !actual.volumes.contains(hand_volume))
          broken("'" + id + "' has a volume made by hand that was removed");
    }
  }

  void check_converged(const spec::Stack& stack, const World::Make& up) {
    const Snapshot actual = world_.snapshot();
    const auto again = up(actual);
    if (!again) return broken("a second plan fails: " + again.error().to_string());
    for (const planner::Step& step : again->steps) {
      const auto* start = std::get_if<planner::StartContainer>(&step.operation);
      const bool one_shot = start != nullptr && actual.containers.contains(start->id) &&
                            is_one_shot(actual.containers.at(start->id));
      if (!one_shot) broken("a second plan is not empty: " + planner::describe(step));
    }
    std::map<std::string, uint32_t> running;
    for (const auto& [id, record] : actual.containers) {
      if (record.project == "blog") broken("'" + id + "' survived the last down");
      if (record.project != "shop") continue;
      if (record.phase == Phase::Running || is_one_shot(record)) ++running[record.service];
    }
    for (const auto& [name, service] : stack.services)
      if (running[name] != service.scale)
        broken(
            fmt::format("service {} has {} of {} containers", name, running[name], service.scale));
  }

  static bool is_one_shot(const ContainerRecord& record) {
    return record.applied.command && record.applied.command->front() == "exit";
  }

  void check_nothing_leaked() {
    const Snapshot actual = world_.snapshot();
    for (const auto& [id, vm] : world_.runtime.vms) {
      const auto record = actual.containers.find(id);
      if (record == actual.containers.end()) {
        broken("no record names the VM or disk '" + id + "'");
        continue;
      }
      const bool runs = vm.phase == reconciler::VmPhase::Running;
      if (runs != (record->second.phase == Phase::Running))
        broken(fmt::format("'{}' {} but its record says otherwise", id,
                           runs ? "runs" : "does not run"));
    }
    // A removal that could not be written down to its end leaves a record that says so.
    for (const auto& [id, record] : actual.containers)
      if (!world_.runtime.vms.contains(id) && record.phase != Phase::Missing)
        broken("'" + id + "' has a record but no disk");
    for (const std::string& volume : world_.runtime.volumes)
      if (!actual.volumes.contains(volume)) broken("no record names the volume " + volume);
    for (const auto& [name, record] : actual.networks)
      if (!world_.network.bridges.contains(name)) broken("network " + name + " is missing");
    for (const auto& [name, bridge] : world_.network.bridges) check_bridge(name, bridge, actual);
  }

  void check_bridge(const std::string& name, const Bridge& bridge, const Snapshot& actual) {
    if (!actual.networks.contains(name)) broken("no record names the network " + name);
    if (!bridge.alive) broken("network " + name + " is dead");
    for (const auto& [id, lease] : bridge.leases) {
      const auto record = actual.containers.find(id);
      if (record == actual.containers.end() || record->second.phase != Phase::Running) {
        broken(fmt::format("'{}' has a place on {} but does not run", id, name));
        continue;
      }
      const bool well = record->second.health == planner::HealthState::None ||
                        record->second.health == planner::HealthState::Healthy;
      if (lease.announced != well)
        broken(fmt::format("'{}' on {}: names {}, well {}", id, name, lease.announced, well));
    }
    for (const auto& [id, record] : actual.containers) {
      if (record.phase != Phase::Running || !record.applied.networks.contains(name)) continue;
      const auto lease = bridge.leases.find(id);
      if (lease == bridge.leases.end()) {
        broken(fmt::format("'{}' runs without its place on {}", id, name));
      } else if (!record.places.empty() && record.places.front().network == name &&
                 lease->second.ports.size() != record.applied.ports.size()) {
        broken(fmt::format("'{}' has {} of {} ports published", id, lease->second.ports.size(),
                           record.applied.ports.size()));
      }
    }
  }

  void check_store() {
    const Snapshot actual = world_.snapshot();
    for (const auto& [id, plan] : world_.store.state.plans)
      broken("the journal still has the plan of " + plan.owner);
    if (world_.store.state.containers.size() != actual.containers.size() ||
        world_.store.state.networks.size() != actual.networks.size() ||
        world_.store.state.volumes.size() != actual.volumes.size())
      broken("the store and the memory of the daemon differ in what exists");
    for (const auto& [id, record] : actual.containers) {
      const auto stored = world_.store.state.containers.find(id);
      if (stored == world_.store.state.containers.end()) {
        broken("'" + id + "' is not in the store");
      } else if (stored->second.phase != record.phase || stored->second.wanted != record.wanted ||
                 stored->second.generation != record.generation ||
                 stored->second.health != record.health) {
        broken("the record of '" + id + "' in the store is not the one in memory");
      }
    }
  }

  World world_;
  Dice dice_;
  StackMaker maker_;
  Verdict verdict_;
  uint32_t number_ = 0;
  std::vector<std::string> owners_;
};

}  // namespace

Verdict run_scenario(uint64_t seed) { return Scenario(seed).run(); }

}  // namespace sim
