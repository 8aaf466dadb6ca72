#pragma once
/// Mounting by descriptors, so that no name in a container's tree is followed out of it.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace agent {

using MountOptions = std::vector<std::pair<std::string, std::string>>;  ///< Value "": a flag.

/// A filesystem, mounted nowhere yet. `attributes`: MOUNT_ATTR_*.
base::Result<base::UniqueFd> make_filesystem(const std::string& type, const std::string& source,
                                             const MountOptions& options, uint64_t attributes);
/// A copy of the mount (or the file) at `path`, with what is mounted below it.
base::Result<base::UniqueFd> copy_of_mount(const std::string& path);
base::Result<> set_read_only(int mount_fd);
base::Result<> attach_mount(int mount_fd, int target_fd);
base::Result<> attach_mount(int mount_fd, const std::string& path);

/// Opens `path` (O_PATH) below `root_fd`: symbolic links are followed as if `root_fd` were "/".
base::Result<base::UniqueFd> open_in_root(int root_fd, const std::string& path);
/// The same, making what is missing: folders, or at the end an empty file. A dangling link at the
/// end is replaced.
base::Result<base::UniqueFd> make_in_root(int root_fd, const std::string& path, bool is_folder);

}  // namespace agent
