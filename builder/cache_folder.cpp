#include "builder/cache_folder.h"

#include <cerrno>
#include <cstdio>
#include <map>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/guest_owner.h"
#include "base/text.h"
#include "builder/copy_select.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;
using base::UniqueFd;

std::string shown(const std::string& path) { return "'/" + base::escape_controls(path) + "'"; }

/// Copies a tree into a folder that nobody else knows of yet.
class Filler {
 public:
  Filler(const CacheSeed& seed, int root, const Cancellation& cancellation)
      : seed_(seed), root_(root), cancellation_(cancellation) {}

  Result<> fill() { return fill_folder(root_, seed_.path, ""); }

 private:
  /// `inside` is the path below the folder that is filled.
  Result<> fill_folder(int folder, const std::string& tree_path, const std::string& inside) {
    TRY(check_depth(inside));
    for (const NamedNode& child : TRY(seed_.tree->list(tree_path))) {
      if (cancellation_.cancelled()) return base::fail(ErrorCode::Cancelled, "cancelled");
      const std::string& name = child.name;
      if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos)
        return base::fail(ErrorCode::InvalidArgument, "'{}' is no name of a file",
                          base::escape_controls(name));
      TRY(add(folder, child, join_path(tree_path, name), join_path(inside, name)));
    }
    return {};
  }

  Result<> add(int folder, const NamedNode& child, const std::string& tree_path,
               const std::string& inside) {
    const Node& node = child.node;
    switch (node.type) {
      case NodeType::Socket: return {};  // of a process that is long gone
      case NodeType::Directory: return add_folder(folder, child, tree_path, inside);
      case NodeType::File: return add_file(folder, child, tree_path, inside);
      case NodeType::Symlink:
        if (::symlinkat(node.link.c_str(), folder, child.name.c_str()) != 0)
          return base::fail_errno(errno, "make the link " + shown(inside));
        if (::geteuid() == 0 &&
            ::fchownat(folder, child.name.c_str(), node.user, node.group, AT_SYMLINK_NOFOLLOW) != 0)
          return base::fail_errno(errno, "give the link " + shown(inside) + " its owner");
        return {};
      case NodeType::CharacterDevice:
      case NodeType::BlockDevice:
      case NodeType::Fifo: break;
    }
    return base::fail(ErrorCode::Unsupported,
                      "a cache begins with files, folders and links, and {} is none; name a "
                      "folder without it with 'source'",
                      shown(tree_path));
  }

  Result<> add_folder(int folder, const NamedNode& child, const std::string& tree_path,
                      const std::string& inside) {
    if (::mkdirat(folder, child.name.c_str(), 0700) != 0)
      return base::fail_errno(errno, "make the folder " + shown(inside));
    const UniqueFd made(
        ::openat(folder, child.name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!made) return base::fail_errno(errno, "open the folder " + shown(inside));
    TRY(fill_folder(made.get(), tree_path, inside));
    return finish(made.get(), child.node, inside);
  }

  Result<> add_file(int folder, const NamedNode& child, const std::string& tree_path,
                    const std::string& inside) {
    if (child.node.hard_link_id != 0) {
      const auto [first, is_new] = links_.emplace(child.node.hard_link_id, inside);
      // All folders on the way were made here, so none of them is a link.
      if (!is_new && ::linkat(root_, first->second.c_str(), folder, child.name.c_str(), 0) != 0)
        return base::fail_errno(errno, "link " + shown(inside));
      if (!is_new) return {};
    }
    const UniqueFd made(::openat(folder, child.name.c_str(),
                                 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!made) return base::fail_errno(errno, "make the file " + shown(inside));
    TRY(seed_.tree->read(
        tree_path, [&](std::string_view bytes) { return base::write_all(made.get(), bytes); }));
    return finish(made.get(), child.node, inside);
  }

  /// Owner before mode, which a change of owner would cut; times last.
  static Result<> finish(int fd, const Node& node, const std::string& inside) {
    TRY(base::set_guest_owner(fd, node.user, node.group, inside));
    for (const auto& [name, value] : node.xattrs)
      if (name.starts_with("user.") && name != base::guest_owner_attribute &&
          ::fsetxattr(fd, name.c_str(), value.data(), value.size(), 0) != 0)
        return base::fail_errno(errno, "set an attribute of " + shown(inside));
    if (::fchmod(fd, node.mode & 07777) != 0)
      return base::fail_errno(errno, "set the mode of " + shown(inside));
    const timespec time{.tv_sec = node.modified_s, .tv_nsec = node.modified_ns};
    const timespec times[2] = {time, time};
    if (::futimens(fd, times) != 0)
      return base::fail_errno(errno, "set the time of " + shown(inside));
    return {};
  }

  const CacheSeed& seed_;
  const int root_;
  const Cancellation& cancellation_;
  std::map<uint64_t, std::string> links_;
};

/// What the mount says of the folder itself goes before what the seed's folder is.
Result<> set_up(int fd, const RunMount& mount, const std::optional<Node>& like) {
  const Node node = like.value_or(Node{.type = NodeType::Directory, .mode = 0755});
  TRY(base::set_guest_owner(fd, mount.user.value_or(node.user), mount.group.value_or(node.group),
                            "a cache's folder"));
  if (::fchmod(fd, mount.mode.value_or(node.mode)) != 0)
    return base::fail_errno(errno, "set the mode of a cache's folder");
  return {};
}

Result<> make(const std::string& path, const RunMount& mount, const CacheSeed& seed,
              const Cancellation& cancellation) {
  const UniqueFd folder = TRY(base::open_file(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  if (!seed.tree) return set_up(folder.get(), mount, std::nullopt);
  const Node node = TRY(seed.tree->node(seed.path));
  if (node.type != NodeType::Directory)
    return base::fail(ErrorCode::InvalidArgument, "a cache begins with a folder, and {} is none",
                      shown(seed.path));
  TRY(Filler(seed, folder.get(), cancellation).fill());
  return set_up(folder.get(), mount, node);
}

}  // namespace

Result<> make_cache_folder(const std::string& path, const RunMount& mount, const CacheSeed& seed,
                           const CacheFolderOptions& options) {
  if (base::path_exists(path)) return {};
  const std::string unfinished =
      fmt::format("{}/cache-{}", options.work_folder, base::random_hex(8));
  TRY(base::make_directories(unfinished));
  TRY(base::make_directories(path.substr(0, path.rfind('/'))));
  TRY(make(unfinished, mount, seed, options.cancellation));
  if (::renameat2(AT_FDCWD, unfinished.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) == 0)
    return {};
  // Another build was faster, and its folder may be in use.
  if (errno == EEXIST) return {};
  return base::fail_errno(errno, "put a cache's folder in its place");
}

}  // namespace builder
