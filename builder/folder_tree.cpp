#include "builder/folder_tree.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <string_view>

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/sha256.h"
#include "base/text.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;
using base::UniqueFd;

constexpr size_t read_bytes = 1u << 20;
constexpr size_t xattr_list_bytes_max = 64u << 10;

std::string shown(std::string_view path) {
  return path.empty() ? "the folder itself" : "'" + base::escape_controls(path) + "'";
}

/// Below `root` only, and through no symbolic link.
Result<UniqueFd> open_beneath(int root, const std::string& path, uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC | O_NOFOLLOW;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const char* name = path.empty() ? "." : path.c_str();
  for (;;) {
    const auto fd = static_cast<int>(::syscall(SYS_openat2, root, name, &how, sizeof how));
    if (fd >= 0) return UniqueFd(fd);
    // Somebody renamed folders just now: the kernel could not tell whether it stayed below.
    if (errno == EINTR || errno == EAGAIN) continue;
    if (errno == ENOTDIR)
      return base::fail(ErrorCode::NotFound, "{} is below something that is no folder",
                        shown(path));
    if (errno == ELOOP || errno == EXDEV)
      return base::fail(ErrorCode::NotFound, "{} is behind a symbolic link", shown(path));
    return base::fail_errno(errno, fmt::format("open {}", shown(path)));
  }
}

