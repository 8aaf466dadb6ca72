#include <algorithm>
#include <utility>

#include "reconciler/impl.h"

/// A stop that gives its container time has two halves: it is asked to end, and once it has, or its
/// time is over, what is left is taken down. The time between takes no thread and no turn of
/// another step, however many containers do not listen.

namespace reconciler {

using base::ErrorCode;
using planner::StopContainer;

/// A step of `run` removes it.
bool Reconciler::Impl::is_going(const Run& run, const std::string& id) const {
  return std::any_of(run.plan.steps.begin(), run.plan.steps.end(), [&](const planner::Step& step) {
    const auto* removal = std::get_if<planner::RemoveContainer>(&step.operation);
    return removal != nullptr && removal->id == id;
  });
}

/// The removal of a container whose stop has begun, and that waits for nothing else: the container
/// has given its disk up, so both are done.
bool Reconciler::Impl::must_follow(const Run& run, size_t index) const {
  const auto* removal = std::get_if<planner::RemoveContainer>(&run.plan.steps[index].operation);
  if (removal == nullptr) return false;
  bool is_stopped = false;
  for (const planner::StepId before : run.plan.steps[index].after) {
    const StepOutcome outcome = run.outcomes[before.value - 1];
    if (outcome != StepOutcome::Started && outcome != StepOutcome::Done) return false;
    const auto* stop = std::get_if<StopContainer>(&run.plan.steps[before.value - 1].operation);
    is_stopped = is_stopped || (stop != nullptr && stop->id == removal->id);
  }
  return is_stopped;
}

/// What the step gives its container; 0: it has nothing to ask.
int64_t Reconciler::Impl::grace_ms(const Run& run, size_t index) const {
  const auto* stop = std::get_if<StopContainer>(&run.plan.steps[index].operation);
  if (stop == nullptr) return 0;
  const auto found = snapshot_.containers.find(stop->id);
  if (found == snapshot_.containers.end() || !is_up(found->second)) return 0;
  return grace_ms_of(*stop, found->second);
}

void Reconciler::Impl::ask_to_stop(const RunPtr& run, size_t index, int64_t grace_ms) {
  const auto& stop = std::get<StopContainer>(run->plan.steps[index].operation);
  cancel_restart(stop.id);
  ++steps_running_;
  Lane::Task task;
  task.work = [this, run, index, stop, going = is_going(*run, stop.id)](const View& seen) {
    View view = seen;
    view.is_going = going;
    Outcome outcome;
    outcome.result = record_start(*run, index);
    return outcome.result ? operations_.ask_to_stop(stop, view) : outcome;
  };
  task.done = [this, run, index, grace_ms](Outcome& outcome) {
    --steps_running_;
    if (!outcome.result && outcome.result.error().code() == ErrorCode::InvalidArgument)
      return settle(run, index, StepOutcome::Failed, outcome.result.error().to_string(),
                    ErrorCode::InvalidArgument);
    run->asked.insert(index);
    // One that cannot be asked is taken down at once.
    begin_grace(run, index, outcome.result ? grace_ms : 0);
  };
  enqueue(lane_of(run->plan.steps[index].operation), std::move(task));
}

void Reconciler::Impl::begin_grace(const RunPtr& run, size_t index, int64_t grace_ms) {
  const auto& stop = std::get<StopContainer>(run->plan.steps[index].operation);
  const auto found = snapshot_.containers.find(stop.id);
  const bool runs = found != snapshot_.containers.end() && is_up(found->second);
  if (stopping_) return;
  if (!runs || grace_ms <= 0) {
    run->ready.insert(index);
    return;
  }
  run->graces[index] = ports_.workers.after(grace_ms, [this, alive = alive_, run, index] {
    if (*alive) end_grace(run, index);
  });
}

void Reconciler::Impl::end_grace(const RunPtr& run, size_t index) {
  const auto grace = run->graces.find(index);
  if (grace == run->graces.end()) return;
  ports_.workers.cancel(grace->second);
  run->graces.erase(grace);
  run->ready.insert(index);
  dispatch();
}

/// The container has ended.
void Reconciler::Impl::end_graces(const std::string& id) {
  const std::vector<RunPtr> runs(active_.begin(), active_.end());
  for (const RunPtr& run : runs) {
    const std::map<size_t, TimerId> graces = run->graces;
    for (const auto& [index, timer] : graces)
      if (std::get<StopContainer>(run->plan.steps[index].operation).id == id) end_grace(run, index);
  }
}

}  // namespace reconciler
