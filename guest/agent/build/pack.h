#pragma once
/// What a step changed, as an OCI layer: the upper folder of its overlay becomes a tar.
///
/// In each folder the mark that hides everything below comes first, then whiteouts, then the
/// entries, each sorted by name. Hard links keep together, sockets are left out, and so is what
/// only overlayfs understands.

#include <sys/types.h>

#include <string>

#include "base/result.h"

namespace agent {

/// Of the layer's root before the step: it is mentioned only if it has changed.
struct RootFacts {
  mode_t mode = 0755;
  uid_t user = 0;
  gid_t group = 0;
};

/// Writes the archive to `out`, a pipe. Runs in a process of its own.
base::Result<> pack(const std::string& folder, const RootFacts& before, int out);

}  // namespace agent
