#pragma once
/// The reconciler's insides, shared by its sources: executor.cpp (plans), stopping.cpp (the time a
/// container has to end), supervision.cpp (facts and what follows from them) and startup.cpp (what
/// an earlier life left).
///
/// Two kinds of order. A *lane* runs the work on one resource one piece after the other, whoever
/// asked: steps and facts alike, so records have one writer at a time. A *lock* keeps plans of one
/// project, or on one container, apart. A plan lets go of a container as soon as its last step on
/// it is settled, because what waits for that container's health may need it restarted meanwhile.
/// A plan that makes a container also *uses* its networks and volumes until that container's record
/// names them: others may use them too, but nobody removes them under it.

#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "reconciler/operations.h"
#include "reconciler/policy.h"
#include "reconciler/reconciler.h"

namespace reconciler {

/// A plan on its way. Indices are step ids minus one.
struct Run {
  uint64_t journal_id = 0;
  bool journaled = false;
  bool internal = false;  ///< Ours: a restart, a repair, a sweep. Locks containers only.
  bool resumed = false;   ///< From the journal of an earlier life.
  planner::Plan plan;
  std::string owner;
  ProgressSink progress;
  std::function<void(base::Result<>)> finished;
  std::function<base::Result<planner::Plan>(const planner::Snapshot&)> replan;

  std::map<std::string, size_t> keys;  ///< Lock → steps that still need it.
  /// Step → locks of what must stay while it is carried out.
  std::map<size_t, std::set<std::string>> uses;
  std::vector<StepOutcome> outcomes;
  std::vector<size_t> waiting_for;
  std::vector<bool> broken;  ///< A predecessor failed; for waits that go on all the same.
  std::vector<std::vector<size_t>> successors;
  std::set<size_t> ready;
  std::set<size_t> awaiting;  ///< AwaitContainer steps under way.
  std::map<size_t, TimerId> await_timers;
  std::set<size_t> asked;            ///< StopContainer steps whose container was asked to end.
  std::map<size_t, TimerId> graces;  ///< Of these, the ones whose time runs.
  size_t unsettled = 0;
  bool began = false;
  bool cancelled = false;
  bool finishing = false;
  std::vector<std::string> failures;
  base::ErrorCode failure_code = base::ErrorCode::Internal;
};

using Volumes = std::map<std::string, planner::VolumeRecord>;  ///< By name.

/// What supervision remembers of a container; lost with the daemon, and meant to be.
struct Supervised {
  uint32_t failures_in_a_row = 0;
  uint32_t failed_starts = 0;
  int64_t started_ms = 0;
  TimerId restart_timer = 0;
  bool restart_planned = false;
};

class Reconciler::Impl {
 public:
  explicit Impl(Ports ports) : ports_(ports), store_(ports.store), operations_(ports, store_) {}
  ~Impl();

  void start(std::function<void(base::Result<>)> ready, Begin begin);
  void apply(ApplyRequest request);
  void cancel(const std::string& owner);
  void stop(std::function<void()> done);
  const planner::Snapshot& snapshot() const { return snapshot_; }
  void when_ended(const std::vector<std::string>& ids, Ended ended, std::function<void()> call);
  void on_notice(std::function<void(const ContainerNotice&)> listener) {
    listener_ = std::move(listener);
  }

 private:
  using RunPtr = std::shared_ptr<Run>;
  struct Lane {
    struct Task {
      std::function<Outcome(const View&)> work;
      std::function<void(Outcome&)> done;
    };
    std::deque<Task> tasks;
    bool busy = false;
  };
  struct Observations {
    base::Result<std::vector<VmObservation>> vms;
    base::Result<std::vector<NetworkObservation>> networks;
    base::Result<std::vector<std::string>> volumes;
    std::map<std::string, uint64_t> touched;  ///< When the look began.
  };

  // Threads and lanes.
  void off_loop(std::function<void()> work, std::function<void()> done);
  void enqueue(const std::string& lane, Lane::Task task);
  void run_lane(const std::string& lane);
  View view_of(const std::string& lane) const;
  Volumes anonymous_volumes_of(const std::string& id) const;
  void when_idle();
  bool is_locked(const std::string& key) const;

  // Records (executor.cpp).
  void apply_changes(const Outcome& outcome);
  void apply_container(const planner::ContainerRecord& record);
  void notify(ContainerNotice::Kind kind, const planner::ContainerRecord& record,
              int64_t restart_in_ms = 0);

