#pragma once
/// A network device that leads nowhere, of the kind containers get: what a template's NIC is
/// attached to, so that the guest learns of the same abilities.

#include "base/fd.h"
#include "base/result.h"

namespace runtime {

/// A TAP in a network namespace of its own, which goes with the descriptor. Needs no privilege
/// where user namespaces are allowed.
base::Result<base::UniqueFd> make_idle_tap();

}  // namespace runtime
