#pragma once
/// Which devices a container may open, whatever nodes it makes: those it finds in its /dev. The
/// list is docker's default one with TUN and FUSE, which every container of ours has.

#include "base/result.h"

namespace agent {

/// For all processes of the cgroup, and for as long as it exists. Nodes of any device may still be
/// made, as by package managers and `tar`. Mounting a disk is opening it, so this comes after the
/// container's own mounts.
base::Result<> keep_to_usual_devices(int cgroup_fd);

}  // namespace agent
