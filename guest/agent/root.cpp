#include "guest/agent/root.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/fd.h"

namespace agent {

using base::fail_errno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr uint64_t no_surprises = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV;

constexpr std::array<std::string_view, 12> masked_paths = {
    "/proc/asound",      "/proc/acpi",          "/proc/kcore",
    "/proc/keys",        "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug",   "/proc/scsi",
    "/proc/interrupts",  "/sys/firmware",       "/sys/devices/virtual/powercap"};
constexpr std::array<std::string_view, 5> read_only_paths = {"/proc/bus", "/proc/fs", "/proc/irq",
                                                             "/proc/sys", "/proc/sysrq-trigger"};

struct DeviceNode {
  const char* name;
  unsigned major, minor;
};

/// Nodes and links every program expects; nothing that reaches the VM's disks or ports.
Result<> fill_dev(const std::string& dev, bool terminal) {
  static constexpr std::array<DeviceNode, 7> nodes = {{{"null", 1, 3},
                                                       {"zero", 1, 5},
                                                       {"full", 1, 7},
                                                       {"random", 1, 8},
                                                       {"urandom", 1, 9},
                                                       {"tty", 5, 0},
                                                       {"fuse", 10, 229}}};
  for (const DeviceNode& node : nodes) {
    const std::string path = dev + "/" + node.name;
    if (::mknod(path.c_str(), S_IFCHR | 0666, makedev(node.major, node.minor)) != 0 &&
        errno != EEXIST)
      return fail_errno(errno, fmt::format("make '{}'", path));
    ::chmod(path.c_str(), 0666);
  }
  TRY(make_folder(dev + "/net"));
  ::mknod((dev + "/net/tun").c_str(), S_IFCHR | 0666, makedev(10, 200));
  ::chmod((dev + "/net/tun").c_str(), 0666);
  static constexpr std::array<std::pair<const char*, const char*>, 6> links = {
      {{"/proc/self/fd", "fd"},
       {"/proc/self/fd/0", "stdin"},
       {"/proc/self/fd/1", "stdout"},
       {"/proc/self/fd/2", "stderr"},
       {"pts/ptmx", "ptmx"},
       {"/proc/kcore", "core"}}};
  for (const auto& [target, name] : links)
    if (::symlink(target, (dev + "/" + name).c_str()) != 0 && errno != EEXIST)
      return fail_errno(errno, fmt::format("make '{}/{}'", dev, name));
  if (terminal) ::symlink("/dev/pts/0", (dev + "/console").c_str());
  return {};
}

/// Absent paths need no hiding.
Result<> hide(int root, std::string_view path) {
  const auto place = open_in_root(root, std::string(path));
  if (!place) return {};
  struct stat facts {};
  if (::fstat(place->get(), &facts) != 0) return fail_errno(errno, std::string(path));
  const UniqueFd cover = S_ISDIR(facts.st_mode)
                             ? TRY(make_filesystem("tmpfs", "masked", {{"size", "0"}},
                                                   MOUNT_ATTR_RDONLY | no_surprises))
                             : TRY(copy_of_mount(std::string(root_folder) + "/dev/null"));
  return attach_mount(cover.get(), place->get());
}

Result<> seal(int root, std::string_view path) {
  const auto place = open_in_root(root, std::string(path));
  if (!place) return {};
  const UniqueFd tree = TRY(copy_of_mount(root_folder + std::string(path)));
  TRY(set_read_only(tree.get()));
  return attach_mount(tree.get(), place->get());
}

}  // namespace

Result<> make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST)
    return fail_errno(errno, fmt::format("make '{}'", path));
  return {};
}

std::string layer_folder(uint32_t partition) { return fmt::format("/run/layers/{}", partition); }

