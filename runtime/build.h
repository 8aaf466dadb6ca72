#pragma once
/// Build steps in a machine that runs (reconciler/ports/build.h), over the agent's build requests.
///
/// Tars pass through in pieces: the windows of the agent's streams hold back whoever is faster, so
/// that a layer of any size takes a few hundred kilobytes on either side.

#include <memory>

#include "base/result.h"
#include "reconciler/ports/build.h"
#include "runtime/vm.h"

namespace runtime {

/// InvalidState if the machine is no build machine.
base::Result<std::unique_ptr<reconciler::BuildSession>> start_build(std::shared_ptr<Vm> vm);

}  // namespace runtime