FileIdentity identity_of(const struct stat& status) {
  const auto ns = [](const timespec& time) { return time.tv_sec * 1'000'000'000 + time.tv_nsec; };
  return {.device = status.st_dev,
          .inode = status.st_ino,
          .size = static_cast<uint64_t>(status.st_size),
          .modified_ns = ns(status.st_mtim),
          .changed_ns = ns(status.st_ctim)};
}

/// Names that mean the same on every host.
bool is_kept_xattr(std::string_view name) {
  return name == "security.capability" ||
         (name.starts_with("user.") && !name.starts_with("user.overlay."));
}

class FolderTree final : public Tree {
 public:
  FolderTree(UniqueFd root, const FolderTreeOptions& options)
      : root_(std::move(root)), options_(options) {}

  Result<Node> node(const std::string& path) const override {
    const UniqueFd fd = TRY(open_beneath(root_.get(), path, O_PATH));
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0)
      return base::fail_errno(errno, fmt::format("look at {}", shown(path)));
    return node_of(status, fd.get(), "", path);
  }

  Result<std::vector<NamedNode>> list(const std::string& path) const override {
    UniqueFd fd = TRY(open_beneath(root_.get(), path, O_RDONLY | O_DIRECTORY));
    const std::unique_ptr<DIR, int (*)(DIR*)> folder(::fdopendir(fd.get()), ::closedir);
    if (!folder) return base::fail_errno(errno, fmt::format("list {}", shown(path)));
    const int folder_fd = fd.release();  // the DIR owns it now
    std::vector<NamedNode> children;
    errno = 0;
    while (const dirent* entry = ::readdir(folder.get())) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      struct stat status {};
      if (::fstatat(folder_fd, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT) continue;  // removed just now
        return base::fail_errno(errno, fmt::format("look at '{}'", base::escape_controls(name)));
      }
      Result<Node> child = node_of(status, folder_fd, name, name);
      if (!child && child.error().code() == ErrorCode::NotFound) continue;
      if (!child) return tl::unexpected(child.error());
      children.push_back({name, std::move(*child)});
      errno = 0;
    }
    if (errno != 0) return base::fail_errno(errno, fmt::format("list {}", shown(path)));
    std::sort(children.begin(), children.end(),
              [](const NamedNode& a, const NamedNode& b) { return a.name < b.name; });
    return children;
  }

  Result<> read(const std::string& path, const Sink& sink) const override {
    return read_file(path, sink).map([](const FileIdentity&) {});
  }

  Result<std::string> content_digest(const std::string& path) const override {
    if (options_.digests != nullptr) {
      const UniqueFd fd = TRY(open_beneath(root_.get(), path, O_PATH));
      struct stat status {};
      if (::fstat(fd.get(), &status) != 0)
        return base::fail_errno(errno, fmt::format("look at {}", shown(path)));
      if (auto known = options_.digests->find(identity_of(status))) return *known;
    }
    base::Sha256 hash;
    const FileIdentity file = TRY(read_file(path, [&](std::string_view bytes) -> Result<> {
      hash.update(bytes);
      return {};
    }));
    const std::string digest = hash.finish();
    if (options_.digests != nullptr) options_.digests->remember(file, digest);
    return digest;
  }

 private:
  /// `name` in the folder `at`, or `at` itself.
  Result<Node> node_of(const struct stat& status, int at, const std::string& name,
                       const std::string& path) const {
    Node node;
    node.type = type_of(status.st_mode);
    node.mode = status.st_mode & 07777;
    if (!options_.owned_by_root) {
      node.user = status.st_uid;
      node.group = status.st_gid;
    }
    node.modified_s = status.st_mtim.tv_sec;
    node.modified_ns = static_cast<uint32_t>(status.st_mtim.tv_nsec);
    if (node.type == NodeType::File) node.size = static_cast<uint64_t>(status.st_size);
    if (node.type == NodeType::CharacterDevice || node.type == NodeType::BlockDevice) {
      node.device_major = major(status.st_rdev);
      node.device_minor = minor(status.st_rdev);
    }
    // Inode numbers of several file systems under one folder are kept apart.
    if (node.type != NodeType::Directory && status.st_nlink > 1)
      node.hard_link_id = (status.st_ino ^ (uint64_t{status.st_dev} << 40)) | (1ull << 63);
    if (node.type == NodeType::Symlink) node.link = TRY(link_of(at, name, path));
    if (options_.read_xattrs && (node.type == NodeType::File || node.type == NodeType::Directory))
      node.xattrs = TRY(xattrs_of(at, name, path));
    return node;
  }

  static Result<std::string> link_of(int at, const std::string& name, const std::string& path) {
    std::array<char, 4096> target{};
    const ssize_t count = ::readlinkat(at, name.c_str(), target.data(), target.size());
    if (count < 0) return base::fail_errno(errno, fmt::format("read the link {}", shown(path)));
    return std::string(target.data(), static_cast<size_t>(count));
  }

  /// Through /proc, since a descriptor that opens nothing (O_PATH) gives no attributes.
  static Result<std::vector<std::pair<std::string, std::string>>> xattrs_of(
      int at, const std::string& name, const std::string& path) {
    std::vector<std::pair<std::string, std::string>> xattrs;
    const std::string place =
        fmt::format("/proc/self/fd/{}", at) + (name.empty() ? "" : "/" + name);
    // The link in /proc is followed, one below it never.
    const auto list = name.empty() ? ::listxattr : ::llistxattr;
    const auto get = name.empty() ? ::getxattr : ::lgetxattr;
    thread_local std::string names(xattr_list_bytes_max, '\0');
    const ssize_t count = list(place.c_str(), names.data(), names.size());
    if (count < 0 && (errno == ENOTSUP || errno == ENOENT || errno == EACCES)) return xattrs;
    if (count < 0)
      return base::fail_errno(errno, fmt::format("list the attributes of {}", shown(path)));
    const std::string_view all(names.data(), static_cast<size_t>(count));
    for (const std::string& key : base::split(all, '\0')) {
      if (!is_kept_xattr(key)) continue;
      std::string value(xattr_list_bytes_max, '\0');
      const ssize_t size = get(place.c_str(), key.c_str(), value.data(), value.size());
      if (size < 0 && (errno == ENODATA || errno == ENOENT || errno == EACCES)) continue;
      if (size < 0)
        return base::fail_errno(errno, fmt::format("read the attribute {} of {}",
                                                   base::escape_controls(key), shown(path)));
      value.resize(static_cast<size_t>(size));
      xattrs.emplace_back(key, std::move(value));
    }
    std::sort(xattrs.begin(), xattrs.end());
    return xattrs;
  }

  /// What the file was before and after it was read.
  Result<FileIdentity> read_file(const std::string& path, const Sink& sink) const {
    const UniqueFd place = TRY(open_beneath(root_.get(), path, O_PATH));
    struct stat before {};
    if (::fstat(place.get(), &before) != 0)
      return base::fail_errno(errno, fmt::format("look at {}", shown(path)));
    // Opening a fifo would wait, opening a device may do anything.
    if (!S_ISREG(before.st_mode))
      return base::fail(ErrorCode::InvalidArgument, "{} is no regular file", shown(path));
    const UniqueFd fd =
        TRY(base::open_file(fmt::format("/proc/self/fd/{}", place.get()), O_RDONLY));
    std::vector<char> buffer(std::min<size_t>(
        read_bytes, std::max<size_t>(4096, static_cast<size_t>(before.st_size) + 1)));
    uint64_t total = 0;
    while (const size_t count = TRY(base::read_some(fd.get(), buffer))) {
      total += count;
      if (total > static_cast<uint64_t>(before.st_size)) return changed(path);
      TRY(sink(std::string_view(buffer.data(), count)));
    }
    struct stat after {};
    if (::fstat(fd.get(), &after) != 0)
      return base::fail_errno(errno, fmt::format("look at {}", shown(path)));
    if (identity_of(before) != identity_of(after) || total != static_cast<uint64_t>(before.st_size))
      return changed(path);
    return identity_of(after);
  }

  static tl::unexpected<base::Error> changed(const std::string& path) {
    return base::fail(ErrorCode::InvalidState, "{} changed while it was read; build again",
                      shown(path));
  }

  UniqueFd root_;
  FolderTreeOptions options_;
};

}  // namespace

Result<std::unique_ptr<Tree>> open_folder_tree(const std::string& path,
                                               const FolderTreeOptions& options) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && errno == ENOTDIR)
    return base::fail(ErrorCode::InvalidArgument, "'{}' is no folder", base::escape_controls(path));
  if (fd < 0) return base::fail_errno(errno, fmt::format("open '{}'", base::escape_controls(path)));
  return std::make_unique<FolderTree>(UniqueFd(fd), options);
}

}  // namespace builder
