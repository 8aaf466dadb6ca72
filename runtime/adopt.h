#pragma once
/// Finding the machine that an earlier daemon left running.

#include <string>

#include "base/result.h"
#include "runtime/folders.h"
#include "runtime/qemu/machine.h"
#include "runtime/qemu/state.h"

namespace runtime {

struct Found {
  qemu::VmState state;
  qemu::Machine machine;
};

/// NotFound if it does not run any more; then its end is written down and its folder is gone. A
/// start that was interrupted half-way is undone. A process is known by the uuid in its arguments;
/// whether the guest in it lives is the agent's to show.
base::Result<Found> find_machine(const Folders& folders, const std::string& id);

}  // namespace runtime
