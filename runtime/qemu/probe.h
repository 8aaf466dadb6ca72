#pragma once
/// Which accelerator works here: hardware virtualisation counts only after a real guest has booted
/// under it, because a /dev/kvm that opens proves nothing.

#include <string>

#include "base/result.h"
#include "runtime/io/loop.h"
#include "runtime/qemu/machine.h"

namespace runtime::qemu {

struct Verdict {
  Accelerator accelerator = Accelerator::Tcg;
  std::string reason;  ///< A sentence for people.
};

struct ProbeRequest {
  GuestFiles guest;
  std::string launcher;
  std::string run_folder;  ///< For the sockets of the guest that is tried; made and removed.
  std::string cache;       ///< File that keeps the verdict until the host boots again.
};

/// Never fails: what goes wrong is the reason for emulation.
Verdict probe_accelerator(IoLoop& loop, const ProbeRequest& request);

}  // namespace runtime::qemu
