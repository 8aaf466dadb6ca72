#pragma once
/// Keeps reality as plans said it should be: runs plans through the ports, journals every step
/// before and after, restarts what its policy says, finishes what a crash interrupted.
///
/// One libuv loop owns all state. Facts come in through one inbox (a step finished, a VM exited, a
/// timer fired, a request arrived); decisions go out as steps on worker threads. It knows nothing
/// of HTTP, QEMU or files: those are ports.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "planner/plan.h"
#include "planner/snapshot.h"
#include "reconciler/ports/image.h"
#include "reconciler/ports/network.h"
#include "reconciler/ports/runtime.h"
#include "reconciler/ports/store.h"
#include "reconciler/ports/workers.h"

namespace reconciler {

struct Ports {
  RuntimePort& runtime;
  NetworkPort& network;
  ImagePort& image;
  StorePort& store;
  WorkersPort& workers;  ///< Clock, timers, and where blocking steps run; simulated in tests.
};

/// What a caller of `apply` sees, in order. Told on the loop's thread.
struct Progress {
  enum class Kind { PlanStarted, StepStarted, StepDone, StepFailed, StepSkipped, PlanFinished };
  Kind kind = Kind::PlanStarted;
  planner::StepId step;
  std::string text;     ///< describe(step), or the error.
  bool success = true;  ///< PlanFinished: every step succeeded.
  base::ErrorCode code =
      base::ErrorCode::Internal;  ///< StepFailed, and PlanFinished without success.
};
using ProgressSink = std::function<void(const Progress&)>;

struct ApplyRequest {
  planner::Plan plan;
  std::string owner;          ///< For the message of a second caller: "up of 'shop' by pid 4242".
  bool wait_for_lock = true;  ///< false: Busy at once, naming the owner.
  ProgressSink progress;
  std::function<void(base::Result<>)> finished;
  /// Asked for a new plan if anything has changed by the time its turn has come. Absent: the plan
  /// is applied as it is, and if a record it relies on has changed that is InvalidState.
  std::function<base::Result<planner::Plan>(const planner::Snapshot&)> replan;
};

/// What happened to a container, for `ls`, attached `up`, events.
struct ContainerNotice {
  enum class Kind { Created, Started, Exited, Restarting, Health, Paused, Resumed, Removed };
  Kind kind = Kind::Created;
  planner::ContainerRecord record;
  int64_t restart_in_ms = 0;
};

/// What a start does about what an earlier life had begun. Everything may be asked for afterwards.
enum class Begin {
  CarryOn,   ///< Open plans are finished, and what should run and does not is started.
  TakeOver,  ///< Nothing is started, now or by a policy later; open plans are closed as they are.
};

/// How far the end of a container has got.
enum class Ended {
  Noted,    ///< It is in the records.
  Removed,  ///< And what follows from it is done: one of `run --rm` is gone.
};

/// All member functions must be called on the loop's thread.
class Reconciler {
 public:
  explicit Reconciler(Ports ports);
  ~Reconciler();
  Reconciler(const Reconciler&) = delete;
  Reconciler& operator=(const Reconciler&) = delete;

  /// Loads the store, adopts what still runs, sweeps what no record names, finishes open plans.
  /// `ready` is called when requests may come.
  void start(std::function<void(base::Result<>)> ready, Begin begin = Begin::CarryOn);

  /// Records joined with what is known now. Image digests are left for the caller to fill in: they
  /// are the image port's to ask, for the references the caller's stack names.
  planner::Snapshot snapshot() const;

  /// Calls `call` once every exit of these containers that the driver has told of so far has got as
  /// far as `ended`: whoever saw a process end sees no container that runs. A removal that fails is
  /// not waited for until it is tried again. No ids: of all.
  void when_ended(const std::vector<std::string>& ids, Ended ended, std::function<void()> call);

  /// Runs a plan. Plans of one project (and plans that touch the same container) run one after the
  /// other; all else runs side by side.
  void apply(ApplyRequest request);
  /// Stops starting further steps of the plan being applied for `owner`; running ones finish.
  void cancel(const std::string& owner);

  void on_notice(std::function<void(const ContainerNotice&)> listener);

  /// Stops accepting plans, ends timers; VMs are left running. `done` when no step is under way.
  void stop(std::function<void()> done);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reconciler
