#include "api/build_machines.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "base/deadline.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/text.h"
#include "planner/plan.h"

namespace api {
namespace {

using base::ErrorCode;
using base::Result;

constexpr int cancelled_plan_timeout_ms = 30'000;

/// The outcome of something that ends on another thread.
class Outcome {
 public:
  void set(Result<> result) {
    const std::lock_guard lock(mutex_);
    result_ = std::move(result);
    changed_.notify_all();
  }
  /// A plan that was told to stop ends after its running step; a daemon that stops tells nobody.
  Result<> wait(builder::Cancellation& cancellation) {
    const auto listening = cancellation.on_cancel([this] {
      const std::lock_guard lock(mutex_);
      cancelled_ = true;
      changed_.notify_all();
    });
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return result_ || cancelled_; });
    if (changed_.wait_for(lock, std::chrono::milliseconds(cancelled_plan_timeout_ms),
                          [&] { return result_.has_value(); }))
      return *result_;
    return base::fail(ErrorCode::Cancelled, "the build was cancelled");
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Result<>> result_;
  bool cancelled_ = false;
};

std::string owner_of(const std::string& id) { return "build machine " + id; }

/// On the loop: force takes running ones, too.
void remove_now(const PlanRunner& runner, const std::string& id) {
  const auto plan_of = [id](const planner::Snapshot& now) {
    return planner::plan_remove({id}, now, true, true);
  };
  Result<planner::Plan> plan = plan_of(runner.reconciler.snapshot());
  if (!plan) return;  // it was never made
  reconciler::ApplyRequest request;
  request.plan = std::move(*plan);
  request.owner = "removal of " + owner_of(id);
  request.replan = plan_of;
  request.finished = [id](const Result<>& result) {
    if (!result) spdlog::warn("the build machine '{}' stays: {}", id, result.error().to_string());
  };
  runner.reconciler.apply(std::move(request));
}

class PlannedMachine final : public builder::BuildMachine {
 public:
  PlannedMachine(PlanRunner runner, std::string id) : runner_(runner), id_(std::move(id)) {}
  /// Whoever is done with a machine need not wait until it is gone.
  ~PlannedMachine() override {
    session_.reset();
    runner_.workers.post([runner = runner_, id = id_] { remove_now(runner, id); });
  }
  Result<> open(reconciler::BuildPort& builds) {
    session_ = TRY(builds.open_build(id_));
    return {};
  }
  reconciler::BuildSession& session() override { return *session_; }

 private:
  const PlanRunner runner_;
  const std::string id_;
  std::unique_ptr<reconciler::BuildSession> session_;
};

}  // namespace

BuildMachines::BuildMachines(PlanRunner runner, reconciler::BuildPort& builds, MachineShape shape,
                             bool network, builder::Cancellation& cancellation)
    : runner_(runner),
      builds_(builds),
      shape_(std::move(shape)),
      network_(network),
      cancellation_(cancellation) {}

planner::ContainerRecord BuildMachines::record_of(const std::string& id,
                                                  const builder::MachineRequest& request) const {
  planner::ContainerRecord record;
  record.id = id;
  record.one_off = true;
  record.image_digest = request.image;
  spec::Service& service = record.applied;
  service.image = request.image;
  service.platform = request.platform.text();
  service.build_machine = true;
  service.labels[role_label] = role_builder;
  service.cpus = shape_.cpus;
  service.memory_bytes = shape_.memory_bytes;
  service.shm_bytes = shape_.shm_bytes;
  service.ulimits = shape_.ulimits;
  service.dns = shape_.dns;
  service.dns_search = shape_.dns_search;
  service.dns_options = shape_.dns_options;
  service.domainname = shape_.dns_domain;
  if (network_)
    service.networks["default"] = {};
  else
    service.network_mode = "none";
  for (const builder::MachineShare& share : request.shares)
    service.volumes.push_back({.type = spec::MountType::Bind,
                               .source = share.host_path,
                               .target = share.target,
                               .create_host_path = false});
  return record;
}

Result<std::unique_ptr<builder::BuildMachine>> BuildMachines::start(
    const builder::MachineRequest& request) {
  const std::string id = "build-" + base::random_hex(6);
  const auto outcome = std::make_shared<Outcome>();
  // From here on it is removed whatever comes of it.
  auto machine = std::make_unique<PlannedMachine>(runner_, id);
  runner_.workers.post([runner = runner_, record = record_of(id, request), outcome] {
    const auto plan_of = [record](const planner::Snapshot& now) {
      return planner::plan_create(record, {}, now, true);
    };
    Result<planner::Plan> plan = plan_of(runner.reconciler.snapshot());
    if (!plan) return outcome->set(tl::unexpected<base::Error>(plan.error()));
    reconciler::ApplyRequest apply;
    apply.plan = std::move(*plan);
    apply.owner = owner_of(record.id);
    apply.replan = plan_of;
    apply.finished = [outcome](const Result<>& result) { outcome->set(result); };
    runner.reconciler.apply(std::move(apply));
  });
  const auto listening = cancellation_.on_cancel([runner = runner_, id] {
    runner.workers.post([runner, id] { runner.reconciler.cancel(owner_of(id)); });
  });
  TRY(outcome->wait(cancellation_));
  TRY(machine->open(builds_));
  return machine;
}

void remove_left_machines(PlanRunner runner) {
  const planner::Snapshot now = runner.reconciler.snapshot();
  for (const auto& [id, record] : now.containers)
    if (record.applied.build_machine) remove_now(runner, id);
}

}  // namespace api
