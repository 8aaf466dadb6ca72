#include "guest/agent/container.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/file.h"
#include "base/text.h"
#include "guest/agent/copy_tree.h"
#include "guest/agent/mounts.h"

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

constexpr uint64_t no_surprises = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV;
const std::string root_folder = "/run/root";

constexpr std::array<std::string_view, 12> masked_paths = {
    "/proc/asound",      "/proc/acpi",          "/proc/kcore",
    "/proc/keys",        "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug",   "/proc/scsi",
    "/proc/interrupts",  "/sys/firmware",       "/sys/devices/virtual/powercap"};
constexpr std::array<std::string_view, 5> read_only_paths = {"/proc/bus", "/proc/fs", "/proc/irq",
                                                             "/proc/sys", "/proc/sysrq-trigger"};

Result<> make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST)
    return fail_errno(errno, fmt::format("make '{}'", path));
  return {};
}

/// The layers, each a partition, lowest first; one empty folder if there is none.
Result<std::vector<std::string>> mount_layers(const guest::ContainerConfig& config,
                                              const Stage& stage) {
  std::vector<std::string> folders;
  TRY(make_folder("/run/layers"));
  for (const uint32_t partition : config.layers) {
    const std::string folder = fmt::format("/run/layers/{}", partition);
    TRY(make_folder(folder));
    const UniqueFd layer =
        TRY_DURING(make_filesystem("erofs", fmt::format("{}{}", stage.image_disk, partition),
                                   {{"ro", ""}}, MOUNT_ATTR_RDONLY),
                   "layer {}", partition - 1);
    TRY(attach_mount(layer.get(), folder));
    folders.push_back(folder);
  }
  if (folders.empty()) {
    TRY(make_folder("/run/layers/none"));
    folders.push_back("/run/layers/none");
  }
  return folders;
}

Result<> mount_root(const guest::ContainerConfig& config, const Stage& stage) {
  const std::vector<std::string> layers = TRY(mount_layers(config, stage));
  TRY(make_folder("/run/scratch"));
  const UniqueFd scratch =
      TRY_DURING(make_filesystem("ext4", stage.scratch_disk, {{"discard", ""}}, MOUNT_ATTR_NOATIME),
                 "the container's own disk");
  TRY(attach_mount(scratch.get(), "/run/scratch"));
  TRY(make_folder("/run/scratch/upper"));
  TRY(make_folder("/run/scratch/work"));
  // The root folder's owner and mode come from the topmost layer; the upper one hides them.
  struct stat top {};
  if (::stat(layers.back().c_str(), &top) == 0) {
    ::chown("/run/scratch/upper", top.st_uid, top.st_gid);
    ::chmod("/run/scratch/upper", top.st_mode & 07777);
  }
  MountOptions options;
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer)
    options.emplace_back("lowerdir+", *layer);
  options.emplace_back("upperdir", "/run/scratch/upper");
  options.emplace_back("workdir", "/run/scratch/work");
  const UniqueFd root = TRY(make_filesystem("overlay", "container", options, 0));
  TRY(make_folder(root_folder));
  return attach_mount(root.get(), root_folder);
}

Result<> mount_at(int root, const std::string& target, const std::string& type,
                  const MountOptions& options, uint64_t attributes) {
  const UniqueFd made = TRY(make_filesystem(type, type, options, attributes));
  const UniqueFd place = TRY(make_in_root(root, target, true));
  return attach_mount(made.get(), place.get());
}

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

