#pragma once
/// What the roots of containers and of build steps have in common. Everything here runs in a child,
/// in a mount namespace of its own, and makes the new root at `root_folder`.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "guest/agent/mounts.h"

namespace agent {

inline constexpr const char* root_folder = "/run/root";
inline constexpr const char* scratch_folder = "/run/scratch";

base::Result<> make_folder(const std::string& path);
/// Where the layer on a partition of the image disk is mounted.
std::string layer_folder(uint32_t partition);
/// The image's layers, each a partition, lowest first; one empty folder if there is none.
base::Result<std::vector<std::string>> mount_layers(const std::vector<uint32_t>& partitions,
                                                    const std::string& image_disk);
base::Result<> mount_scratch(const std::string& disk, MountOptions options);

/// A new filesystem at `target` in the root, which is made if it is missing.
base::Result<> mount_at(int root, const std::string& target, const std::string& type,
                        const MountOptions& options, uint64_t attributes);

struct SystemOptions {
  bool privileged = false;
  bool terminal = false;
  uint64_t shm_bytes = 64u << 20;
};
/// /proc, /sys and /dev with what is below them.
base::Result<> mount_system(int root, const SystemOptions& options);
/// hosts, resolv.conf and hostname of `etc_folder`.
base::Result<> bind_etc_files(int root, const std::string& etc_folder);
/// Hides what tells of the machine or changes it; nothing for privileged ones.
base::Result<> protect(int root, bool privileged);
/// "/" is the new root afterwards.
base::Result<> change_root();

}  // namespace agent
