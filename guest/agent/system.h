#pragma once
/// The VM as a whole: early mounts, disks and ports by name, clock, randomness.

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace agent {

/// Holds the container's hosts, resolv.conf and hostname.
inline constexpr const char* etc_folder = "/run/etc";

/// proc, sys, dev, run, cgroups, and settings every container's VM has.
base::Result<> mount_early();
/// Device of the virtio disk with this serial number: `/dev/vda`.
base::Result<std::string> find_disk(const std::string& serial);
/// Device of the virtio-serial port of this name; waits for it to appear.
base::Result<std::string> find_port(std::string_view name);
/// How much of a file the kernel reads from this disk when some of it is asked for.
base::Result<> set_read_ahead(const std::string& disk, uint32_t kib);
/// The kernel's id of this boot, which it makes up when it is first asked.
base::Result<std::string> boot_id();
/// What the kernel has read from the disk so far counts no more: it may be another disk now.
base::Result<> forget_cached(const std::string& disk);
/// The kernel reads the partition table again: the disk may be another one since it was booted.
base::Result<> reread_partitions(const std::string& disk);
/// Mounted when the first module is asked for; there already is success.
base::Result<> mount_modules();
base::Result<> set_clock(int64_t wall_ns);
/// Also back. Little by little where it is little, so that time does not jump for programs.
/// InvalidArgument: to before 1970, or beyond what the clock can show.
base::Result<> move_clock(int64_t forward_ns);
/// Feeds random bytes to the kernel's generator and makes it use them at once (random(4)).
base::Result<> add_entropy(const std::string& hex);
/// In place, because the file is mounted into the container.
base::Result<> write_etc_file(const std::string& name, const std::string& content);
/// Empty if the process is gone.
base::UniqueFd open_pidfd(pid_t pid);

}  // namespace agent
