/// What an earlier life left: records, running VMs, half-done plans.

#include <memory>
#include <utility>

#include "base/log.h"
#include "reconciler/impl.h"

namespace reconciler {

using planner::Phase;

void Reconciler::Impl::start(std::function<void(base::Result<>)> ready, Begin begin) {
  begin_ = begin;
  auto state = std::make_shared<base::Result<StoredState>>(StoredState{});
  auto adopted = std::make_shared<base::Result<>>();
  auto seen = std::make_shared<Observations>();
  // Events come on the driver's threads: they only cross over to the loop.
  WorkersPort* const workers = &ports_.workers;
  const auto on_event = [this, alive = alive_, workers](VmEvent event) {
    workers->post([this, alive, event = std::move(event)] {
      if (*alive) on_vm_event(event);
    });
  };
  off_loop(
      [this, state, adopted, seen, on_event] {
        *state = store_.with([](StorePort& store) { return store.load(); });
        if (!*state) return;
        *adopted = ports_.runtime.adopt(on_event);
        if (*adopted) *seen = look({});
      },
      [this, state, adopted, seen, ready] {
        const auto failed = [&](base::Error& error, const char* what) {
          ready(tl::unexpected<base::Error>(std::move(error).during(what)));
        };
        if (!*state) return failed(state->error(), "read the state");
        if (!*adopted) return failed(adopted->error(), "take over running containers");
        if (!seen->vms) return failed(seen->vms.error(), "list virtual machines");
        if (!seen->networks) return failed(seen->networks.error(), "list networks");
        if (!seen->volumes) return failed(seen->volumes.error(), "list volumes");
        // Once facts are noted and strays are gone, what was begun is carried on.
        after_settling_ = [this, state, ready] {
          if (begin_ == Begin::TakeOver)
            return close_plans((*state)->open_plans, [this, ready] {
              started_ = true;
              ready({});
            });
          started_ = true;
          for (JournalPlan& open : (*state)->open_plans) resume(std::move(open));
          restart_wanted();
          observe_later();
          ready({});
        };
        loaded(**state, *seen);
      });
}

void Reconciler::Impl::loaded(const StoredState& state, const Observations& seen) {
  snapshot_.serial = state.serial;
  snapshot_.lineage = state.lineage;
  const int64_t now = ports_.workers.monotonic_ms();
  for (const auto& record : state.containers) {
    supervised_[record.id].started_ms = now;
    snapshot_.containers.emplace(record.id, record);
  }
  for (const auto& record : state.networks) snapshot_.networks.emplace(record.name, record);
  for (const auto& record : state.volumes) snapshot_.volumes.emplace(record.name, record);
  compare(seen);
}

/// What stays open is finished by the next start that carries on; its steps are safe to repeat.
void Reconciler::Impl::close_plans(const std::vector<JournalPlan>& open,
                                   std::function<void()> done) {
  std::vector<uint64_t> ids;
  for (const JournalPlan& plan : open) ids.push_back(plan.id);
  off_loop(
      [this, ids] {
        for (const uint64_t id : ids)
          if (const auto closed =
                  store_.with([&](StorePort& store) { return store.finish_plan(id); });
              !closed)
            spdlog::warn("an interrupted plan stays open: {}", closed.error().to_string());
      },
      std::move(done));
}

void Reconciler::Impl::resume(JournalPlan open) {
  auto run = std::make_shared<Run>();
  run->journal_id = open.id;
  run->journaled = true;
  run->resumed = true;
  run->owner = open.owner + ", carried on after a restart of the daemon";
  const std::string& command = open.plan.command;
  run->internal = command == "restart" || command == "repair" || command == "sweep" ||
                  command == "remove after exit";
  run->outcomes.resize(open.plan.steps.size(), StepOutcome::Pending);
  for (const JournalStep& step : open.steps)
    if (step.step.value >= 1 && step.step.value <= run->outcomes.size() &&
        (step.outcome == StepOutcome::Done || step.outcome == StepOutcome::Failed))
      run->outcomes[step.step.value - 1] = step.outcome;
  if (command == "restart") {
    std::vector<std::string> ids;
    for (const planner::Step& step : open.plan.steps)
      if (const auto* begins = std::get_if<planner::StartContainer>(&step.operation))
        ids.push_back(begins->id);
    restart_planned(ids);
    run->finished = [this, ids](const base::Result<>& result) { restart_ended(ids, result); };
  }
  run->plan = std::move(open.plan);
  spdlog::info("carrying on with {}", open.owner);
  submit(std::move(run));
}

/// What should run and does not, by its policy, dependencies first.
void Reconciler::Impl::restart_wanted() {
  const auto find = [](const planner::Snapshot& actual) {
    std::vector<std::string> ids;
    for (const auto& [id, record] : actual.containers)
      if (should_restart(record, 0) && !record.auto_remove) ids.push_back(id);
    return ids;
  };
  for (const std::string& id : find(snapshot_)) cancel_restart(id);
  const std::vector<std::string> ids = find(snapshot_);
  if (ids.empty()) return;
  const auto make = [find, ids](const planner::Snapshot& actual) -> base::Result<planner::Plan> {
    std::vector<std::string> still;
    for (const std::string& id : ids)
      if (const auto now = actual.containers.find(id);
          now != actual.containers.end() && should_restart(now->second, 0))
        still.push_back(id);
    planner::Plan plan =
        TRY(planner::plan_start(still, actual, "it should run; the daemon came back"));
    plan.command = "restart";
    plan.project.clear();
    return plan;
  };
  auto plan = make(snapshot_);
  if (!plan) return spdlog::warn("restarts: {}", plan.error().to_string());
  restart_planned(ids);
  submit_internal(std::move(*plan), "the restarts after the daemon came back", make,
                  [this, ids](const base::Result<>& result) { restart_ended(ids, result); });
}

}  // namespace reconciler
