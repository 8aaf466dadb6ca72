#pragma once
/// Machines of builds: ordinary containers, made and removed by plans.
///
/// Thread-safe; not to be used on the reconciler's loop, which it waits for.

#include <functional>
#include <memory>
#include <string>

#include "api/build_request.h"
#include "base/result.h"
#include "builder/build.h"
#include "reconciler/ports/build.h"
#include "reconciler/reconciler.h"

namespace api {

/// What plans are made of and carried out by.
struct PlanRunner {
  reconciler::Reconciler& reconciler;
  reconciler::WorkersPort& workers;
};

/// Label by which `ls` and tools tell a build's machine.
inline constexpr const char* role_label = "com.apple.container.resource.role";
inline constexpr const char* role_builder = "builder";

class BuildMachines final : public builder::BuildMachines {
 public:
  /// `network` false: the machines have none.
  BuildMachines(PlanRunner runner, reconciler::BuildPort& builds, MachineShape shape, bool network,
                builder::Cancellation& cancellation);
  base::Result<std::unique_ptr<builder::BuildMachine>> start(
      const builder::MachineRequest& request) override;

 private:
  planner::ContainerRecord record_of(const std::string& id,
                                     const builder::MachineRequest& request) const;

  const PlanRunner runner_;
  reconciler::BuildPort& builds_;
  const MachineShape shape_;
  const bool network_;
  builder::Cancellation& cancellation_;
};

/// Removes the machines of builds whose daemon has died. Call it on the loop.
void remove_left_machines(PlanRunner runner);

}  // namespace api
