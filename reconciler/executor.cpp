/// Plans: taking turns, running their steps, journaling, ending.

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/overloaded.h"
#include "base/trace.h"
#include "reconciler/impl.h"

namespace reconciler {

using base::ErrorCode;
using planner::AwaitContainer;
using planner::ContainerRecord;
using planner::Phase;
using planner::Step;

const std::string* container_of(const planner::Operation& operation) {
  return std::visit(base::overloaded{
                        [](const planner::CreateContainer& op) { return &op.record.id; },
                        [](const planner::UpdateContainer& op) { return &op.record.id; },
                        [](const planner::CreateNetwork&) -> const std::string* { return nullptr; },
                        [](const planner::RemoveNetwork&) -> const std::string* { return nullptr; },
                        [](const planner::CreateVolume&) -> const std::string* { return nullptr; },
                        [](const planner::RemoveVolume&) -> const std::string* { return nullptr; },
                        [](const auto& op) { return &op.id; },
                    },
                    operation);
}

std::string lane_of(const planner::Operation& operation) {
  if (const std::string* id = container_of(operation)) return "c:" + *id;
  return std::visit(base::overloaded{
                        [](const planner::CreateNetwork& op) { return "n:" + op.record.name; },
                        [](const planner::RemoveNetwork& op) { return "n:" + op.name; },
                        [](const planner::CreateVolume& op) { return "v:" + op.record.name; },
                        [](const planner::RemoveVolume& op) { return "v:" + op.name; },
                        [](const auto&) { return std::string(); },
                    },
                    operation);
}

namespace {

bool is_await(const Step& step) { return std::holds_alternative<AwaitContainer>(step.operation); }

/// The container whose timeline a plan belongs to.
std::string subject_of(const planner::Plan& plan) {
  for (const Step& step : plan.steps)
    if (const std::string* id = container_of(step.operation)) return *id;
  return "";
}

/// Plans that only take away must work on a full disk, or nobody could make room.
bool only_takes_away(const planner::Plan& plan) {
  return std::all_of(plan.steps.begin(), plan.steps.end(), [](const Step& step) {
    return std::holds_alternative<planner::StopContainer>(step.operation) ||
           std::holds_alternative<planner::KillContainer>(step.operation) ||
           std::holds_alternative<planner::RemoveContainer>(step.operation) ||
           std::holds_alternative<planner::RemoveNetwork>(step.operation) ||
           std::holds_alternative<planner::RemoveVolume>(step.operation);
  });
}

/// Whether the plan wants what others hold or use, or uses what they hold.
template <class Held, class Used>
bool collides(const Run& run, const Held& held, const Used& used) {
  for (const auto& [key, count] : run.keys)
    if (held.contains(key) || used.contains(key)) return true;
  for (const auto& [index, uses] : run.uses)
    for (const std::string& use : uses)
      if (held.contains(use)) return true;
  return false;
}

/// What the plans wait for that came earlier.
class Claims {
 public:
  void add(const Run& run) {
    for (const auto& [key, count] : run.keys) keys_.insert(key);
    for (const auto& [index, uses] : run.uses) uses_.insert(uses.begin(), uses.end());
  }
  bool keep_off(const Run& run) const { return collides(run, keys_, uses_); }

