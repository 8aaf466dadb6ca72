#pragma once
/// The port to durable state: records of what is wanted and what was made, and the journal of plans
/// in progress. Implemented by api/ (SQLite) and by tests/sim (with lost and torn writes).
///
/// Each call is one transaction: when it has returned, it survives a loss of power.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "planner/plan.h"
#include "planner/snapshot.h"

namespace reconciler {

enum class StepOutcome { Pending, Started, Done, Failed, Skipped };

struct JournalStep {
  planner::StepId step;
  StepOutcome outcome = StepOutcome::Pending;
  std::string error;
};

/// A plan that was accepted; open until `finish_plan`.
struct JournalPlan {
  uint64_t id = 0;
  planner::Plan plan;
  std::string owner;  ///< Who asked: "up (pid 123)", for the "held by" message.
  int64_t started_wall_ns = 0;
  std::vector<JournalStep> steps;
};

/// Everything durable, as read in one transaction.
struct StoredState {
  uint64_t serial = 0;  ///< Grows with every change of a record.
  std::string lineage;  ///< Random, made with the store.
  std::vector<planner::ContainerRecord> containers;
  std::vector<planner::NetworkRecord> networks;
  std::vector<planner::VolumeRecord> volumes;
  std::vector<JournalPlan> open_plans;
};

class StorePort {
 public:
  virtual ~StorePort() = default;
  virtual base::Result<StoredState> load() = 0;

  virtual base::Result<> put_container(const planner::ContainerRecord& record) = 0;
  virtual base::Result<> erase_container(const std::string& id) = 0;
  virtual base::Result<> put_network(const planner::NetworkRecord& record) = 0;
  virtual base::Result<> erase_network(const std::string& name) = 0;
  virtual base::Result<> put_volume(const planner::VolumeRecord& record) = 0;
  virtual base::Result<> erase_volume(const std::string& name) = 0;

  /// Intent: the whole plan, before its first step. Returns its id.
  virtual base::Result<uint64_t> begin_plan(const planner::Plan& plan, const std::string& owner,
                                            int64_t wall_ns) = 0;
  virtual base::Result<> record_step(uint64_t plan, const JournalStep& step) = 0;
  virtual base::Result<> finish_plan(uint64_t plan) = 0;
};

}  // namespace reconciler
