/// Facts about containers and networks, and what follows from them: records, DNS, restarts,
/// repairs. Events only wake us; every few seconds we look for ourselves, so a lost one heals.

#include <csignal>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/log.h"
#include "reconciler/impl.h"

namespace reconciler {

using planner::ContainerRecord;
using planner::HealthState;
using planner::Phase;
using planner::Plan;
using planner::Snapshot;

namespace {

HealthState state_of(Health health) {
  switch (health) {
    case Health::None: return HealthState::None;
    case Health::Starting: return HealthState::Starting;
    case Health::Healthy: return HealthState::Healthy;
    case Health::Unhealthy: return HealthState::Unhealthy;
  }
  return HealthState::None;
}

/// A plan of one step that the planner has no reason to know: it undoes what no record names.
Plan repair_plan(const std::string& command, std::vector<planner::Operation> operations,
                 const std::string& address, const std::string& reason, const Snapshot& actual) {
  Plan plan;
  plan.command = command;
  plan.base_serial = actual.serial;
  plan.lineage = actual.lineage;
  for (planner::Operation& operation : operations) {
    planner::Step step;
    step.id = {static_cast<uint32_t>(plan.steps.size() + 1)};
    if (!plan.steps.empty()) step.after.push_back(plan.steps.back().id);
    step.address = address;
    step.operation = std::move(operation);
    step.reason = reason;
    plan.steps.push_back(std::move(step));
  }
  return plan;
}

}  // namespace

// ---- events
// --------------------------------------------------------------------------------------

void Reconciler::Impl::on_vm_event(const VmEvent& event) {
  const auto found = snapshot_.containers.find(event.id);
  if (found == snapshot_.containers.end() || event.generation > found->second.generation) return;
  switch (event.kind) {
    case VmEvent::Kind::Exited: note_exit(event.id, event.exit); break;
    case VmEvent::Kind::Health: note_health(event.id, state_of(event.health)); break;
    case VmEvent::Kind::Paused: note_paused(event.id, event.detail); break;
  }
}

void Reconciler::Impl::note_exit(const std::string& id, const ExitStatus& exit) {
  const uint64_t number = ++ends_numbered_;
  ending_[id].exits.insert(number);
  enqueue("c:" + id, {[this, exit](const View& view) { return operations_.note_exit(view, exit); },
                      [this, id, number](Outcome& outcome) {
                        end_reached(id, number);
                        if (!outcome.result)
                          spdlog::warn("container '{}' exited: {}, trying again later", id,
                                       outcome.result.error().to_string());
                      }});
}

/// Whoever waits for the exit and for what follows from it waits on.
uint64_t Reconciler::Impl::expect_removal(const std::string& id) {
  const uint64_t number = ++ends_numbered_;
  Ending& ending = ending_[id];
  for (EndWaiter& waiter : end_waiters_)
    if (waiter.ended == Ended::Removed &&
        std::any_of(ending.exits.begin(), ending.exits.end(),
                    [&](uint64_t exit) { return waiter.numbers.contains(exit); }))
      waiter.numbers.insert(number);
  ending.removals.insert(number);
  return number;
}

/// Of a removal it comes twice: when the record is gone, and when its plan is over.
void Reconciler::Impl::end_reached(const std::string& id, uint64_t number) {
  const auto found = ending_.find(id);
  if (found == ending_.end()) return;
  found->second.exits.erase(number);
  found->second.removals.erase(number);
  if (found->second.exits.empty() && found->second.removals.empty()) ending_.erase(found);
  std::list<EndWaiter> satisfied;
  for (auto waiter = end_waiters_.begin(); waiter != end_waiters_.end();) {
    const auto next = std::next(waiter);
    waiter->numbers.erase(number);
    if (waiter->numbers.empty()) satisfied.splice(satisfied.end(), end_waiters_, waiter);
    waiter = next;
  }
  for (const EndWaiter& waiter : satisfied) waiter.call();
}

void Reconciler::Impl::removed(const std::string& id) {
  const auto found = ending_.find(id);
  if (found == ending_.end()) return;
  for (const uint64_t number : std::set<uint64_t>(found->second.removals)) end_reached(id, number);
}

void Reconciler::Impl::when_ended(const std::vector<std::string>& ids, Ended ended,
                                  std::function<void()> call) {
  EndWaiter waiter{{}, ended, std::move(call)};
  const auto await = [&](const Ending& ending) {
    waiter.numbers.insert(ending.exits.begin(), ending.exits.end());
    if (ended == Ended::Removed)
      waiter.numbers.insert(ending.removals.begin(), ending.removals.end());
  };
  for (const std::string& id : ids)
    if (const auto found = ending_.find(id); found != ending_.end()) await(found->second);
  if (ids.empty())
    for (const auto& [id, ending] : ending_) await(ending);
  if (waiter.numbers.empty()) return waiter.call();
  end_waiters_.push_back(std::move(waiter));
}

void Reconciler::Impl::note_health(const std::string& id, HealthState health) {
  enqueue("c:" + id,
          {[this, health](const View& view) { return operations_.note_health(view, health); },
           [id](Outcome& outcome) {
             if (!outcome.result)
               spdlog::warn("health of container '{}': {}, trying again later", id,
                            outcome.result.error().to_string());
           }});
}

void Reconciler::Impl::note_phase(const std::string& id, Phase phase) {
  enqueue("c:" + id,
          {[this, phase](const View& view) { return operations_.note_phase(view, phase); },
           [](Outcome&) {}});
}

void Reconciler::Impl::note_paused(const std::string& id, const std::string& reason) {
  if (!reason.empty())
    spdlog::warn("container '{}' is paused: {}", id, reason);
  else
    spdlog::info("container '{}' goes on", id);
  enqueue("c:" + id,
          {[this, reason](const View& view) { return operations_.note_paused(view, reason); },
           [](Outcome&) {}});
}

// ---- restarts
// ------------------------------------------------------------------------------------

void Reconciler::Impl::started(const std::string& id, bool internal) {
  Supervised& supervised = supervised_[id];
  supervised.started_ms = ports_.workers.monotonic_ms();
  supervised.failed_starts = 0;
  if (!internal) supervised.failures_in_a_row = 0;
}

void Reconciler::Impl::after_exit(const std::string& id) {
  const auto found = snapshot_.containers.find(id);
  if (found == snapshot_.containers.end()) return;
  if (found->second.auto_remove) return plan_removal(id);
  Supervised& supervised = supervised_[id];
  const int64_t ran_ms = ports_.workers.monotonic_ms() - supervised.started_ms;
  if (supervised.started_ms != 0 && ran_ms >= base::limits::restart_backoff_reset_after_ms)
    supervised.failures_in_a_row = 0;
  schedule_restart(id);
}

bool Reconciler::Impl::is_restarting(const std::string& id) const {
  const auto found = supervised_.find(id);
  return found != supervised_.end() &&
         (found->second.restart_timer != 0 || found->second.restart_planned);
}

bool Reconciler::Impl::may_recover(const std::string& id) const {
  return is_restarting(id) &&
         supervised_.at(id).failures_in_a_row <= base::limits::await_restarts_max;
}

void Reconciler::Impl::cancel_restart(const std::string& id) {
  const auto found = supervised_.find(id);
  if (found == supervised_.end() || found->second.restart_timer == 0) return;
  ports_.workers.cancel(std::exchange(found->second.restart_timer, 0));
}

void Reconciler::Impl::schedule_restart(const std::string& id) {
  const auto found = snapshot_.containers.find(id);
  if (found == snapshot_.containers.end() || stopping_ || begin_ == Begin::TakeOver) return;
  Supervised& supervised = supervised_[id];
  if (is_restarting(id) || !should_restart(found->second, supervised.failed_starts)) return;
  const int64_t delay = restart_delay_ms(supervised.failures_in_a_row++);
  notify(ContainerNotice::Kind::Restarting, found->second, delay);
  supervised.restart_timer = ports_.workers.after(delay, [this, alive = alive_, id] {
    if (!*alive) return;
    supervised_[id].restart_timer = 0;
    restart_now(id);
  });
}

void Reconciler::Impl::restart_now(const std::string& id) {
  const auto found = snapshot_.containers.find(id);
  if (found == snapshot_.containers.end()) return;
  const std::string reason =
      fmt::format("it exited ({}) and its policy restarts it", found->second.exit_code);
  const auto make = [this, id, reason](const Snapshot& actual) -> base::Result<Plan> {
    const auto now = actual.containers.find(id);
    const bool still = now != actual.containers.end() &&
                       should_restart(now->second, supervised_[id].failed_starts);
    Plan plan = TRY(
        planner::plan_start(still ? std::vector{id} : std::vector<std::string>{}, actual, reason));
    plan.command = "restart";
    plan.project.clear();
    return plan;
  };
  auto plan = make(snapshot_);
  if (!plan || plan->steps.empty()) return;
  restart_planned({id});
  submit_internal(std::move(*plan), fmt::format("the restart of '{}'", id), make,
                  [this, id](const base::Result<>& result) { restart_ended({id}, result); });
}

void Reconciler::Impl::restart_planned(const std::vector<std::string>& ids) {
  for (const std::string& id : ids) supervised_[id].restart_planned = true;
}

void Reconciler::Impl::restart_ended(const std::vector<std::string>& ids,
                                     const base::Result<>& result) {
  if (!result) spdlog::warn("restart: {}", result.error().to_string());
  for (const std::string& id : ids) {
    const auto found = snapshot_.containers.find(id);
    if (found == snapshot_.containers.end()) {
      supervised_.erase(id);
      continue;
    }
    Supervised& supervised = supervised_[id];
    supervised.restart_planned = false;
    if (found->second.phase == Phase::Exited || found->second.phase == Phase::Created) {
      if (!result) ++supervised.failed_starts;
      schedule_restart(id);
    }
    evaluate_awaits(id);
  }
}

void Reconciler::Impl::plan_removal(const std::string& id) {
  const auto make = [id](const Snapshot& actual) -> base::Result<Plan> {
    const auto now = actual.containers.find(id);
    const bool still = now != actual.containers.end() &&
                       (now->second.phase == Phase::Exited || now->second.phase == Phase::Missing);
    Plan plan = TRY(planner::plan_remove(still ? std::vector{id} : std::vector<std::string>{},
                                         actual, false, true));
    plan.command = "remove after exit";
    plan.project.clear();
    return plan;
  };
  auto plan = make(snapshot_);
  if (!plan || plan->steps.empty() || stopping_) return;
  submit_internal(std::move(*plan), fmt::format("the removal of '{}' after its exit", id), make,
                  [this, id, number = expect_removal(id)](const base::Result<>& result) {
                    end_reached(id, number);
                    if (!result)
                      spdlog::warn("removal of '{}': {}, trying again later", id,
                                   result.error().to_string());
                  });
}

// ---- looking for ourselves
// -----------------------------------------------------------------------

void Reconciler::Impl::observe_later() {
  if (stopping_) return;
  observe_timer_ = ports_.workers.after(base::limits::observe_interval_ms, [this, alive = alive_] {
    if (!*alive) return;
    observe_timer_ = 0;
    observe();
  });
}

Reconciler::Impl::Observations Reconciler::Impl::look(std::map<std::string, uint64_t> touched) {
  Observations seen;
  seen.touched = std::move(touched);
  seen.vms = ports_.runtime.list();
  seen.networks = ports_.network.list();
  seen.volumes = ports_.runtime.list_volumes();
  return seen;
}

void Reconciler::Impl::observe() {
  for (const std::string& id : std::set<std::string>(dirty_))
    enqueue("c:" + id,
            {[this](const View& view) { return operations_.rewrite(view); }, [](Outcome&) {}});
  auto seen = std::make_shared<Observations>();
  auto closed = std::make_shared<std::set<uint64_t>>();
  off_loop(
      [this, seen, closed, touched = touched_, unfinished = unfinished_] {
        for (const uint64_t plan : unfinished)
          if (store_.with([&](StorePort& store) { return store.finish_plan(plan); }))
            closed->insert(plan);
        *seen = look(touched);
      },
      [this, seen, closed] {
        for (const uint64_t plan : *closed) unfinished_.erase(plan);
        if (!stopping_) compare(*seen);
        // Ids that are gone need no counter once no look that began before is under way.
        std::erase_if(touched_, [&](const auto& entry) {
          return !snapshot_.containers.contains(entry.first) && !is_locked("c:" + entry.first);
        });
        observe_later();
      });
}

void Reconciler::Impl::compare(const Observations& seen) {
  const auto untouched = [&](const std::string& id) {
    const auto then = seen.touched.find(id);
    const auto now = touched_.find(id);
    const uint64_t before = then == seen.touched.end() ? 0 : then->second;
    return (now == touched_.end() ? 0 : now->second) == before && !is_locked("c:" + id);
  };
  if (seen.vms) {
    std::map<std::string, const VmObservation*> by_id;
    for (const VmObservation& vm : *seen.vms) by_id[vm.id] = &vm;
    std::vector<ContainerRecord> records;
    for (const auto& [id, record] : snapshot_.containers)
      if (untouched(id)) records.push_back(record);
    for (const ContainerRecord& record : records) {
      const auto vm = by_id.find(record.id);
      compare_container(record, vm == by_id.end() ? nullptr : vm->second);
    }
    for (const auto& [id, vm] : by_id)
      if (!snapshot_.containers.contains(id) && untouched(id)) sweep_container(id);
  }
  if (seen.networks) compare_networks(*seen.networks);
  if (!seen.volumes) return;
  const std::set<std::string> present(seen.volumes->begin(), seen.volumes->end());
  for (auto& [name, record] : snapshot_.volumes)
    if (!is_locked("v:" + name)) record.present = present.contains(name);
}

void Reconciler::Impl::compare_container(const ContainerRecord& record, const VmObservation* vm) {
  const VmPhase phase = vm == nullptr ? VmPhase::Absent : vm->phase;
  if (!is_up(record)) {
    if (phase == VmPhase::Running || phase == VmPhase::Unknown) {
      spdlog::warn("container '{}' is not meant to run but its VM does; ending it", record.id);
      enqueue("c:" + record.id, {[this](const View& view) { return operations_.end_stray(view); },
                                 [id = record.id](Outcome& outcome) {
                                   if (!outcome.result)
                                     spdlog::warn("ending '{}': {}, trying again later", id,
                                                  outcome.result.error().to_string());
                                 }});
    } else if (record.auto_remove && record.phase != Phase::Created) {
      plan_removal(record.id);
    } else if (vm == nullptr || !vm->disk_present) {
      if (record.phase != Phase::Missing) note_phase(record.id, Phase::Missing);
    } else if (record.phase == Phase::Missing) {
      note_phase(record.id, record.started_wall_ns == 0 ? Phase::Created : Phase::Exited);
    }
    return;
  }
  switch (phase) {
    case VmPhase::Running:
      if (record.phase == Phase::Unknown) note_phase(record.id, Phase::Running);
      if (vm->paused_reason != record.paused_reason) note_paused(record.id, vm->paused_reason);
      if (state_of(vm->health) != record.health && vm->health != Health::Starting &&
          vm->health != Health::None)
        note_health(record.id, state_of(vm->health));
      break;
    case VmPhase::Unknown:
      if (record.phase != Phase::Unknown) note_phase(record.id, Phase::Unknown);
      break;
    case VmPhase::Exited:
    case VmPhase::Absent: {
      ExitStatus exit;
      exit.code = 255;
      exit.vm_died = true;
      exit.reason = "its virtual machine was found gone";
      note_exit(record.id, vm != nullptr && vm->exit ? *vm->exit : exit);
      break;
    }
  }
}

void Reconciler::Impl::compare_networks(const std::vector<NetworkObservation>& networks) {
  std::set<std::string> alive;
  for (const NetworkObservation& network : networks) {
    if (network.alive) alive.insert(network.name);
    if (!snapshot_.networks.contains(network.name) && !is_locked("n:" + network.name))
      sweep_network(network.name);
  }
  std::vector<planner::NetworkRecord> dead;
  for (auto& [name, record] : snapshot_.networks) {
    if (is_locked("n:" + name)) continue;
    record.alive = record.alive && alive.contains(name);  // only a finished repair revives it
    if (!record.alive) dead.push_back(record);
  }
  for (const planner::NetworkRecord& record : dead) repair_network(record);
}

void Reconciler::Impl::sweep_container(const std::string& id) {
  spdlog::warn("no record names the container '{}'; removing its VM and disk", id);
  submit_internal(
      repair_plan("sweep", {planner::RemoveContainer{id, false}}, "container." + id,
                  "no record names it", snapshot_),
      "a sweep",
      [id](const Snapshot& actual) -> base::Result<Plan> {
        if (actual.containers.contains(id)) return Plan{};
        return repair_plan("sweep", {planner::RemoveContainer{id, false}}, "container." + id,
                           "no record names it", actual);
      },
      nullptr);
}

void Reconciler::Impl::sweep_network(const std::string& name) {
  spdlog::warn("no record names the network '{}'; removing it", name);
  submit_internal(
      repair_plan("sweep", {planner::RemoveNetwork{name}}, "network." + name, "no record names it",
                  snapshot_),
      "a sweep",
      [name](const Snapshot& actual) -> base::Result<Plan> {
        if (actual.networks.contains(name)) return Plan{};
        return repair_plan("sweep", {planner::RemoveNetwork{name}}, "network." + name,
                           "no record names it", actual);
      },
      nullptr);
}

void Reconciler::Impl::repair_network(const planner::NetworkRecord& record) {
  spdlog::warn("network '{}' does not answer; making it again", record.name);
  submit_internal(
      repair_plan("repair", {planner::CreateNetwork{record}}, "network." + record.name,
                  "it does not answer any more", snapshot_),
      fmt::format("the repair of network '{}'", record.name),
      [name = record.name](const Snapshot& actual) -> base::Result<Plan> {
        const auto now = actual.networks.find(name);
        if (now == actual.networks.end() || now->second.alive) return Plan{};
        return repair_plan("repair", {planner::CreateNetwork{now->second}}, "network." + name,
                           "it does not answer any more", actual);
      },
      nullptr);
}

/// Puts everybody back on a network that was made again; the last one ends the repair. If one
/// fails, the record stays "not alive" and the next look begins the repair anew.
void Reconciler::Impl::rejoin(const std::string& network) {
  std::vector<std::string> ids;
  for (const auto& [id, record] : snapshot_.containers)
    if (record.phase == Phase::Running && record.applied.networks.contains(network))
      ids.push_back(id);
  const auto repaired = [this, network] {
    enqueue("n:" + network,
            {[this](const View& view) { return operations_.note_network_alive(view); },
             [](Outcome&) {}});
  };
  if (ids.empty()) return repaired();
  struct Round {
    size_t left = 0;
    bool failed = false;
  };
  const auto round = std::make_shared<Round>(Round{ids.size(), false});
  for (const std::string& id : ids)
    enqueue("c:" + id,
            {[this, network](const View& view) { return operations_.rejoin(view, network); },
             [id, network, round, repaired](Outcome& outcome) {
               if (!outcome.result) {
                 round->failed = true;
                 spdlog::warn(
                     "container '{}' could not be put back on network '{}': {}, trying "
                     "again later",
                     id, network, outcome.result.error().to_string());
               }
               if (--round->left == 0 && !round->failed) repaired();
             }});
}

}  // namespace reconciler
