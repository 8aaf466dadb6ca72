#pragma once
/// The inside of a container, made in its own mount namespace by the child that will become its
/// first process: layers, scratch disk, overlay, the usual mounts, the user's mounts, the new root.

#include <string>

#include "base/result.h"
#include "guest/protocol/protocol.h"

namespace agent {

/// What the agent has made ready beforehand.
struct Stage {
  std::string image_disk;     ///< `/dev/vda`; layers are its partitions.
  std::string scratch_disk;   ///< `/dev/vdb`: ext4.
  std::string etc_folder;     ///< Holds hosts, resolv.conf, hostname.
  std::string shares_folder;  ///< Where the file server's tree is mounted.
};

/// Runs in the child. Returns with "/" being the container's root.
base::Result<> enter_container(const guest::ContainerConfig& config, const Stage& stage);

}  // namespace agent
