#include "tests/sim/fakes.h"

#include <algorithm>
#include <csignal>
#include <utility>

#include <fmt/format.h>

namespace sim {

using base::ErrorCode;
using reconciler::Health;
using reconciler::VmPhase;

// ---- time and weather
// ----------------------------------------------------------------------------

Clock::Id Clock::at(int64_t time_ms, bool of_daemon, std::function<void()> call) {
  events_.emplace(std::max(time_ms, now_ms_), Event{++last_id_, of_daemon, std::move(call)});
  return last_id_;
}

void Clock::cancel(Id id) {
  std::erase_if(events_, [&](const auto& entry) { return entry.second.id == id; });
}

void Clock::drop_daemon() {
  std::erase_if(events_, [](const auto& entry) { return entry.second.of_daemon; });
}

bool Clock::step() {
  if (events_.empty()) return false;
  auto first = events_.extract(events_.begin());
  now_ms_ = std::max(now_ms_, first.key());
  first.mapped().call();
  return true;
}

std::optional<int64_t> Clock::next_ms() const {
  if (events_.empty()) return std::nullopt;
  return events_.begin()->first;
}

void Weather::note(const std::string& line) {
  trace.push_back(fmt::format("{}ms {}", now_ms ? now_ms() : 0, line));
}

base::Result<> Weather::enter(const std::string& call, int64_t cost) {
  cost_ms += cost + dice.below(3);
  if (crash_in && *crash_in == 0) {
    crash_in.reset();
    note(fmt::format("CRASH {} {}", crash_after_effect ? "after" : "before", call));
    if (!crash_after_effect) throw Crash{};
    dying_ = true;
    return {};
  }
  if (crash_in) --*crash_in;
  if (const auto planned = fail_next.find(call);
      planned != fail_next.end() && planned->second > 0) {
    --planned->second;
    note(call + " failed");
    return base::fail(ErrorCode::Io, "simulated fault in {}", call);
  }
  if (dice.one_in(fault_one_in)) {
    note("fault in " + call);
    return base::fail(ErrorCode::Io, "simulated fault in {}", call);
  }
  note(call);
  return {};
}

void Weather::leave() {
  if (std::exchange(dying_, false)) throw Crash{};
}

/// `leave` for every way out of a call that had its effect.
#define SIM_RETURN(...) \
  do {                  \
    weather_.leave();   \
    return __VA_ARGS__; \
  } while (false)

void Workers::run(std::function<void()> work, std::function<void()> done) {
  const int64_t begin = clock_.now_ms() + weather_.dice.below(3);
  clock_.at(begin, true, [this, work = std::move(work), done = std::move(done)] {
    weather_.cost_ms = 0;
    try {
      work();
    } catch (const Crash&) {
      crashed = true;
      return;
    }
    clock_.at(clock_.now_ms() + weather_.cost_ms, true, done);
  });
}

reconciler::TimerId Workers::after(int64_t delay_ms, std::function<void()> fire) {
  return clock_.at(clock_.now_ms() + delay_ms, true, std::move(fire));
}

void Workers::post(std::function<void()> call) {
  clock_.at(clock_.now_ms(), true, std::move(call));
}

// ---- virtual machines
// ----------------------------------------------------------------------------

base::Result<> Runtime::create(const reconciler::ContainerSetup& setup) {
  TRY(weather_.enter("create " + setup.id, 5));
  Vm& vm = vms[setup.id];
  if (vm.phase == VmPhase::Running)
    return base::fail(ErrorCode::InvalidState, "'{}' is running", setup.id);
  if (!vm.disk || vm.generation != setup.generation) vm = Vm{};
  vm.generation = setup.generation;
  vm.disk = true;
  vm.service = setup.service;
  SIM_RETURN({});
}

base::Result<> Runtime::start(const reconciler::StartRequest& request) {
  const std::string& id = request.setup.id;
  TRY(weather_.enter("start " + id, 150));
  const auto found = vms.find(id);
  if (found == vms.end() || !found->second.disk)
    return base::fail(ErrorCode::NotFound, "'{}' has no disk", id);
  for (const reconciler::NetworkLease& lease : request.leases)
    if (!network->bridges.contains(lease.network) ||
        !network->bridges.at(lease.network).leases.contains(id))
      return base::fail(ErrorCode::Internal, "'{}' has no lease on '{}'", id, lease.network);
  Vm& vm = found->second;
  if (vm.phase != VmPhase::Running) {
    vm.phase = VmPhase::Running;
    vm.life = ++lives_;
    vm.generation = request.setup.generation;
    vm.service = request.setup.service;
    vm.exit.reset();
    const bool checked = vm.service.healthcheck && !vm.service.healthcheck->disable;
    vm.health = checked ? Health::Starting : Health::None;
    live(id);
  }
  SIM_RETURN({});
}

void Runtime::live(const std::string& id) {
  const Vm& vm = vms.at(id);
  const std::vector<std::string> command = vm.service.command.value_or(std::vector<std::string>{});
  const auto later = [&](int64_t delay, auto call) {
    clock_.at(clock_.now_ms() + delay, false, [this, id, life = vm.life, call] {
      const auto now = vms.find(id);
      if (now != vms.end() && now->second.life == life && now->second.phase == VmPhase::Running)
        call();
    });
  };
  if (command.size() == 3 && command[0] == "exit")
    later(std::stoll(command[1]),
          [this, id, code = std::stoi(command[2])] { end(id, code, false); });
  const bool sick = !command.empty() && command[0] == "sick";
  if (vm.health == Health::Starting)
    later(700, [this, id, sick] { set_health(id, sick ? Health::Unhealthy : Health::Healthy); });
}

void Runtime::end(const std::string& id, int code, bool vm_died) {
  Vm& vm = vms.at(id);
  if (vm.phase != VmPhase::Running) return;
  weather_.note(fmt::format("* {} exits {}", id, code));
  vm.phase = VmPhase::Exited;
  vm.health = Health::None;
  vm.exit = reconciler::ExitStatus{code, vm_died, false, clock_.now_ms() * 1'000'000,
                                   vm_died ? "it died" : ""};
  reconciler::VmEvent event;
  event.kind = reconciler::VmEvent::Kind::Exited;
  event.id = id;
  event.generation = vm.generation;
  event.exit = *vm.exit;
  if (on_event) on_event(event);
}

void Runtime::set_health(const std::string& id, Health health) {
  Vm& vm = vms.at(id);
  if (vm.phase != VmPhase::Running || vm.health == Health::None) return;
  vm.health = health;
  reconciler::VmEvent event;
  event.kind = reconciler::VmEvent::Kind::Health;
  event.id = id;
  event.generation = vm.generation;
  event.health = health;
  if (on_event) on_event(event);
}

void Runtime::set_paused(const std::string& id, const std::string& reason) {
  Vm& vm = vms.at(id);
  vm.paused_reason = reason;
  reconciler::VmEvent event;
  event.kind = reconciler::VmEvent::Kind::Paused;
  event.id = id;
  event.generation = vm.generation;
  event.detail = reason;
  if (on_event) on_event(event);
}

base::Result<reconciler::ExitStatus> Runtime::stop(const std::string& id, int signal, int64_t) {
  TRY(weather_.enter(fmt::format("stop {}", id), 40));
  const auto found = vms.find(id);
  reconciler::ExitStatus exit{128 + signal, false, false, clock_.now_ms() * 1'000'000, ""};
  if (found != vms.end() && found->second.phase == VmPhase::Running) {
    Vm& vm = found->second;
    vm.phase = VmPhase::Exited;
    vm.health = Health::None;
    vm.exit = exit;
    // The driver's own news of it may come late, even after the next start.
    if (on_event && weather_.dice.one_in(2)) {
      reconciler::VmEvent event;
      event.id = id;
      event.generation = vm.generation;
      event.exit = exit;
      clock_.at(clock_.now_ms() + weather_.dice.below(400), true, [this, event] {
        if (on_event) on_event(event);
      });
    }
  } else if (found != vms.end() && found->second.exit) {
    exit = *found->second.exit;
  }
  SIM_RETURN(exit);
}

namespace {

bool is_deaf(const Vm& vm) {
  return vm.service.command && !vm.service.command->empty() &&
         vm.service.command->front() == "deaf";
}

}  // namespace

void Runtime::give_up_disk(const std::string& id) {
  if (const auto found = vms.find(id); found != vms.end()) found->second.disk_given_up = true;
}

base::Result<> Runtime::begin_stop(const std::string& id, int signal) { return kill(id, signal); }

base::Result<> Runtime::kill(const std::string& id, int signal) {
  TRY(weather_.enter("kill " + id, 5));
  if (signal == SIGKILL || signal == SIGTERM) {
    const auto found = vms.find(id);
    if (found != vms.end() && (signal == SIGKILL || !is_deaf(found->second)))
      clock_.at(clock_.now_ms() + 20, false, [this, id, signal, life = found->second.life] {
        const auto now = vms.find(id);
        if (now != vms.end() && now->second.life == life) end(id, 128 + signal, false);
      });
  }
  SIM_RETURN({});
}

base::Result<> Runtime::remove(const std::string& id) {
  TRY(weather_.enter("remove " + id, 10));
  const auto found = vms.find(id);
  if (found != vms.end() && found->second.phase == VmPhase::Running)
    return base::fail(ErrorCode::InvalidState, "'{}' is running", id);
  vms.erase(id);
  SIM_RETURN({});
}

base::Result<std::vector<reconciler::VmObservation>> Runtime::list() {
  TRY(weather_.enter("list VMs", 2));
  std::vector<reconciler::VmObservation> seen;
  for (const auto& [id, vm] : vms)
    seen.push_back(
        {id, vm.generation, vm.phase, vm.health, vm.exit, 0, 0, vm.disk, vm.paused_reason});
  SIM_RETURN(seen);
}

reconciler::MachineSize Runtime::size_of(const spec::Service& service) const {
  return {.cpus = static_cast<uint32_t>(service.cpus.value_or(2)),
          .memory_bytes = service.memory_bytes.value_or(1 << 30)};
}

base::Result<reconciler::VmObservation> Runtime::observe(const std::string& id) {
  TRY(weather_.enter("list VMs", 2));
  reconciler::VmObservation seen;
  seen.id = id;
  if (const auto found = vms.find(id); found != vms.end()) {
    const auto& vm = found->second;
    seen = {id, vm.generation, vm.phase, vm.health, vm.exit, 0, 0, vm.disk, vm.paused_reason};
  }
  SIM_RETURN(seen);
}

base::Result<> Runtime::adopt(std::function<void(reconciler::VmEvent)> listener) {
  TRY(weather_.enter("adopt", 20));
  on_event = std::move(listener);
  SIM_RETURN({});
}

base::Result<std::unique_ptr<reconciler::ProcessSession>> Runtime::exec(
    const std::string&, const reconciler::ExecRequest&) {
  return base::fail(ErrorCode::Unsupported, "the simulated world runs no processes");
}
base::Result<std::unique_ptr<reconciler::ProcessSession>> Runtime::attach(const std::string&,
                                                                          bool) {
  return base::fail(ErrorCode::Unsupported, "the simulated world runs no processes");
}
base::Result<> Runtime::logs(const std::string&, const reconciler::LogRequest&,
                             const reconciler::OutputSink&) {
  return base::fail(ErrorCode::Unsupported, "the simulated world keeps no output");
}
base::Result<> Runtime::update_hosts(const std::string&, const std::string&, const std::string&) {
  return {};
}

base::Result<> Runtime::create_volume(const std::string& name) {
  TRY(weather_.enter("create volume " + name, 1));
  volumes.insert(name);
  SIM_RETURN({});
}
base::Result<> Runtime::remove_volume(const std::string& name) {
  TRY(weather_.enter("remove volume " + name, 1));
  volumes.erase(name);
  SIM_RETURN({});
}
base::Result<std::vector<std::string>> Runtime::list_volumes() {
  TRY(weather_.enter("list volumes", 1));
  SIM_RETURN(std::vector<std::string>(volumes.begin(), volumes.end()));
}

// ---- networks
// ------------------------------------------------------------------------------------

reconciler::NetworkObservation Network::observe(const std::string& name,
                                                const Bridge& bridge) const {
  return {name, fmt::format("10.{}.0.0/24", bridge.number), bridge.gateway, bridge.internal,
          bridge.alive};
}

base::Result<Bridge*> Network::find(const std::string& name) {
  const auto found = bridges.find(name);
  if (found == bridges.end())
    return base::fail(ErrorCode::NotFound, "network '{}' does not exist", name);
  if (!found->second.alive) return base::fail(ErrorCode::Io, "network '{}' does not answer", name);
  return &found->second;
}

base::Result<reconciler::NetworkObservation> Network::create(
    const reconciler::NetworkSetup& setup) {
  TRY(weather_.enter("create network " + setup.name, 30));
  Bridge& bridge = bridges[setup.name];
  if (bridge.number == 0) {
    bridge.number = next_number_++;
    bridge.gateway = setup.gateway.value_or(fmt::format("10.{}.0.1", bridge.number));
  }
  if (setup.gateway && *setup.gateway != bridge.gateway)
    return base::fail(ErrorCode::Exists, "network '{}' exists with gateway {}", setup.name,
                      bridge.gateway);
  bridge.alive = true;
  bridge.internal = setup.internal;
  SIM_RETURN(observe(setup.name, bridge));
}

base::Result<> Network::remove(const std::string& name) {
  TRY(weather_.enter("remove network " + name, 20));
  const auto found = bridges.find(name);
  if (found != bridges.end() && !found->second.leases.empty())
    return base::fail(ErrorCode::Busy, "network '{}' is used by '{}'", name,
                      found->second.leases.begin()->first);
  bridges.erase(name);
  SIM_RETURN({});
}

base::Result<std::vector<reconciler::NetworkObservation>> Network::list() {
  TRY(weather_.enter("list networks", 2));
  std::vector<reconciler::NetworkObservation> seen;
  for (const auto& [name, bridge] : bridges) seen.push_back(observe(name, bridge));
  SIM_RETURN(seen);
}

base::Result<reconciler::NetworkLease> Network::lease(const reconciler::LeaseRequest& request) {
  TRY(weather_.enter(fmt::format("lease {} {}", request.network, request.container), 3));
  Bridge* bridge = TRY(find(request.network));
  uint32_t host = 0;
  if (request.ipv4_address)
    host = static_cast<uint32_t>(
        std::stoul(request.ipv4_address->substr(request.ipv4_address->rfind('.') + 1)));
  std::set<uint32_t> taken;
  for (const auto& [id, lease] : bridge->leases)
    if (id != request.container) taken.insert(lease.host);
  if (host != 0 && taken.contains(host))
    return base::fail(ErrorCode::Busy, "address {} is taken", *request.ipv4_address);
  Lease& lease = bridge->leases[request.container];
  if (host != 0) lease.host = host;
  for (uint32_t next = 2; lease.host == 0 && next < 250; ++next)
    if (!taken.contains(next)) lease.host = next;
  reconciler::NetworkLease given;
  given.network = request.network;
  given.address = fmt::format("10.{}.0.{}/24", bridge->number, lease.host);
  given.gateway = given.dns_server = bridge->gateway;
  given.mac = fmt::format("02:00:00:00:{:02x}:{:02x}", bridge->number, lease.host);
  SIM_RETURN(given);
}

base::Result<> Network::release(const std::string& network, const std::string& container) {
  TRY(weather_.enter(fmt::format("release {} {}", network, container), 2));
  if (const auto found = bridges.find(network); found != bridges.end()) {
    if (!found->second.alive)
      return base::fail(ErrorCode::Io, "network '{}' does not answer", network);
    found->second.leases.erase(container);
  }
  SIM_RETURN({});
}

base::Result<> Network::announce(const std::string& network, const std::string& container,
                                 bool on) {
  TRY(weather_.enter(fmt::format("announce {} {} {}", network, container, on), 1));
  Bridge* bridge = TRY(find(network));
  const auto lease = bridge->leases.find(container);
  if (lease == bridge->leases.end())
    return base::fail(ErrorCode::NotFound, "'{}' has no place on '{}'", container, network);
  lease->second.announced = on;
  SIM_RETURN({});
}

bool Network::is_taken(const std::string& port) const {
  if (taken_outside.contains(port)) return true;
  for (const auto& [name, bridge] : bridges)
    for (const auto& [id, lease] : bridge.leases)
      if (lease.ports.contains(port)) return true;
  return false;
}

base::Result<uint16_t> Network::publish(const reconciler::PublishRequest& request) {
  TRY(weather_.enter(fmt::format("publish {} {}", request.container, request.port.published), 1));
  Bridge* bridge = TRY(find(request.network));
  const auto lease = bridge->leases.find(request.container);
  if (lease == bridge->leases.end())
    return base::fail(ErrorCode::NotFound, "'{}' has no place", request.container);
  const auto text = [&](uint16_t number) {
    return fmt::format("{}:{}/{}", request.port.host_ip, number,
                       static_cast<int>(request.port.protocol));
  };
  uint16_t number = request.port.published != 0 ? request.port.published : next_port_++;
  while (number < request.port.published_last && is_taken(text(number))) ++number;
  const std::string port = text(number);
  if (!lease->second.ports.contains(port) && is_taken(port))
    return base::fail(ErrorCode::Busy, "{} is taken", port);
  lease->second.ports.insert(port);
  SIM_RETURN(number);
}

base::Result<> Network::unpublish(const std::string& network, const std::string& container) {
  TRY(weather_.enter(fmt::format("unpublish {} {}", network, container), 1));
  Bridge* bridge = TRY(find(network));
  if (const auto lease = bridge->leases.find(container); lease != bridge->leases.end())
    lease->second.ports.clear();
  SIM_RETURN({});
}

void Network::die(const std::string& name) {
  const auto found = bridges.find(name);
  if (found == bridges.end()) return;
  weather_.note("* network " + name + " dies");
  found->second.alive = false;
  found->second.leases.clear();
}

// ---- images and the store
// ------------------------------------------------------------------------

void Image::tag(const std::string& reference, const std::string& digest) {
  tags[reference] = digest;
  reconciler::ImageRuntimeConfig& config = contents[digest];
  config.reference = reference;
  config.digest = digest;
}

base::Result<reconciler::ImageRuntimeConfig> Image::resolve(const std::string& reference,
                                                            const std::string& platform) {
  TRY(weather_.enter("resolve " + reference, 1));
  const auto tag = tags.find(reference);
  const auto found = contents.find(tag == tags.end() ? reference : tag->second);
  if (found == contents.end())
    return base::fail(ErrorCode::NotFound, "image '{}' is not here", reference);
  platforms.push_back(platform);
  SIM_RETURN(found->second);
}

base::Result<std::string> Image::digest_of(const std::string& reference) {
  const auto tag = tags.find(reference);
  if (tag == tags.end()) return base::fail(ErrorCode::NotFound, "no image '{}'", reference);
  return tag->second;
}

base::Result<std::vector<reconciler::ImageSummary>> Image::list() {
  std::vector<reconciler::ImageSummary> all;
  for (const auto& [reference, digest] : tags) {
    reconciler::ImageSummary summary;
    summary.reference = reference;
    summary.digest = digest;
    all.push_back(std::move(summary));
  }
  return all;
}

base::Result<> Store::write(const std::string& call, const std::function<void()>& effect) {
  if (weather_.disk_full) return base::fail(ErrorCode::NoSpace, "no space left for {}", call);
  TRY(weather_.enter(call, 1));
  effect();
  SIM_RETURN({});
}

base::Result<reconciler::StoredState> Store::load() {
  TRY(weather_.enter("load", 5));
  reconciler::StoredState loaded;
  loaded.serial = state.serial;
  loaded.lineage = state.lineage;
  for (const auto& [id, record] : state.containers) loaded.containers.push_back(record);
  for (const auto& [name, record] : state.networks) loaded.networks.push_back(record);
  for (const auto& [name, record] : state.volumes) loaded.volumes.push_back(record);
  for (const auto& [id, plan] : state.plans) loaded.open_plans.push_back(plan);
  SIM_RETURN(loaded);
}

base::Result<> Store::put_container(const planner::ContainerRecord& record) {
  return write("put " + record.id, [&] { ++state.serial, state.containers[record.id] = record; });
}
base::Result<> Store::erase_container(const std::string& id) {
  return write("erase " + id, [&] { ++state.serial, state.containers.erase(id); });
}
base::Result<> Store::put_network(const planner::NetworkRecord& record) {
  return write("put network " + record.name,
               [&] { ++state.serial, state.networks[record.name] = record; });
}
base::Result<> Store::erase_network(const std::string& name) {
  return write("erase network " + name, [&] { ++state.serial, state.networks.erase(name); });
}
base::Result<> Store::put_volume(const planner::VolumeRecord& record) {
  return write("put volume " + record.name,
               [&] { ++state.serial, state.volumes[record.name] = record; });
}
base::Result<> Store::erase_volume(const std::string& name) {
  return write("erase volume " + name, [&] { ++state.serial, state.volumes.erase(name); });
}

base::Result<uint64_t> Store::begin_plan(const planner::Plan& plan, const std::string& owner,
                                         int64_t wall_ns) {
  TRY(write("begin plan of " + owner, [&] {
    reconciler::JournalPlan open;
    open.id = ++last_plan_;
    open.plan = plan;
    open.owner = owner;
    open.started_wall_ns = wall_ns;
    state.plans.emplace(open.id, std::move(open));
  }));
  return last_plan_;
}

base::Result<> Store::record_step(uint64_t plan, const reconciler::JournalStep& step) {
  return write("journal", [&] {
    auto& steps = state.plans.at(plan).steps;
    std::erase_if(steps, [&](const auto& known) { return known.step == step.step; });
    steps.push_back(step);
  });
}

base::Result<> Store::finish_plan(uint64_t plan) {
  return write("finish plan", [&] { state.plans.erase(plan); });
}

// ---- the world
// -----------------------------------------------------------------------------------

World::World(uint64_t seed)
    : weather(seed),
      workers(clock, weather),
      runtime(clock, weather),
      network(weather),
      image(weather),
      store(weather) {
  weather.now_ms = [this] { return clock.now_ms(); };
  runtime.network = &network;
}

World::~World() {
  daemon_.reset();
  clock.drop_daemon();
}

void World::start_daemon() {
  weather.note("daemon starts");
  workers.crashed = false;
  ready_ = false;
  daemon_ = std::make_unique<reconciler::Reconciler>(
      reconciler::Ports{runtime, network, image, store, workers});
  daemon_->on_notice([this](const reconciler::ContainerNotice& notice) {
    static constexpr const char* kinds[] = {"created", "started", "exited",  "restarting",
                                            "health",  "paused",  "resumed", "removed"};
    notices.push_back(fmt::format(
        "{}ms {} {}{}", clock.now_ms(), notice.record.id, kinds[static_cast<int>(notice.kind)],
        notice.restart_in_ms > 0 ? fmt::format(" in {}ms", notice.restart_in_ms) : ""));
  });
  daemon_->start(
      [this](base::Result<> result) {
        ready_ = result.has_value();
        if (!result) {
          weather.note("daemon could not start: " + result.error().to_string());
          workers.crashed = true;  // its supervisor tries again
        }
      },
      begin);
}

void World::crash() {
  ++crashes;
  weather.note("daemon dies");
  clock.drop_daemon();
  runtime.on_event = nullptr;
  daemon_.reset();
  ready_ = false;
  for (const auto& applied : pending_)
    if (!applied->finished) applied->lost = true;
  pending_.clear();
  workers.crashed = false;
}

void World::run_for(int64_t milliseconds) {
  run_until(milliseconds, [] { return false; });
}

bool World::run_until(int64_t milliseconds, const std::function<bool()>& done) {
  const int64_t end = clock.now_ms() + milliseconds;
  while (!done()) {
    const auto next = clock.next_ms();
    if (!next || *next > end) {
      clock.advance_to(end);
      return false;
    }
    clock.step();
    if (!workers.crashed) continue;
    crash();
    start_daemon();
  }
  return true;
}

planner::Snapshot World::snapshot() const {
  planner::Snapshot snapshot = daemon_->snapshot();
  for (const auto& [reference, digest] : image.tags) snapshot.image_digests[reference] = digest;
  return snapshot;
}

std::shared_ptr<World::Applied> World::apply(const std::string& owner, const Make& make,
                                             bool wait_for_lock) {
  auto applied = std::make_shared<Applied>();
  const auto with_images = [this, make](const planner::Snapshot& actual) {
    planner::Snapshot whole = actual;
    for (const auto& [reference, digest] : image.tags) whole.image_digests[reference] = digest;
    return make(whole);
  };
  auto plan = with_images(daemon_->snapshot());
  if (!plan) {
    applied->finished = true;
    applied->result = tl::unexpected<base::Error>(plan.error());
    weather.note(fmt::format("{}: no plan: {}", owner, plan.error().to_string()));
    return applied;
  }
  reconciler::ApplyRequest request;
  auto current = std::make_shared<planner::Plan>(*plan);
  auto settled = std::make_shared<std::set<uint32_t>>();
  request.plan = std::move(*plan);
  request.owner = owner;
  request.wait_for_lock = wait_for_lock;
  request.replan = [with_images, current](const planner::Snapshot& actual) {
    auto fresh = with_images(actual);
    if (fresh) *current = *fresh;
    return fresh;
  };
  request.progress = [this, applied, current, settled,
                      owner](const reconciler::Progress& progress) {
    using Kind = reconciler::Progress::Kind;
    applied->lines.push_back(progress.text);
    if (progress.kind == Kind::StepDone) settled->insert(progress.step.value);
    if (progress.kind == Kind::StepFailed) weather.note(owner + ": " + progress.text);
    if (progress.kind != Kind::StepStarted) return;
    const planner::Step& step = current->steps.at(progress.step.value - 1);
    weather.note(fmt::format("{} #{}: {}", owner, progress.step.value, progress.text));
    const auto* await = std::get_if<planner::AwaitContainer>(&step.operation);
    const auto& plans = store.state.plans;
    const bool journaled = std::any_of(
        plans.begin(), plans.end(), [&](const auto& entry) { return entry.second.owner == owner; });
    const bool creates = std::holds_alternative<planner::CreateContainer>(step.operation) ||
                         std::holds_alternative<planner::StartContainer>(step.operation);
    if (creates && !journaled) broken_rules.push_back(owner + " began before its journal entry");
    if (await != nullptr && !await->required) return;
    for (const planner::StepId before : step.after)
      if (!settled->contains(before.value))
        broken_rules.push_back(
            fmt::format("step {} of {} began before step {}", step.id.value, owner, before.value));
  };
  request.finished = [this, applied, owner](base::Result<> result) {
    if (applied->finished) broken_rules.push_back(owner + " was answered twice");
    applied->finished = true;
    applied->result = std::move(result);
    weather.note(
        fmt::format("{}: {}", owner, applied->result ? "ok" : applied->result.error().to_string()));
  };
  pending_.push_back(applied);
  daemon_->apply(std::move(request));
  return applied;
}

base::Result<> World::apply_and_wait(const std::string& owner, const Make& make,
                                     int64_t milliseconds) {
  const auto applied = apply(owner, make);
  if (!run_until(milliseconds, [&] { return applied->finished || applied->lost; }))
    return base::fail(ErrorCode::Timeout, "'{}' was not answered in {} ms", owner, milliseconds);
  if (applied->lost) return base::fail(ErrorCode::Cancelled, "the daemon died");
  return applied->result;
}

}  // namespace sim
