#include "guest/agent/build/step.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/file.h"
#include "base/text.h"
#include "guest/agent/limits.h"
#include "guest/agent/network.h"
#include "guest/agent/root.h"

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;
using guest::StepMount;
using guest::StepMountKind;

/// In memory, seen by this step alone: its secrets, its sockets, its hosts file.
constexpr const char* private_folder = "/run/step";
constexpr std::array<const char*, 3> system_folders = {"/proc", "/sys", "/dev"};
constexpr std::array<const char*, 3> etc_files = {"/etc/hosts", "/etc/resolv.conf",
                                                  "/etc/hostname"};

std::string through(const UniqueFd& fd) { return fmt::format("/proc/self/fd/{}", fd.get()); }

/// `volatile`: nothing of a build machine outlives it, so nothing is waited for to be written.
Result<UniqueFd> overlay(std::vector<std::string> lower, const std::string& upper,
                         const std::string& work) {
  MountOptions options;
  for (auto layer = lower.rbegin(); layer != lower.rend(); ++layer)
    options.emplace_back("lowerdir+", *layer);
  options.emplace_back("upperdir", upper);
  options.emplace_back("workdir", work);
  options.emplace_back("volatile", "");
  return make_filesystem("overlay", "container", options, 0);
}

/// The kernel takes so many layers; the lowest ones are joined beforehand if there are more.
Result<std::vector<std::string>> joined(std::vector<std::string> lower) {
  if (lower.size() <= limits::overlay_layers_max) return lower;
  const size_t spare = lower.size() - limits::overlay_layers_max + 1;
  if (spare > limits::overlay_layers_max)
    return fail(ErrorCode::InvalidState,
                "a stage can have {} layers, not {}: join some of its steps",
                2 * limits::overlay_layers_max - 1, lower.size());
  MountOptions options;
  for (size_t i = spare; i > 0; --i) options.emplace_back("lowerdir+", lower[i - 1]);
  const UniqueFd base = TRY(make_filesystem("overlay", "lowest", options, MOUNT_ATTR_RDONLY));
  const std::string folder = "/run/lowest";
  TRY(make_folder(folder));
  TRY(attach_mount(base.get(), folder));
  lower.erase(lower.begin(), lower.begin() + static_cast<ptrdiff_t>(spare));
  lower.insert(lower.begin(), folder);
  return lower;
}

class Step {
 public:
  Step(const StepStage& stage, const std::function<void(size_t, int)>& listening)
      : stage_(stage), config_(stage.config), listening_(listening) {}

  Result<> enter() {
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
      return fail_errno(errno, "keep mounts private");
    TRY(prepare_names());
    if (!config_.network) {
      if (::unshare(CLONE_NEWNET) != 0) return fail_errno(errno, "make a network namespace");
      TRY(bring_up_loopback());
    }
    TRY(mount_root());
    const UniqueFd root = TRY(base::open_file(root_folder, O_PATH | O_DIRECTORY));
    TRY(mount_system(root.get(), {.privileged = config_.process.privileged}));
    TRY(bind_etc_files(root.get(), etc_folder_));
    TRY(mount_all(root.get()));
    TRY(protect(root.get(), config_.process.privileged));
    return change_root();
  }

