#include "guest/agent/mounts.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/text.h"

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

constexpr size_t path_depth_max = 128;

// glibc 2.36 declares these in a header that collides with the kernel's.
int fsopen_call(const char* type) {
  return static_cast<int>(::syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
}
int fsconfig_call(int fd, unsigned command, const char* key, const char* value) {
  return static_cast<int>(::syscall(SYS_fsconfig, fd, command, key, value, 0));
}

/// What the filesystem said about its last failure, since errno alone explains little.
std::string filesystem_message(int fd) {
  std::array<char, 512> buffer{};
  std::string text;
  ssize_t count = 0;
  while ((count = ::read(fd, buffer.data(), buffer.size())) > 0) {
    if (!text.empty()) text += "; ";
    text.append(buffer.data(), static_cast<size_t>(count));
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

tl::unexpected<base::Error> fail_mount(int fd, const std::string& what) {
  const int error = errno;
  const std::string message = filesystem_message(fd);
  return fail_errno(error, message.empty() ? what : fmt::format("{} ({})", what, message));
}

UniqueFd open_below(int root_fd, const std::string& path, uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  return UniqueFd(static_cast<int>(
      ::syscall(SYS_openat2, root_fd, path.empty() ? "." : path.c_str(), &how, sizeof how)));
}

Result<UniqueFd> make_last(const UniqueFd& parent, const std::string& name, bool is_folder) {
  if (is_folder) {
    if (::mkdirat(parent.get(), name.c_str(), 0755) != 0 && errno != EEXIST)
      return fail_errno(errno, fmt::format("make the folder '{}'", name));
  } else {
    struct stat facts {};
    if (::fstatat(parent.get(), name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISLNK(facts.st_mode))
      ::unlinkat(parent.get(), name.c_str(), 0);
    const UniqueFd made(::openat(parent.get(), name.c_str(),
                                 O_CREAT | O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644));
    if (!made) return fail_errno(errno, fmt::format("make the file '{}'", name));
  }
  UniqueFd opened(::openat(parent.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!opened) return fail_errno(errno, fmt::format("open '{}'", name));
  return opened;
}

}  // namespace

Result<UniqueFd> make_filesystem(const std::string& type, const std::string& source,
                                 const MountOptions& options, uint64_t attributes) {
  const UniqueFd context(fsopen_call(type.c_str()));
  if (!context) return fail_errno(errno, fmt::format("filesystem '{}'", type));
  const std::string what = fmt::format("mount {} '{}'", type, source);
  if (!source.empty() &&
      fsconfig_call(context.get(), FSCONFIG_SET_STRING, "source", source.c_str()) != 0)
    return fail_mount(context.get(), what);
  for (const auto& [key, value] : options) {
    const bool is_flag = value.empty();
    if (fsconfig_call(context.get(), is_flag ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, key.c_str(),
                      is_flag ? nullptr : value.c_str()) != 0)
      return fail_mount(context.get(), fmt::format("{}: option {}={}", what, key, value));
  }
  if (fsconfig_call(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr) != 0)
    return fail_mount(context.get(), what);
  UniqueFd made(
      static_cast<int>(::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, attributes)));
  if (!made) return fail_mount(context.get(), what);
  return made;
}

Result<UniqueFd> copy_of_mount(const std::string& path) {
  UniqueFd tree(static_cast<int>(::syscall(SYS_open_tree, AT_FDCWD, path.c_str(),
                                           OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE)));
  if (!tree) return fail_errno(errno, fmt::format("bind '{}'", path));
  return tree;
}

Result<> set_read_only(int mount_fd) {
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  if (::syscall(SYS_mount_setattr, mount_fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes,
                sizeof attributes) != 0)
    return fail_errno(errno, "make a mount read-only");
  return {};
}

Result<> attach_mount(int mount_fd, int target_fd) {
  if (::syscall(SYS_move_mount, mount_fd, "", target_fd, "",
                MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
    return fail_errno(errno, "attach a mount");
  return {};
}

Result<> attach_mount(int mount_fd, const std::string& path) {
  if (::syscall(SYS_move_mount, mount_fd, "", AT_FDCWD, path.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return fail_errno(errno, fmt::format("attach a mount at '{}'", path));
  return {};
}

Result<UniqueFd> open_in_root(int root_fd, const std::string& path) {
  UniqueFd opened = open_below(root_fd, path, O_PATH);
  if (!opened) return fail_errno(errno, fmt::format("open '{}' in the container", path));
  return opened;
}

Result<UniqueFd> make_in_root(int root_fd, const std::string& path, bool is_folder) {
  if (auto there = open_in_root(root_fd, path)) return there;
  std::vector<std::string> names;
  for (std::string& name : base::split(path, '/'))
    if (!name.empty() && name != ".") names.push_back(std::move(name));
  if (names.empty() || names.size() > path_depth_max)
    return fail(ErrorCode::InvalidArgument, "'{}' is no place to mount at", path);
  std::string reached;
  UniqueFd folder = TRY(open_in_root(root_fd, "."));
  for (size_t i = 0; i < names.size(); ++i) {
    reached += "/" + names[i];
    const bool is_last = i + 1 == names.size();
    auto next = open_in_root(root_fd, reached);
    if (!next && (next.error().code() != ErrorCode::NotFound || names[i] == ".."))
      return tl::unexpected(std::move(next.error()));
    if (!next)
      next = TRY_DURING(make_last(folder, names[i], !is_last || is_folder), "mount at '{}'", path);
    folder = std::move(*next);
  }
  return folder;
}

}  // namespace agent
