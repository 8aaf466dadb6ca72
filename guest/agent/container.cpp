#include "guest/agent/container.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/file.h"
#include "base/text.h"
#include "guest/agent/copy_tree.h"
#include "guest/agent/implied.h"
#include "guest/agent/mounts.h"
#include "guest/agent/root.h"
#include "guest/agent/timeline.h"

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

Result<> mount_root(const guest::ContainerConfig& config, const Stage& stage) {
  const std::vector<std::string> layers = TRY(mount_layers(config.layers, stage.image_disk));
  TRY(mount_scratch(stage.scratch_disk, {{"discard", ""}}));
  const std::string upper = std::string(scratch_folder) + "/upper";
  const bool fresh = ::mkdir(upper.c_str(), 0755) == 0;
  if (!fresh && errno != EEXIST) return fail_errno(errno, "make the container's own folder");
  TRY(make_folder(std::string(scratch_folder) + "/work"));
  // The root folder's owner and mode come from the layers; the upper one hides them.
  struct stat top {};
  if (fresh && ::stat(layers.back().c_str(), &top) == 0) {
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
  TRY(attach_mount(root.get(), root_folder));
  TRY_DURING(restore_implied_folders(layers, upper, fresh, std::string(root_folder)),
             "folders that layers do not list");
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
    const UniqueFd file =
        TRY_DURING(base::open_file(std::string(root_folder) + "/proc/sys/" + path, O_WRONLY),
                   "sysctl '{}'", key);
    TRY_DURING(base::write_all(file.get(), value), "sysctl '{}' = '{}'", key, value);
  }
  return {};
}

Result<> seal_root(const guest::ContainerConfig& config) {
  if (!config.read_only_root) return {};
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  if (::syscall(SYS_mount_setattr, AT_FDCWD, root_folder, 0, &attributes, sizeof attributes) != 0)
    return fail_errno(errno, "make the root read-only");
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
  timeline().mark("a process in namespaces of its own");
  TRY(mount_root(config, stage));
  timeline().mark("its root: layers and disk");
  const UniqueFd root = TRY(base::open_file(root_folder, O_PATH | O_DIRECTORY));
  TRY(mount_system(root.get(), {.privileged = config.process.privileged,
                                .terminal = config.process.terminal,
                                .shm_bytes = config.shm_bytes}));
  timeline().mark("/proc, /sys, /dev");
  TRY(bind_etc_files(root.get(), stage.etc_folder));
  TRY(mount_users(root.get(), config, stage));
  TRY(write_sysctls(config));
  timeline().mark("mounts of its own");
  TRY(protect(root.get(), config.process.privileged));
  timeline().mark("paths are hidden and sealed");
  TRY(seal_root(config));
  return change_root();
}

}  // namespace agent