  // Plans (executor.cpp).
  void submit(RunPtr run);
  void submit_internal(planner::Plan plan, const std::string& why,
                       std::function<base::Result<planner::Plan>(const planner::Snapshot&)> replan,
                       std::function<void(base::Result<>)> finished);
  void set_keys(Run& run) const;
  std::set<std::string> uses_of(const planner::Operation& operation) const;
  bool is_blocked(const Run& run) const;
  void take_locks(const RunPtr& run);
  std::string holder_of(const Run& run) const;
  void pump();
  bool begin(const RunPtr& run);
  void journal_begin(const RunPtr& run);
  void prepare(Run& run);
  void began(const RunPtr& run);
  void dispatch();
  std::optional<size_t> next_step(const Run& run) const;
  void start_step(const RunPtr& run, size_t index);
  void start_effect(const RunPtr& run, size_t index);
  base::Result<> record_step(const Run& run, size_t index, StepOutcome outcome,
                             const std::string& error);
  base::Result<> record_start(const Run& run, size_t index);
  void start_await(const RunPtr& run, size_t index);
  void evaluate_awaits(const std::string& id);
  bool evaluate_await(const RunPtr& run, size_t index);
  void end_await(const RunPtr& run, size_t index, base::Result<> result);
  void settle(const RunPtr& run, size_t index, StepOutcome outcome, const std::string& error,
              base::ErrorCode code);
  void release_after(Run& run, size_t index, StepOutcome outcome);
  void skip_pending(const RunPtr& run, const std::string& why);
  void release_key(Run& run, const std::string& key);
  void release_uses(Run& run, size_t index);
  void finish_if_settled(const RunPtr& run);
  void finish(const RunPtr& run, base::Result<> result);
  void report(const Run& run, Progress::Kind kind, size_t index, std::string text,
              base::ErrorCode code = base::ErrorCode::Internal);

  // Stops (stopping.cpp).
  bool is_going(const Run& run, const std::string& id) const;
  bool must_follow(const Run& run, size_t index) const;
  int64_t grace_ms(const Run& run, size_t index) const;
  void ask_to_stop(const RunPtr& run, size_t index, int64_t grace_ms);
  void begin_grace(const RunPtr& run, size_t index, int64_t grace_ms);
  void end_grace(const RunPtr& run, size_t index);
  void end_graces(const std::string& id);

  // Supervision (supervision.cpp).
  void on_vm_event(const VmEvent& event);
  void note_exit(const std::string& id, const ExitStatus& exit);
  uint64_t expect_removal(const std::string& id);
  void end_reached(const std::string& id, uint64_t number);
  void removed(const std::string& id);
  void note_health(const std::string& id, planner::HealthState health);
  void note_phase(const std::string& id, planner::Phase phase);
  void note_paused(const std::string& id, const std::string& reason);
  void after_exit(const std::string& id);
  void schedule_restart(const std::string& id);
  void restart_now(const std::string& id);
  void restart_planned(const std::vector<std::string>& ids);
  void restart_ended(const std::vector<std::string>& ids, const base::Result<>& result);
  void plan_removal(const std::string& id);
  void started(const std::string& id, bool internal);
  bool is_restarting(const std::string& id) const;
  /// A restart is coming, and has not been tried in vain too often.
  bool may_recover(const std::string& id) const;
  void cancel_restart(const std::string& id);
  void observe_later();
  void observe();
  Observations look(std::map<std::string, uint64_t> touched);
  void compare(const Observations& seen);
  void compare_container(const planner::ContainerRecord& record, const VmObservation* vm);
  void compare_networks(const std::vector<NetworkObservation>& networks);
  void sweep_container(const std::string& id);
  void sweep_network(const std::string& name);
  void repair_network(const planner::NetworkRecord& record);
  void rejoin(const std::string& network);

  // Start (startup.cpp).
  void loaded(const StoredState& state, const Observations& seen);
  void resume(JournalPlan open);
  void close_plans(const std::vector<JournalPlan>& open, std::function<void()> done);
  void restart_wanted();

  Ports ports_;
  SerialStore store_;
  Operations operations_;
  planner::Snapshot snapshot_;
  std::map<std::string, uint64_t> touched_;  ///< By container id: grows with every change.
  std::set<std::string> dirty_;              ///< Containers whose record is yet to be written.
  std::set<uint64_t> unfinished_;            ///< Journal ids whose end is yet to be written.
  uint64_t ends_numbered_ = 0;
  /// Of a container whose record is yet to be changed: the numbers of what is under way.
  struct Ending {
    std::set<uint64_t> exits;
    std::set<uint64_t> removals;  ///< That follow from an exit.
  };
  struct EndWaiter {
    std::set<uint64_t> numbers;
    Ended ended = Ended::Noted;
    std::function<void()> call;
  };
  std::map<std::string, Ending> ending_;
  std::list<EndWaiter> end_waiters_;
  std::map<std::string, Lane> lanes_;
  std::map<std::string, Supervised> supervised_;
  std::list<RunPtr> queue_;
  std::list<RunPtr> active_;
  std::map<std::string, const Run*> held_;
  std::multimap<std::string, const Run*> used_;  ///< By plans under way.
  std::function<void(const ContainerNotice&)> listener_;
  std::function<void()> after_settling_;  ///< Start-up: called once no lane is busy.
  std::function<void()> stopped_;
  TimerId observe_timer_ = 0;
  size_t steps_running_ = 0;
  size_t work_under_way_ = 0;
  Begin begin_ = Begin::CarryOn;
  bool started_ = false;
  bool stopping_ = false;
  bool dispatching_ = false, dispatch_again_ = false;
  bool pumping_ = false, pump_again_ = false;
  /// Dies with us; what other threads and timers bring later finds nobody home.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// `c:x`, `n:x`, `v:x`: lanes and locks share their names.
std::string lane_of(const planner::Operation& operation);
const std::string* container_of(const planner::Operation& operation);

}  // namespace reconciler