 private:
  std::set<std::string> keys_;
  std::set<std::string> uses_;
};

base::Result<> failure(ErrorCode code, std::string text) {
  return tl::unexpected<base::Error>(base::Error(code, std::move(text)));
}

}  // namespace

// ---- threads and lanes
// ---------------------------------------------------------------------------

Reconciler::Impl::~Impl() {
  *alive_ = false;
  if (observe_timer_ != 0) ports_.workers.cancel(observe_timer_);
  for (auto& [id, supervised] : supervised_)
    if (supervised.restart_timer != 0) ports_.workers.cancel(supervised.restart_timer);
  for (const RunPtr& run : active_)
    for (const auto& [index, timer] : run->await_timers) ports_.workers.cancel(timer);
}

void Reconciler::Impl::off_loop(std::function<void()> work, std::function<void()> done) {
  ++work_under_way_;
  ports_.workers.run(std::move(work), [this, alive = alive_, done = std::move(done)] {
    if (!*alive) return;
    --work_under_way_;
    done();
    dispatch();
    when_idle();
  });
}

void Reconciler::Impl::enqueue(const std::string& lane, Lane::Task task) {
  lanes_[lane].tasks.push_back(std::move(task));
  run_lane(lane);
}

void Reconciler::Impl::run_lane(const std::string& name) {
  const auto found = lanes_.find(name);
  if (found == lanes_.end() || found->second.busy) return;
  if (found->second.tasks.empty()) {
    lanes_.erase(found);
    return;
  }
  found->second.busy = true;
  auto task = std::make_shared<Lane::Task>(std::move(found->second.tasks.front()));
  found->second.tasks.pop_front();
  auto view = std::make_shared<const View>(view_of(name));
  auto outcome = std::make_shared<Outcome>();
  off_loop([task, view, outcome] { *outcome = task->work(*view); },
           [this, name, task, outcome] {
             apply_changes(*outcome);
             lanes_[name].busy = false;
             task->done(*outcome);
             run_lane(name);
           });
}

View Reconciler::Impl::view_of(const std::string& lane) const {
  View view;
  const std::string name = lane.substr(2);
  if (lane.starts_with("n:")) {
    const auto found = snapshot_.networks.find(name);
    if (found != snapshot_.networks.end()) view.network = found->second;
  } else if (lane.starts_with("v:")) {
    const auto found = snapshot_.volumes.find(name);
    if (found != snapshot_.volumes.end()) view.volume = found->second;
  } else {
    const auto found = snapshot_.containers.find(name);
    if (found != snapshot_.containers.end()) view.container = found->second;
    view.anonymous_volumes = anonymous_volumes_of(name);
    for (const auto& [network, record] : snapshot_.networks) view.networks.push_back(network);
  }
  return view;
}

Volumes Reconciler::Impl::anonymous_volumes_of(const std::string& id) const {
  Volumes volumes;
  if (const auto found = snapshot_.containers.find(id); found != snapshot_.containers.end()) {
    for (const std::string& volume : found->second.anonymous_volumes)
      if (const auto record = snapshot_.volumes.find(volume); record != snapshot_.volumes.end())
        volumes.emplace(volume, record->second);
    return volumes;
  }
  // A replacement takes over the volumes of its predecessor: found by the name they share.
  for (auto each = snapshot_.volumes.lower_bound(id + "-");
       each != snapshot_.volumes.end() && each->first.starts_with(id + "-"); ++each)
    if (each->second.anonymous) volumes.emplace(each->first, each->second);
  return volumes;
}

void Reconciler::Impl::when_idle() {
  if (work_under_way_ > 0) return;
  if (after_settling_) std::exchange(after_settling_, nullptr)();
  if (stopping_ && stopped_ && work_under_way_ == 0) std::exchange(stopped_, nullptr)();
}

bool Reconciler::Impl::is_locked(const std::string& key) const {
  if (held_.contains(key) || lanes_.contains(key)) return true;
  return std::any_of(queue_.begin(), queue_.end(),
                     [&](const RunPtr& run) { return run->keys.contains(key); });
}

// ---- records
// -------------------------------------------------------------------------------------

void Reconciler::Impl::apply_changes(const Outcome& outcome) {
  for (const RecordChange& change : outcome.changes) {
    ++snapshot_.serial;
    std::visit(base::overloaded{
                   [&](const ContainerRecord& record) {
                     if (outcome.dirty)
                       dirty_.insert(record.id);
                     else
                       dirty_.erase(record.id);
                     apply_container(record);
                   },
                   [&](const planner::NetworkRecord& r) { snapshot_.networks[r.name] = r; },
                   [&](const planner::VolumeRecord& r) { snapshot_.volumes[r.name] = r; },
                   [&](const ErasedContainer& erased) {
                     const auto found = snapshot_.containers.find(erased.id);
                     if (found == snapshot_.containers.end()) return;
                     const ContainerRecord last = std::move(found->second);
                     cancel_restart(erased.id);
                     supervised_.erase(erased.id);
                     dirty_.erase(erased.id);
                     snapshot_.containers.erase(found);
                     ++touched_[erased.id];
                     notify(ContainerNotice::Kind::Removed, last);
                     removed(erased.id);
                     evaluate_awaits(erased.id);
                     end_graces(erased.id);
                   },
                   [&](const ErasedNetwork& erased) { snapshot_.networks.erase(erased.name); },
                   [&](const ErasedVolume& erased) { snapshot_.volumes.erase(erased.name); },
               },
               change);
  }
}

void Reconciler::Impl::apply_container(const ContainerRecord& record) {
  const auto found = snapshot_.containers.find(record.id);
  std::optional<ContainerRecord> before;
  if (found != snapshot_.containers.end()) before = std::move(found->second);
  snapshot_.containers[record.id] = record;
  ++touched_[record.id];
  if (!before) notify(ContainerNotice::Kind::Created, record);
  const bool was_up =
      before && (before->phase == Phase::Running || before->phase == Phase::Unknown);
  if (record.phase == Phase::Running &&
      (!was_up || before->started_wall_ns != record.started_wall_ns))
    notify(ContainerNotice::Kind::Started, record);
  if (was_up && before->health != record.health && record.phase == Phase::Running)
    notify(ContainerNotice::Kind::Health, record);
  if (before && record.phase == Phase::Running && before->paused_reason != record.paused_reason)
    notify(record.paused_reason.empty() ? ContainerNotice::Kind::Resumed
                                        : ContainerNotice::Kind::Paused,
           record);
  if (was_up && record.phase == Phase::Exited) {
    notify(ContainerNotice::Kind::Exited, record);
    after_exit(record.id);
  }
  evaluate_awaits(record.id);
  if (!is_up(record)) end_graces(record.id);
}

void Reconciler::Impl::notify(ContainerNotice::Kind kind, const ContainerRecord& record,
                              int64_t restart_in_ms) {
  if (listener_) listener_({kind, record, restart_in_ms});
}

// ---- turns
// ---------------------------------------------------------------------------------------

void Reconciler::Impl::apply(ApplyRequest request) {
  auto run = std::make_shared<Run>();
  run->plan = std::move(request.plan);
  run->owner = std::move(request.owner);
  run->progress = std::move(request.progress);
  run->finished = std::move(request.finished);
  run->replan = std::move(request.replan);
  const auto refuse = [&](ErrorCode code, std::string text) {
    if (run->finished) run->finished(failure(code, std::move(text)));
  };
  if (!started_ || stopping_)
    return refuse(ErrorCode::InvalidState,
                  started_ ? "the daemon is stopping; start it and try again"
                           : "the daemon is still starting; try again in a moment");
  if (queue_.size() >= base::limits::plans_waiting_max)
    return refuse(ErrorCode::Busy, fmt::format("{} plans are waiting already; try again later",
                                               base::limits::plans_waiting_max));
  set_keys(*run);
  const std::string holder = holder_of(*run);
  if (!request.wait_for_lock && !holder.empty()) return refuse(ErrorCode::Busy, holder);
  submit(std::move(run));
}

void Reconciler::Impl::submit(RunPtr run) {
  set_keys(*run);
  queue_.push_back(std::move(run));
  pump();
}

void Reconciler::Impl::submit_internal(
    planner::Plan plan, const std::string& why,
    std::function<base::Result<planner::Plan>(const planner::Snapshot&)> replan,
    std::function<void(base::Result<>)> finished) {
  if (stopping_) return;
  auto run = std::make_shared<Run>();
  run->internal = true;
  run->plan = std::move(plan);
  run->owner = why;
  run->replan = std::move(replan);
  run->finished = std::move(finished);
  submit(std::move(run));
}

void Reconciler::Impl::set_keys(Run& run) const {
  run.keys.clear();
  run.uses.clear();
  if (!run.internal && !run.plan.project.empty()) run.keys["p:" + run.plan.project] = 1;
  for (size_t i = 0; i < run.plan.steps.size(); ++i) {
    const Step& step = run.plan.steps[i];
    if (is_await(step)) continue;
    ++run.keys[lane_of(step.operation)];
    if (std::set<std::string> uses = uses_of(step.operation); !uses.empty())
      run.uses.emplace(i, std::move(uses));
    const std::string* id = container_of(step.operation);
    if (run.internal || id == nullptr) continue;
    const auto record = snapshot_.containers.find(*id);
    if (record != snapshot_.containers.end() && !record->second.project.empty())
      run.keys["p:" + record->second.project] = 1;
  }
}

/// Of a container that is made: what no record says it uses until it is there. That includes the
/// anonymous volumes that it takes over from its predecessor, which between the two belong to none.
std::set<std::string> Reconciler::Impl::uses_of(const planner::Operation& operation) const {
  const auto* create = std::get_if<planner::CreateContainer>(&operation);
  if (create == nullptr) return {};
  const ContainerRecord& record = create->record;
  std::set<std::string> uses;
  for (const auto& [network, attachment] : record.applied.networks) uses.insert("n:" + network);
  for (const spec::Mount& mount : record.applied.volumes)
    if (mount.type == spec::MountType::Volume && !mount.source.empty())
      uses.insert("v:" + mount.source);
  for (const std::string& volume : record.anonymous_volumes) uses.insert("v:" + volume);
  for (const auto& [volume, known] : anonymous_volumes_of(record.id)) uses.insert("v:" + volume);
  return uses;
}

/// By plans under way.
bool Reconciler::Impl::is_blocked(const Run& run) const { return collides(run, held_, used_); }

void Reconciler::Impl::take_locks(const RunPtr& run) {
  for (const auto& [key, count] : run->keys) held_[key] = run.get();
  for (const auto& [index, uses] : run->uses)
    for (const std::string& use : uses) used_.emplace(use, run.get());
}

std::string Reconciler::Impl::holder_of(const Run& run) const {
  const auto uses = [](const Run& other, const std::string& key) {
    return std::any_of(other.uses.begin(), other.uses.end(),
                       [&](const auto& entry) { return entry.second.contains(key); });
  };
  const auto text = [](const std::string& key, const Run& holder) {
    const char* what = key[0] == 'p'   ? "project"
                       : key[0] == 'c' ? "container"
                       : key[0] == 'n' ? "network"
                                       : "volume";
    return fmt::format("{} '{}' is held by {}; try again when that is done", what, key.substr(2),
                       holder.owner);
  };
  for (const auto& [key, count] : run.keys) {
    if (const auto held = held_.find(key); held != held_.end()) return text(key, *held->second);
    if (const auto used = used_.find(key); used != used_.end()) return text(key, *used->second);
    for (const RunPtr& waiting : queue_)
      if (waiting->keys.contains(key) || uses(*waiting, key)) return text(key, *waiting);
  }
  for (const auto& [index, used] : run.uses)
    for (const std::string& key : used) {
      if (const auto held = held_.find(key); held != held_.end()) return text(key, *held->second);
      for (const RunPtr& waiting : queue_)
        if (waiting->keys.contains(key)) return text(key, *waiting);
    }
  return "";
}

/// First come, first served per lock: a waiting plan also keeps later ones off its locks. What a
/// beginning plan calls back may ask for another round, which is then run from here.
void Reconciler::Impl::pump() {
  pump_again_ = true;
  if (pumping_) return;
  pumping_ = true;
  while (std::exchange(pump_again_, false)) {
    Claims claims;
    RunPtr next;
    for (const RunPtr& run : queue_) {
      if (!is_blocked(*run) && !claims.keep_off(*run)) {
        next = run;
        break;
      }
      claims.add(*run);
    }
    if (!next) break;
    queue_.remove(next);
    // With a new plan it may need other locks: then it keeps its place and waits for those.
    if (!begin(next)) queue_.push_front(next);
    pump_again_ = true;
  }
  pumping_ = false;
}

bool Reconciler::Impl::begin(const RunPtr& run) {
  if (!run->resumed && (run->internal || run->replan)) {
    // Whoever can plan again does so after any change: what a plan says of phases ages fastest.
    const bool stale = run->internal || run->plan.base_serial != snapshot_.serial;
    if (stale && run->replan) {
      auto plan = run->replan(snapshot_);
      if (!plan) {
        finish(run, tl::unexpected<base::Error>(std::move(plan.error())));
        return true;
      }
      run->plan = std::move(*plan);
      set_keys(*run);
      if (is_blocked(*run)) return false;
    }
  } else if (!run->resumed) {
    if (auto fresh = planner::check_fresh(run->plan, snapshot_); !fresh) {
      finish(run, std::move(fresh));
      return true;
    }
  }
  take_locks(run);
  active_.push_back(run);
  prepare(*run);
  if (run->resumed || run->plan.steps.empty())
    began(run);
  else
    journal_begin(run);
  return true;
}

void Reconciler::Impl::journal_begin(const RunPtr& run) {
  auto id = std::make_shared<base::Result<uint64_t>>(uint64_t{0});
  const int64_t now = ports_.workers.wall_ns();
  off_loop(
      [this, run, id, now] {
        const base::TraceScope span(subject_of(run->plan), "daemon", "the plan is written down");
        *id = store_.with(
            [&](StorePort& store) { return store.begin_plan(run->plan, run->owner, now); });
      },
      [this, run, id] {
        if (*id) {
          run->journal_id = **id;
          run->journaled = true;
          began(run);
        } else if (id->error().code() == ErrorCode::NoSpace && only_takes_away(run->plan)) {
          spdlog::warn(
              "{}: no room to write the journal ({}), ignoring, since the plan only "
              "takes away",
              run->owner, id->error().to_string());
          began(run);
        } else {
          finish(run, tl::unexpected<base::Error>(
                          std::move(id->error()).during("write the plan into the journal")));
        }
      });
}

// ---- steps
// ---------------------------------------------------------------------------------------

void Reconciler::Impl::prepare(Run& run) {
  const size_t count = run.plan.steps.size();
  run.outcomes.resize(count, StepOutcome::Pending);
  run.waiting_for.assign(count, 0);
  run.broken.assign(count, false);
  run.successors.assign(count, {});
  run.unsettled = count;
  for (size_t i = 0; i < count; ++i)
    for (const planner::StepId before : run.plan.steps[i].after) {
      run.successors[before.value - 1].push_back(i);
      ++run.waiting_for[i];
    }
  for (size_t i = 0; i < count; ++i)
    if (run.waiting_for[i] == 0 && run.outcomes[i] == StepOutcome::Pending) run.ready.insert(i);
}

void Reconciler::Impl::began(const RunPtr& run) {
  run->began = true;
  report(*run, Progress::Kind::PlanStarted, 0, run->owner);
  // Of an interrupted plan, what was settled stays settled.
  for (size_t i = 0; i < run->outcomes.size(); ++i)
    if (run->resumed &&
        (run->outcomes[i] == StepOutcome::Done || run->outcomes[i] == StepOutcome::Failed)) {
      --run->unsettled;
      if (run->outcomes[i] == StepOutcome::Failed)
        run->failures.push_back("a step failed before the daemon was restarted");
      release_after(*run, i, run->outcomes[i]);
    }
  if (run->cancelled) skip_pending(run, "cancelled");
  finish_if_settled(run);
  dispatch();
}

/// The step of `run` that may begin now.
std::optional<size_t> Reconciler::Impl::next_step(const Run& run) const {
  if (!run.began) return std::nullopt;
  const bool is_full = steps_running_ >= base::limits::parallel_steps_max;
  for (const size_t index : run.ready)
    if (!is_full || is_await(run.plan.steps[index])) return index;
  return std::nullopt;
}

/// What only takes away goes on though the disk is full: it makes room.
base::Result<> Reconciler::Impl::record_start(const Run& run, size_t index) {
  base::Result<> noted = record_step(run, index, StepOutcome::Started, "");
  if (!noted && noted.error().code() == ErrorCode::NoSpace && only_takes_away(run.plan)) return {};
  return noted;
}

/// Plans take turns, a step each: one of fifty services keeps none of one container waiting.
void Reconciler::Impl::dispatch() {
  dispatch_again_ = true;
  if (dispatching_ || stopping_) return;
  dispatching_ = true;
  while (std::exchange(dispatch_again_, false)) {
    for (auto each = active_.begin(); each != active_.end();) {
      const std::optional<size_t> index = next_step(**each);
      if (!index) {
        ++each;
        continue;
      }
      const RunPtr run = *each;
      active_.splice(active_.end(), active_, each);
      run->ready.erase(*index);
      start_step(run, *index);
      each = active_.begin();
    }
  }
  dispatching_ = false;
}

void Reconciler::Impl::start_step(const RunPtr& run, size_t index) {
  if (run->asked.contains(index)) return start_effect(run, index);
  run->outcomes[index] = StepOutcome::Started;
  report(*run, Progress::Kind::StepStarted, index, planner::describe(run->plan.steps[index]));
  if (is_await(run->plan.steps[index]))
    start_await(run, index);
  else if (const int64_t grace = grace_ms(*run, index); grace > 0)
    ask_to_stop(run, index, grace);
  else
    start_effect(run, index);
}

base::Result<> Reconciler::Impl::record_step(const Run& run, size_t index, StepOutcome outcome,
                                             const std::string& error) {
  if (!run.journaled) return {};
  return store_.with([&](StorePort& store) {
    return store.record_step(run.journal_id, {run.plan.steps[index].id, outcome, error});
  });
}

void Reconciler::Impl::start_effect(const RunPtr& run, size_t index) {
  const Step& step = run->plan.steps[index];
  const std::string* id = container_of(step.operation);
  const bool starts = std::holds_alternative<planner::StartContainer>(step.operation);
  if (id != nullptr) cancel_restart(*id);
  ++steps_running_;
  planner::Operation effect = step.operation;
  if (run->asked.contains(index)) {
    auto& last = std::get<planner::StopContainer>(effect);
    last.signal = "KILL";
    last.grace_ms = 0;
  }
  Lane::Task task;
  const bool going = id != nullptr && is_going(*run, *id);
  task.work = [this, run, starts, index, effect, going](const View& view) {
    Outcome outcome;
    outcome.result = record_start(*run, index);
    if (!outcome.result) return outcome;
    View counted = view;
    counted.is_going = going;
    if (starts && counted.container)
      counted.container->restart_count = run->internal ? counted.container->restart_count + 1 : 0;
    outcome = operations_.run(effect, counted);
    // If this cannot be written the step is only done once more after a crash, which does no harm.
    (void)record_step(*run, index, outcome.result ? StepOutcome::Done : StepOutcome::Failed,
                      outcome.result ? "" : outcome.result.error().to_string());
    return outcome;
  };
  task.done = [this, run, index, starts](Outcome& outcome) {
    --steps_running_;
    const planner::Operation& operation = run->plan.steps[index].operation;
    if (outcome.result && starts) started(*container_of(operation), run->internal);
    if (outcome.result)
      if (const auto* made = std::get_if<planner::CreateNetwork>(&operation))
        if (!snapshot_.networks.at(made->record.name).alive) rejoin(made->record.name);
    settle(run, index, outcome.result ? StepOutcome::Done : StepOutcome::Failed,
           outcome.result ? "" : outcome.result.error().to_string(),
           outcome.result ? ErrorCode::Internal : outcome.result.error().code());
  };
  enqueue(lane_of(step.operation), std::move(task));
}

void Reconciler::Impl::start_await(const RunPtr& run, size_t index) {
  const auto& await = std::get<AwaitContainer>(run->plan.steps[index].operation);
  run->awaiting.insert(index);
  if (evaluate_await(run, index)) return;
  int64_t timeout_ms = await.timeout_ms;
  if (run->resumed && (timeout_ms <= 0 || timeout_ms > base::limits::resumed_await_ms_max))
    timeout_ms = base::limits::resumed_await_ms_max;
  if (timeout_ms <= 0) return;
  run->await_timers[index] =
      ports_.workers.after(timeout_ms, [this, alive = alive_, run, index, timeout_ms] {
        if (!*alive) return;
        run->await_timers.erase(index);
        const auto& late = std::get<AwaitContainer>(run->plan.steps[index].operation);
        end_await(run, index,
                  base::fail(ErrorCode::Timeout,
                             "application not healthy after {}s: container {} did not get ready; "
                             "see 'container logs {}'",
                             timeout_ms / 1000, late.id, late.id));
        dispatch();
      });
}

void Reconciler::Impl::evaluate_awaits(const std::string& id) {
  const std::vector<RunPtr> runs(active_.begin(), active_.end());
  for (const RunPtr& run : runs) {
    const std::vector<size_t> waiting(run->awaiting.begin(), run->awaiting.end());
    for (const size_t index : waiting)
      if (std::get<AwaitContainer>(run->plan.steps[index].operation).id == id)
        evaluate_await(run, index);
  }
}

/// True if the wait is over.
bool Reconciler::Impl::evaluate_await(const RunPtr& run, size_t index) {
  const auto& await = std::get<AwaitContainer>(run->plan.steps[index].operation);
  if (run->broken[index]) {
    end_await(run, index, base::fail(ErrorCode::InvalidState, "a step before it failed"));
    return true;
  }
  std::optional<ContainerRecord> record;
  if (const auto found = snapshot_.containers.find(await.id); found != snapshot_.containers.end())
    record = found->second;
  const Verdict verdict = judge(await, record, may_recover(await.id));
  switch (verdict.hope) {
    case Hope::Pending: return false;
    case Hope::Holds: end_await(run, index, {}); return true;
    case Hope::Lost:
      end_await(run, index, failure(ErrorCode::InvalidState, verdict.text));
      return true;
  }
  return false;
}

void Reconciler::Impl::end_await(const RunPtr& run, size_t index, base::Result<> result) {
  if (run->awaiting.erase(index) == 0) return;
  if (const auto timer = run->await_timers.find(index); timer != run->await_timers.end()) {
    ports_.workers.cancel(timer->second);
    run->await_timers.erase(timer);
  }
  const auto& await = std::get<AwaitContainer>(run->plan.steps[index].operation);
  const bool tolerated = !result && !await.required && !run->cancelled;
  if (tolerated)
    spdlog::warn("{}: {}, ignoring, because '{}' is not required", run->owner,
                 result.error().to_string(), await.id);
  const bool done = result.has_value() || tolerated;
  settle(run, index, done ? StepOutcome::Done : StepOutcome::Failed,
         result ? "" : result.error().to_string(),
         result ? ErrorCode::Internal : result.error().code());
}

void Reconciler::Impl::settle(const RunPtr& run, size_t index, StepOutcome outcome,
                              const std::string& error, ErrorCode code) {
  run->outcomes[index] = outcome;
  --run->unsettled;
  if (outcome == StepOutcome::Failed) {
    if (run->failures.empty()) run->failure_code = code;
    run->failures.push_back(error);
    report(*run, Progress::Kind::StepFailed, index, error, code);
  } else {
    report(*run, Progress::Kind::StepDone, index,
           error.empty() ? planner::describe(run->plan.steps[index]) : "warning: " + error);
  }
  release_after(*run, index, outcome);
  if (run->cancelled) skip_pending(run, "cancelled");
  finish_if_settled(run);
  pump();
}

/// Lets go of what the step held and of those that waited for it. After a failure its dependents
/// are skipped, and theirs; but a wait that is not required goes on, knowing.
void Reconciler::Impl::release_after(Run& run, size_t first, StepOutcome first_outcome) {
  std::vector<std::pair<size_t, StepOutcome>> work{{first, first_outcome}};
  while (!work.empty()) {
    const auto [index, outcome] = work.back();
    work.pop_back();
    if (!is_await(run.plan.steps[index]))
      release_key(run, lane_of(run.plan.steps[index].operation));
    release_uses(run, index);
    for (const size_t next : run.successors[index]) {
      if (run.outcomes[next] != StepOutcome::Pending) continue;
      --run.waiting_for[next];
      const auto* await = std::get_if<AwaitContainer>(&run.plan.steps[next].operation);
      const bool goes_on = await != nullptr && !await->required;
      if (outcome != StepOutcome::Done && !goes_on) {
        run.ready.erase(next);
        run.outcomes[next] = StepOutcome::Skipped;
        --run.unsettled;
        report(run, Progress::Kind::StepSkipped, next, "skipped: a step before it failed");
        work.emplace_back(next, StepOutcome::Skipped);
        continue;
      }
      if (outcome != StepOutcome::Done) run.broken[next] = true;
      if (run.waiting_for[next] == 0) run.ready.insert(next);
    }
  }
}

void Reconciler::Impl::skip_pending(const RunPtr& run, const std::string& why) {
  for (size_t i = 0; i < run->outcomes.size(); ++i) {
    if (run->outcomes[i] != StepOutcome::Pending || must_follow(*run, i)) continue;
    run->ready.erase(i);
    run->outcomes[i] = StepOutcome::Skipped;
    --run->unsettled;
    report(*run, Progress::Kind::StepSkipped, i, "skipped: " + why);
    if (!is_await(run->plan.steps[i])) release_key(*run, lane_of(run->plan.steps[i].operation));
    release_uses(*run, i);
  }
}

void Reconciler::Impl::release_key(Run& run, const std::string& key) {
  const auto found = run.keys.find(key);
  if (found == run.keys.end() || --found->second > 0) return;
  run.keys.erase(found);
  if (const auto held = held_.find(key); held != held_.end() && held->second == &run)
    held_.erase(held);
}

void Reconciler::Impl::release_uses(Run& run, size_t index) {
  const auto found = run.uses.find(index);
  if (found == run.uses.end()) return;
  for (const std::string& use : found->second) {
    const auto [first, last] = used_.equal_range(use);
    const auto ours =
        std::find_if(first, last, [&](const auto& entry) { return entry.second == &run; });
    if (ours != last) used_.erase(ours);
  }
  run.uses.erase(found);
}

// ---- the end
// -------------------------------------------------------------------------------------

void Reconciler::Impl::finish_if_settled(const RunPtr& run) {
  if (run->unsettled > 0 || run->finishing) return;
  run->finishing = true;
  base::Result<> result;
  if (run->cancelled)
    result = base::fail(ErrorCode::Cancelled, "cancelled; steps that had begun were finished");
  else if (!run->failures.empty())
    result = failure(run->failure_code,
                     run->failures.size() == 1
                         ? run->failures.front()
                         : fmt::format("{} of {} steps failed: {}", run->failures.size(),
                                       run->plan.steps.size(), fmt::join(run->failures, "; ")));
  if (!run->journaled) return finish(run, std::move(result));
  auto written = std::make_shared<base::Result<>>();
  off_loop(
      [this, run, written] {
        const base::TraceScope span(subject_of(run->plan), "daemon", "the plan is crossed out");
        *written =
            store_.with([&](StorePort& store) { return store.finish_plan(run->journal_id); });
      },
      [this, run, written, result = std::move(result)] {
        if (!*written) {
          spdlog::warn("{}: {}, trying again later", run->owner, written->error().to_string());
          unfinished_.insert(run->journal_id);
        }
        finish(run, result);
      });
}

void Reconciler::Impl::finish(const RunPtr& run, base::Result<> result) {
  for (const auto& [index, timer] : run->await_timers) ports_.workers.cancel(timer);
  run->await_timers.clear();
  for (const auto& [key, count] : run->keys)
    if (const auto held = held_.find(key); held != held_.end() && held->second == run.get())
      held_.erase(held);
  run->keys.clear();
  while (!run->uses.empty()) release_uses(*run, run->uses.begin()->first);
  active_.remove(run);
  if (run->progress) {
    Progress progress;
    progress.kind = Progress::Kind::PlanFinished;
    progress.success = result.has_value();
    progress.text = result ? "" : result.error().to_string();
    progress.code = result ? ErrorCode::Internal : result.error().code();
    run->progress(progress);
  }
  // Called from a copy: the callback may submit the next plan, or drop the caller.
  if (auto finished = std::exchange(run->finished, nullptr)) finished(std::move(result));
  pump();
}

void Reconciler::Impl::report(const Run& run, Progress::Kind kind, size_t index, std::string text,
                              ErrorCode code) {
  if (!run.progress) return;
  Progress progress;
  progress.kind = kind;
  if (index < run.plan.steps.size()) progress.step = run.plan.steps[index].id;
  progress.text = std::move(text);
  progress.success = kind != Progress::Kind::StepFailed;
  progress.code = code;
  run.progress(progress);
}

void Reconciler::Impl::cancel(const std::string& owner) {
  for (auto each = queue_.begin(); each != queue_.end();) {
    const RunPtr run = *each;
    if (run->internal || run->owner != owner) {
      ++each;
      continue;
    }
    each = queue_.erase(each);
    finish(run, base::fail(ErrorCode::Cancelled, "cancelled before it began"));
    each = queue_.begin();
  }
  const std::vector<RunPtr> runs(active_.begin(), active_.end());
  for (const RunPtr& run : runs) {
    if (run->internal || run->owner != owner || run->finishing) continue;
    run->cancelled = true;
    if (!run->began) continue;  // its journal entry is being written; began() looks again
    skip_pending(run, "cancelled");
    const std::vector<size_t> waiting(run->awaiting.begin(), run->awaiting.end());
    for (const size_t index : waiting)
      end_await(run, index, base::fail(ErrorCode::Cancelled, "cancelled while waiting"));
    finish_if_settled(run);
  }
  pump();
}

/// Plans under way are left in the journal: the next start carries on with them.
void Reconciler::Impl::stop(std::function<void()> done) {
  stopping_ = true;
  stopped_ = std::move(done);
  if (observe_timer_ != 0) ports_.workers.cancel(std::exchange(observe_timer_, 0));
  for (auto& [id, supervised] : supervised_)
    if (supervised.restart_timer != 0)
      ports_.workers.cancel(std::exchange(supervised.restart_timer, 0));
  const std::list<RunPtr> waiting = std::exchange(queue_, {});
  for (const RunPtr& run : waiting)
    finish(run, base::fail(ErrorCode::Cancelled, "the daemon is stopping; try again after that"));
  const std::vector<RunPtr> runs(active_.begin(), active_.end());
  for (const RunPtr& run : runs) {
    for (const auto& [index, timer] : run->await_timers) ports_.workers.cancel(timer);
    run->await_timers.clear();
    for (const auto& [index, timer] : run->graces) ports_.workers.cancel(timer);
    run->graces.clear();
    if (auto finished = std::exchange(run->finished, nullptr))
      finished(base::fail(ErrorCode::Cancelled,
                          "the daemon is stopping; the plan is carried on at its next start"));
  }
  when_idle();
}

// ---- the public face
// -----------------------------------------------------------------------------

Reconciler::Reconciler(Ports ports) : impl_(std::make_unique<Impl>(ports)) {}
Reconciler::~Reconciler() = default;
void Reconciler::start(std::function<void(base::Result<>)> ready, Begin begin) {
  impl_->start(std::move(ready), begin);
}
planner::Snapshot Reconciler::snapshot() const { return impl_->snapshot(); }
void Reconciler::when_ended(const std::vector<std::string>& ids, Ended ended,
                            std::function<void()> call) {
  impl_->when_ended(ids, ended, std::move(call));
}
void Reconciler::apply(ApplyRequest request) { impl_->apply(std::move(request)); }
void Reconciler::cancel(const std::string& owner) { impl_->cancel(owner); }
void Reconciler::on_notice(std::function<void(const ContainerNotice&)> listener) {
  impl_->on_notice(std::move(listener));
}
void Reconciler::stop(std::function<void()> done) { impl_->stop(std::move(done)); }

}  // namespace reconciler