Result<> mount_system(int root, const guest::ContainerConfig& config) {
  const bool privileged = config.process.privileged;
  TRY(mount_at(root, "/proc", "proc", {}, no_surprises));
  TRY(mount_at(root, "/sys", "sysfs", {}, no_surprises | (privileged ? 0 : MOUNT_ATTR_RDONLY)));
  TRY(mount_at(root, "/sys/fs/cgroup", "cgroup2", {},
               no_surprises | (privileged ? 0 : MOUNT_ATTR_RDONLY)));
  if (privileged) {
    TRY(mount_at(root, "/dev", "devtmpfs", {}, MOUNT_ATTR_NOSUID));
  } else {
    TRY(mount_at(root, "/dev", "tmpfs", {{"mode", "755"}, {"size", "65536k"}}, MOUNT_ATTR_NOSUID));
  }
  TRY(fill_dev(root_folder + "/dev", config.process.terminal));
  TRY(mount_at(root, "/dev/pts", "devpts",
               {{"newinstance", ""}, {"gid", "5"}, {"mode", "620"}, {"ptmxmode", "666"}},
               MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
  TRY(mount_at(root, "/dev/shm", "tmpfs",
               {{"mode", "1777"}, {"size", std::to_string(config.shm_bytes)}}, no_surprises));
  return mount_at(root, "/dev/mqueue", "mqueue", {}, no_surprises);
}

Result<> bind_etc_files(int root, const Stage& stage) {
  for (const char* name : {"hosts", "resolv.conf", "hostname"}) {
    const UniqueFd file = TRY(copy_of_mount(stage.etc_folder + "/" + name));
    const UniqueFd place = TRY(make_in_root(root, fmt::format("/etc/{}", name), false));
    TRY(attach_mount(file.get(), place.get()));
  }
  return {};
}

Result<> mount_share(int root, const guest::GuestMount& mount, const Stage& stage) {
  const std::string source = stage.shares_folder + "/" + mount.source;
  struct stat facts {};
  if (::stat(source.c_str(), &facts) != 0)
    return fail_errno(errno, fmt::format("the shared '{}'", mount.source));
  if (mount.populate && S_ISDIR(facts.st_mode))
    if (const auto image = open_in_root(root, mount.target))
      TRY_DURING(copy_tree_into_empty(image->get(), source), "fill the new volume at '{}'",
                 mount.target);
  const UniqueFd tree = TRY(copy_of_mount(source));
  if (mount.read_only) TRY(set_read_only(tree.get()));
  const UniqueFd place = TRY(make_in_root(root, mount.target, S_ISDIR(facts.st_mode)));
  return attach_mount(tree.get(), place.get());
}

Result<> mount_tmpfs(int root, const guest::GuestMount& mount) {
  MountOptions options = {{"mode", fmt::format("{:o}", mount.tmpfs_mode)}};
  if (mount.tmpfs_bytes > 0) options.emplace_back("size", std::to_string(mount.tmpfs_bytes));
  return mount_at(root, mount.target, "tmpfs", options,
                  MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (mount.read_only ? MOUNT_ATTR_RDONLY : 0));
}

/// Outer targets first, so that an inner one lands on top.
Result<> mount_users(int root, const guest::ContainerConfig& config, const Stage& stage) {
  std::vector<guest::GuestMount> mounts = config.mounts;
  const auto depth = [](const guest::GuestMount& mount) {
    return std::count(mount.target.begin(), mount.target.end(), '/');
  };
  std::stable_sort(mounts.begin(), mounts.end(),
                   [&](const auto& a, const auto& b) { return depth(a) < depth(b); });
  for (const guest::GuestMount& mount : mounts) {
    switch (mount.kind) {
      case guest::MountKind::Share:
        TRY_DURING(mount_share(root, mount, stage), "mount at '{}'", mount.target);
        break;
      case guest::MountKind::Tmpfs:
        TRY_DURING(mount_tmpfs(root, mount), "mount at '{}'", mount.target);
        break;
    }
  }
  return {};
}

Result<> write_sysctls(const guest::ContainerConfig& config) {
  for (const auto& [key, value] : config.sysctls) {
    std::string path = key;
    if (path.find('/') == std::string::npos) std::replace(path.begin(), path.end(), '.', '/');
    if (path.find("..") != std::string::npos)
      return fail(ErrorCode::InvalidArgument, "'{}' is no sysctl", key);
    const UniqueFd file = TRY_DURING(base::open_file(root_folder + "/proc/sys/" + path, O_WRONLY),
                                     "sysctl '{}'", key);
    TRY_DURING(base::write_all(file.get(), value), "sysctl '{}' = '{}'", key, value);
  }
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
                             : TRY(copy_of_mount(root_folder + "/dev/null"));
  return attach_mount(cover.get(), place->get());
}

Result<> seal(int root, std::string_view path) {
  const auto place = open_in_root(root, std::string(path));
  if (!place) return {};
  const UniqueFd tree = TRY(copy_of_mount(root_folder + std::string(path)));
  TRY(set_read_only(tree.get()));
  return attach_mount(tree.get(), place->get());
}

Result<> protect(int root, const guest::ContainerConfig& config) {
  if (config.process.privileged) return {};
  for (const std::string_view path : read_only_paths) TRY(seal(root, path));
  for (const std::string_view path : masked_paths) TRY(hide(root, path));
  return {};
}

Result<> seal_root(const guest::ContainerConfig& config) {
  if (!config.read_only_root) return {};
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  if (::syscall(SYS_mount_setattr, AT_FDCWD, root_folder.c_str(), 0, &attributes,
                sizeof attributes) != 0)
    return fail_errno(errno, "make the root read-only");
  return {};
}

/// The initramfs cannot be pivoted away from (it is the kernel's first root), so the new root is
/// moved over it.
Result<> change_root() {
  if (::chdir(root_folder.c_str()) != 0 || ::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 ||
      ::chroot(".") != 0 || ::chdir("/") != 0)
    return fail_errno(errno, "change to the container's root");
  return {};
}

}  // namespace

Result<> enter_container(const guest::ContainerConfig& config, const Stage& stage) {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return fail_errno(errno, "keep mounts private");
  const std::string& name = config.hostname;
  if (::sethostname(name.c_str(), name.size()) != 0) return fail_errno(errno, "set the host name");
  const std::string& domain = config.domainname;
  if (!domain.empty() && ::setdomainname(domain.c_str(), domain.size()) != 0)
    return fail_errno(errno, "set the domain name");
  TRY(mount_root(config, stage));
  const UniqueFd root = TRY(base::open_file(root_folder, O_PATH | O_DIRECTORY));
  TRY(mount_system(root.get(), config));
  TRY(bind_etc_files(root.get(), stage));
  TRY(mount_users(root.get(), config, stage));
  TRY(write_sysctls(config));
  TRY(protect(root.get(), config));
  TRY(seal_root(config));
  return change_root();
}

}  // namespace agent