 private:
  /// Host name, and the files that tell of it.
  Result<> prepare_names() {
    const UniqueFd memory = TRY(
        make_filesystem("tmpfs", "step", {{"mode", "700"}}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
    TRY(make_folder(private_folder));
    TRY(attach_mount(memory.get(), private_folder));
    etc_folder_ = stage_.etc_folder;
    if (config_.hostname.empty() && config_.extra_hosts.empty()) return {};
    etc_folder_ = std::string(private_folder) + "/etc";
    TRY(make_folder(etc_folder_));
    std::string hosts = stage_.hosts;
    if (!hosts.empty() && !hosts.ends_with('\n')) hosts += '\n';
    const std::string& name = config_.hostname;
    if (!name.empty()) {
      if (::sethostname(name.c_str(), name.size()) != 0)
        return fail_errno(errno, "set the host name");
      hosts += "127.0.0.1 " + name + "\n";
    }
    for (const std::string& line : config_.extra_hosts) {
      const size_t equals = line.find('=');
      if (equals == std::string::npos || line.find('\n') != std::string::npos)
        return fail(ErrorCode::InvalidArgument, "'{}' is no NAME=ADDRESS",
                    base::escape_controls(line));
      hosts += line.substr(equals + 1) + " " + line.substr(0, equals) + "\n";
    }
    TRY(write_private("etc/hosts", hosts, 0644));
    const std::string resolv =
        TRY(base::read_file(stage_.etc_folder + "/resolv.conf", limits::small_file_bytes_max));
    TRY(write_private("etc/resolv.conf", resolv, 0644));
    const std::string hostname =
        name.empty() ? TRY(base::read_file(stage_.etc_folder + "/hostname", 4096)) : name + "\n";
    return write_private("etc/hostname", hostname, 0644);
  }

  static Result<> write_private(const std::string& name, const std::string& content, mode_t mode) {
    const std::string path = fmt::format("{}/{}", private_folder, name);
    const UniqueFd file = TRY(base::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
    TRY(base::write_all(file.get(), content));
    if (::fchmod(file.get(), mode) != 0) return fail_errno(errno, "set a file's mode");
    return {};
  }

  Result<> mount_root() {
    const std::vector<std::string> lower = TRY(joined(stage_.lower));
    std::vector<std::string> whole = lower;
    if (TRY(make_places(lower))) whole.push_back(stage_.folder + "/places");
    TRY(make_folder(stage_.folder + "/work"));
    const UniqueFd root = TRY_DURING(
        overlay(whole, stage_.folder + "/files", stage_.folder + "/work"), "the step's root");
    TRY(make_folder(root_folder));
    return attach_mount(root.get(), root_folder);
  }

  static bool is_file_mount(const StepMount& mount) {
    return mount.kind == StepMountKind::Secret || mount.kind == StepMountKind::Socket;
  }

  /// Makes what is missing of the places to mount at, over the layers but below the step's own.
  /// False if nothing was missing.
  Result<bool> make_places(const std::vector<std::string>& lower) {
    const std::string places = stage_.folder + "/places";
    const std::string work = stage_.folder + "/places-work";
    TRY(make_folder(places));
    TRY(make_folder(work));
    struct stat top {};
    if (::stat((stage_.folder + "/files").c_str(), &top) == 0) {
      (void)::chown(places.c_str(), top.st_uid, top.st_gid);
      (void)::chmod(places.c_str(), top.st_mode & 07777);
    }
    // Unmounted again when it goes out of scope, before it becomes a layer itself.
    const UniqueFd root = TRY_DURING(overlay(lower, places, work), "the step's places");
    bool made = false;
    const auto want = [&](const std::string& target, bool is_folder) -> Result<> {
      if (open_in_root(root.get(), target)) return {};
      made = true;
      TRY(make_in_root(root.get(), target, is_folder));
      return {};
    };
    for (const char* folder : system_folders) TRY(want(folder, true));
    for (const char* file : etc_files) TRY(want(file, false));
    for (size_t i = 0; i < config_.mounts.size(); ++i)
      TRY_DURING(want(config_.mounts[i].target, TRY(is_folder_mount(i))), "mount at '{}'",
                 config_.mounts[i].target);
    return made;
  }

  /// The folder or file a mount shows.
  Result<UniqueFd> source_of(size_t index) const {
    const StepMount& mount = config_.mounts[index];
    if (mount.kind == StepMountKind::Share)
      return base::open_file(stage_.shares_folder + "/" + stage_.share_names[index], O_PATH);
    const UniqueFd tree = TRY(base::open_file(stage_.trees_folder + "/" + mount.source,
                                              O_PATH | O_DIRECTORY | O_NOFOLLOW));
    return open_in_root(tree.get(), mount.source_path);
  }

  Result<bool> is_folder_mount(size_t index) const {
    const StepMount& mount = config_.mounts[index];
    if (mount.kind == StepMountKind::Tmpfs) return true;
    if (is_file_mount(mount)) return false;
    const UniqueFd source = TRY(source_of(index));
    struct stat facts {};
    if (::fstat(source.get(), &facts) != 0) return fail_errno(errno, "look at a mount's source");
    return S_ISDIR(facts.st_mode);
  }

  /// Outer targets first, so that an inner one lands on top.
  Result<> mount_all(int root) {
    std::vector<size_t> order;
    for (size_t i = 0; i < config_.mounts.size(); ++i) order.push_back(i);
    const auto depth = [this](size_t index) {
      const std::string& target = config_.mounts[index].target;
      return std::count(target.begin(), target.end(), '/');
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return depth(a) < depth(b); });
    for (const size_t index : order)
      TRY_DURING(mount_one(root, index), "mount at '{}'", config_.mounts[index].target);
    return {};
  }

  Result<> mount_one(int root, size_t index) {
    const StepMount& mount = config_.mounts[index];
    switch (mount.kind) {
      case StepMountKind::Tree: return mount_tree(root, index);
      case StepMountKind::Share: {
        const UniqueFd source = TRY(source_of(index));
        return bind(root, mount, through(source), TRY(is_folder_mount(index)), mount.read_only);
      }
      case StepMountKind::Tmpfs: {
        MountOptions options = {{"mode", "1777"}};
        if (mount.tmpfs_bytes > 0) options.emplace_back("size", std::to_string(mount.tmpfs_bytes));
        return mount_at(
            root, mount.target, "tmpfs", options,
            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (mount.read_only ? MOUNT_ATTR_RDONLY : 0));
      }
      case StepMountKind::Secret: return mount_secret(root, index);
      case StepMountKind::Socket: return mount_socket(root, index);
    }
    return {};
  }

  static Result<> bind(int root, const StepMount& mount, const std::string& source, bool is_folder,
                       bool read_only) {
    const UniqueFd tree = TRY(copy_of_mount(source));
    if (read_only) TRY(set_read_only(tree.get()));
    const UniqueFd place = TRY(make_in_root(root, mount.target, is_folder));
    return attach_mount(tree.get(), place.get());
  }

  /// One that may be written to is an overlay of its own, or a copy; both are thrown away.
  Result<> mount_tree(int root, size_t index) {
    const StepMount& mount = config_.mounts[index];
    const UniqueFd source = TRY(source_of(index));
    const bool is_folder = TRY(is_folder_mount(index));
    if (mount.read_only) return bind(root, mount, through(source), is_folder, true);
    const std::string folder = fmt::format("{}/mount{}", stage_.folder, index);
    TRY(make_folder(folder));
    struct stat facts {};
    if (::fstat(source.get(), &facts) != 0) return fail_errno(errno, "look at the source");
    if (!is_folder) {
      TRY(copy_file(source, folder + "/file", facts));
      return bind(root, mount, folder + "/file", false, false);
    }
    TRY(make_folder(folder + "/files"));
    TRY(make_folder(folder + "/work"));
    if (::chown((folder + "/files").c_str(), facts.st_uid, facts.st_gid) != 0 ||
        ::chmod((folder + "/files").c_str(), facts.st_mode & 07777) != 0)
      return fail_errno(errno, "set the owner of the layer above it");
    const UniqueFd made = TRY(overlay({through(source)}, folder + "/files", folder + "/work"));
    const UniqueFd place = TRY(make_in_root(root, mount.target, true));
    return attach_mount(made.get(), place.get());
  }

  static Result<> copy_file(const UniqueFd& source, const std::string& path,
                            const struct stat& facts) {
    const UniqueFd from = TRY(base::open_file(through(source), O_RDONLY));
    const UniqueFd to = TRY(base::open_file(path, O_WRONLY | O_CREAT | O_EXCL));
    constexpr size_t piece_bytes = 1u << 20;
    ssize_t count = 0;
    while ((count = ::sendfile(to.get(), from.get(), nullptr, piece_bytes)) > 0) {
    }
    if (count < 0 || ::fchown(to.get(), facts.st_uid, facts.st_gid) != 0 ||
        ::fchmod(to.get(), facts.st_mode & 07777) != 0)
      return fail_errno(errno, "copy the file");
    return {};
  }

  static Result<> give(const std::string& path, const StepMount& mount) {
    if (::chown(path.c_str(), mount.user, mount.group) != 0 ||
        ::chmod(path.c_str(), mount.mode & 0777) != 0)
      return fail_errno(errno, "set its owner");
    return {};
  }

  Result<> mount_secret(int root, size_t index) {
    const StepMount& mount = config_.mounts[index];
    const std::string name = fmt::format("secret{}", index);
    TRY(write_private(name, mount.content, 0400));
    const std::string path = fmt::format("{}/{}", private_folder, name);
    TRY(give(path, mount));
    return bind(root, mount, path, false, false);
  }

  Result<> mount_socket(int root, size_t index) {
    const StepMount& mount = config_.mounts[index];
    const std::string path = fmt::format("{}/socket{}", private_folder, index);
    const UniqueFd socket = TRY(base::listen_unix(path));
    TRY(give(path, mount));
    listening_(index, socket.get());
    return bind(root, mount, path, false, false);
  }

  const StepStage& stage_;
  const guest::StepConfig& config_;
  const std::function<void(size_t, int)>& listening_;
  std::string etc_folder_;
};

}  // namespace

Result<> enter_step(const StepStage& stage,
                    const std::function<void(size_t mount, int socket)>& listening) {
  return Step(stage, listening).enter();
}

}  // namespace agent