Result<std::vector<std::string>> mount_layers(const std::vector<uint32_t>& partitions,
                                              const std::string& image_disk) {
  std::vector<std::string> folders;
  TRY(make_folder("/run/layers"));
  for (const uint32_t partition : partitions) {
    std::string folder = layer_folder(partition);
    TRY(make_folder(folder));
    const UniqueFd layer =
        TRY_DURING(make_filesystem("erofs", fmt::format("{}{}", image_disk, partition),
                                   {{"ro", ""}}, MOUNT_ATTR_RDONLY),
                   "layer {}", partition - 1);
    TRY(attach_mount(layer.get(), folder));
    folders.push_back(std::move(folder));
  }
  if (folders.empty()) {
    TRY(make_folder("/run/layers/none"));
    folders.push_back("/run/layers/none");
  }
  return folders;
}

Result<> mount_scratch(const std::string& disk, MountOptions options) {
  TRY(make_folder(scratch_folder));
  // Else a thread reads the block maps of the whole disk three seconds after each start, which
  // takes a third of the processor's time of a short container.
  options.emplace_back("no_prefetch_block_bitmaps", "");
  const UniqueFd scratch = TRY_DURING(make_filesystem("ext4", disk, options, MOUNT_ATTR_NOATIME),
                                      "the container's own disk");
  return attach_mount(scratch.get(), scratch_folder);
}

Result<> mount_at(int root, const std::string& target, const std::string& type,
                  const MountOptions& options, uint64_t attributes) {
  const UniqueFd made = TRY(make_filesystem(type, type, options, attributes));
  const UniqueFd place = TRY(make_in_root(root, target, true));
  return attach_mount(made.get(), place.get());
}

Result<> mount_system(int root, const SystemOptions& options) {
  const bool privileged = options.privileged;
  TRY(mount_at(root, "/proc", "proc", {}, no_surprises));
  TRY(mount_at(root, "/sys", "sysfs", {}, no_surprises | (privileged ? 0 : MOUNT_ATTR_RDONLY)));
  TRY(mount_at(root, "/sys/fs/cgroup", "cgroup2", {},
               no_surprises | (privileged ? 0 : MOUNT_ATTR_RDONLY)));
  if (privileged) {
    TRY(mount_at(root, "/dev", "devtmpfs", {}, MOUNT_ATTR_NOSUID));
  } else {
    TRY(mount_at(root, "/dev", "tmpfs", {{"mode", "755"}, {"size", "65536k"}}, MOUNT_ATTR_NOSUID));
  }
  TRY(fill_dev(std::string(root_folder) + "/dev", options.terminal));
  TRY(mount_at(root, "/dev/pts", "devpts",
               {{"newinstance", ""}, {"gid", "5"}, {"mode", "620"}, {"ptmxmode", "666"}},
               MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
  TRY(mount_at(root, "/dev/shm", "tmpfs",
               {{"mode", "1777"}, {"size", std::to_string(options.shm_bytes)}}, no_surprises));
  return mount_at(root, "/dev/mqueue", "mqueue", {}, no_surprises);
}

Result<> bind_etc_files(int root, const std::string& etc_folder) {
  for (const char* name : {"hosts", "resolv.conf", "hostname"}) {
    const UniqueFd file = TRY(copy_of_mount(etc_folder + "/" + name));
    const UniqueFd place = TRY(make_in_root(root, fmt::format("/etc/{}", name), false));
    TRY(attach_mount(file.get(), place.get()));
  }
  return {};
}

Result<> protect(int root, bool privileged) {
  if (privileged) return {};
  for (const std::string_view path : read_only_paths) TRY(seal(root, path));
  for (const std::string_view path : masked_paths) TRY(hide(root, path));
  return {};
}

/// The initramfs cannot be pivoted away from (it is the kernel's first root), so the new root is
/// moved over it.
Result<> change_root() {
  if (::chdir(root_folder) != 0 || ::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 ||
      ::chroot(".") != 0 || ::chdir("/") != 0)
    return fail_errno(errno, "change to the container's root");
  return {};
}

}  // namespace agent
