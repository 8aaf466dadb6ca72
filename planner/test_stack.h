#pragma once
/// Stacks and snapshots for the planner's tests.

#include <string>

#include "planner/plan.h"

namespace planner::test {

/// `shop` with its default network and services added by `service`.
inline spec::Stack shop() {
  spec::Stack stack;
  stack.name = "shop";
  stack.working_dir = "/project/shop";
  stack.networks["default"].name = "shop_default";
  stack.volumes["data"].name = "shop_data";
  return stack;
}

inline spec::Service& service(spec::Stack& stack, const std::string& name,
                              const std::string& image = "nginx") {
  spec::Service& made = stack.services[name];
  made.image = image;
  made.networks["default"] = {};
  return made;
}

inline Snapshot nothing() {
  Snapshot snapshot;
  snapshot.serial = 1;
  snapshot.lineage = "test";
  for (const char* image : {"nginx", "postgres"})
    snapshot.image_digests[image] = std::string("sha256:") + image;
  return snapshot;
}

/// What the reconciler would record of a plan that succeeded.
inline Snapshot after(const Plan& plan, Snapshot snapshot) {
  ++snapshot.serial;
  for (const Step& step : plan.steps) {
    if (const auto* op = std::get_if<CreateNetwork>(&step.operation))
      snapshot.networks[op->record.name] = op->record;
    if (const auto* op = std::get_if<RemoveNetwork>(&step.operation))
      snapshot.networks.erase(op->name);
    if (const auto* op = std::get_if<CreateVolume>(&step.operation))
      snapshot.volumes[op->record.name] = op->record;
    if (const auto* op = std::get_if<CreateContainer>(&step.operation))
      snapshot.containers[op->record.id] = op->record;
    if (const auto* op = std::get_if<UpdateContainer>(&step.operation))
      snapshot.containers[op->record.id] = op->record;
    if (const auto* op = std::get_if<RemoveContainer>(&step.operation))
      snapshot.containers.erase(op->id);
    if (const auto* op = std::get_if<StopContainer>(&step.operation)) {
      snapshot.containers[op->id].phase = Phase::Exited;
      snapshot.containers[op->id].wanted = Wanted::Stopped;
    }
    if (const auto* op = std::get_if<StartContainer>(&step.operation)) {
      snapshot.containers[op->id].phase = Phase::Running;
      snapshot.containers[op->id].wanted = Wanted::Running;
    }
  }
  return snapshot;
}

/// One line per step: `3 + service.web[1]  create container after 1 2`.
inline std::string lines(const Plan& plan) {
  std::string text;
  for (const Step& step : plan.steps) {
    text += std::to_string(step.id.value) + " " + describe(step);
    if (!step.after.empty()) text += " after";
    for (const StepId id : step.after) text += " " + std::to_string(id.value);
    text += "\n";
  }
  return text;
}

}  // namespace planner::test
