#include "guest/agent/build/unpack.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "base/fd.h"
#include "base/text.h"
#include "guest/agent/limits.h"

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;
using Pieces = std::vector<std::string>;

constexpr size_t name_bytes_max = 255;
constexpr std::string_view whiteout_prefix = ".wh.";
constexpr std::string_view opaque_name = ".wh..wh..opq";
constexpr const char* opaque_xattr = "trusted.overlay.opaque";

bool is_overlay_instruction(std::string_view name) {
  return name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.");
}

/// The pieces of a member's name: no empty ones, no `.`, and `..` never above the root.
Result<Pieces> clamped(std::string_view path) {
  Pieces pieces;
  for (std::string& piece : base::split(path, '/')) {
    if (piece.empty() || piece == ".") continue;
    if (piece == "..") {
      if (!pieces.empty()) pieces.pop_back();
      continue;
    }
    if (piece.size() > name_bytes_max)
      return fail(ErrorCode::InvalidArgument, "a name of {} bytes", piece.size());
    pieces.push_back(std::move(piece));
  }
  if (pieces.size() > limits::layer_depth_max)
    return fail(ErrorCode::InvalidArgument, "more than {} folders inside each other",
                limits::layer_depth_max);
  return pieces;
}

struct CloseDir {
  void operator()(DIR* dir) const noexcept { ::closedir(dir); }
};

/// Whatever `name` is, it is gone afterwards. Depth is bounded by what unpack makes.
Result<> remove_entry(int parent, const std::string& name) {
  if (::unlinkat(parent, name.c_str(), 0) == 0 || errno == ENOENT) return {};
  if (errno != EISDIR && errno != EPERM) return fail_errno(errno, "replace an entry");
  const int folder =
      ::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  const std::unique_ptr<DIR, CloseDir> entries(folder < 0 ? nullptr : ::fdopendir(folder));
  if (!entries) return fail_errno(errno, "replace a folder");
  while (const dirent* entry = ::readdir(entries.get())) {
    const std::string_view each = entry->d_name;
    if (each != "." && each != "..") TRY(remove_entry(folder, std::string(each)));
  }
  if (::unlinkat(parent, name.c_str(), AT_REMOVEDIR) != 0)
    return fail_errno(errno, "replace a folder");
  return {};
}

bool is_whiteout(const struct stat& facts) {
  return S_ISCHR(facts.st_mode) && facts.st_rdev == makedev(0, 0);
}

class Unpacker {
 public:
  Unpacker(TarReader& archive, int root, UnpackKind kind)
      : archive_(archive), root_(root), kind_(kind) {}

  Result<> run() {
    while (const auto entry = TRY(archive_.next()))
      TRY_DURING(add(*entry), "'{}'", base::escape_controls(entry->path));
    TRY(archive_.drain());
    return settle_times();
  }

 private:
  struct Opened {
    std::string name;
    UniqueFd fd;
  };
  struct FolderTime {
    std::string path;
    timespec modified;
  };

  int parent() const { return open_.empty() ? root_ : open_.back().fd.get(); }

  /// Opens the folders of `pieces` but the last; what is missing is made.
  Result<> enter_parent(const Pieces& pieces) {
    const size_t depth = pieces.empty() ? 0 : pieces.size() - 1;
    size_t same = 0;
    while (same < open_.size() && same < depth && open_[same].name == pieces[same]) ++same;
    open_.resize(same);
    for (size_t i = same; i < depth; ++i) {
      if (kind_ == UnpackKind::Layer && pieces[i].starts_with(whiteout_prefix))
        return fail(ErrorCode::InvalidArgument, "a whiteout cannot be a folder");
      UniqueFd folder = TRY(make_folder(pieces[i]));
      open_.push_back({pieces[i], std::move(folder)});
    }
    return {};
  }

  /// The folder `name` in the parent; anything else of that name is replaced.
  Result<UniqueFd> make_folder(const std::string& name) {
    constexpr int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    UniqueFd folder(::openat(parent(), name.c_str(), flags));
    if (folder) return folder;
    bool hides = false;
    if (errno != ENOENT) {
      struct stat facts {};
      hides =
          ::fstatat(parent(), name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0 && is_whiteout(facts);
      TRY(remove_entry(parent(), name));
    }
    if (::mkdirat(parent(), name.c_str(), 0755) != 0) return fail_errno(errno, "make a folder");
    folder.reset(::openat(parent(), name.c_str(), flags));
    if (!folder) return fail_errno(errno, "open a folder");
    if (hides) TRY(make_opaque(folder.get()));
    return folder;
  }

  static Result<> make_opaque(int folder) {
    if (::fsetxattr(folder, opaque_xattr, "y", 1, 0) != 0)
      return fail_errno(errno, "hide what lies below a folder");
    return {};
  }

  Result<> add(const TarEntry& entry) {
    const Pieces pieces = TRY(clamped(entry.path));
    TRY(enter_parent(pieces));
    const std::string name = pieces.empty() ? "" : pieces.back();
    if (kind_ == UnpackKind::Layer && TRY(take_whiteout(name))) return {};
    if (entry.type == TarType::Directory) return add_folder(entry, pieces, name);
    if (name.empty()) return fail(ErrorCode::InvalidArgument, "the root cannot be replaced");
    if (entry.type == TarType::HardLink) return add_hard_link(entry, pieces, name);
    TRY(remove_entry(parent(), name));
    if (entry.type == TarType::File) return add_file(entry, name);
    return add_special(entry, name);
  }

  Result<bool> take_whiteout(const std::string& name) {
    if (!name.starts_with(whiteout_prefix)) return false;
    if (name == opaque_name) {
      TRY(make_opaque(parent()));
      return true;
    }
    const std::string hidden = name.substr(whiteout_prefix.size());
    if (hidden.empty() || hidden == "." || hidden == "..")
      return fail(ErrorCode::InvalidArgument, "a whiteout of nothing");
    if (hidden.starts_with(whiteout_prefix)) return true;  // aufs's own notes, never content
    struct stat facts {};
    if (::fstatat(parent(), hidden.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0) {
      if (!S_ISDIR(facts.st_mode)) return true;
      TRY(make_opaque(TRY(make_folder(hidden)).get()));
      return true;
    }
    if (::mknodat(parent(), hidden.c_str(), S_IFCHR, makedev(0, 0)) != 0)
      return fail_errno(errno, "make a whiteout");
    return true;
  }

  Result<> add_folder(const TarEntry& entry, const Pieces& pieces, const std::string& name) {
    const UniqueFd made =
        name.empty() ? UniqueFd(::fcntl(root_, F_DUPFD_CLOEXEC, 3)) : TRY(make_folder(name));
    TRY(set_attributes(made.get(), entry));
    if (folder_times_.size() >= limits::layer_folders_max)
      return fail(ErrorCode::InvalidArgument, "more than {} folders", limits::layer_folders_max);
    folder_times_.push_back({base::join(pieces, "/"), time_of(entry)});
    return {};
  }

  Result<> add_file(const TarEntry& entry, const std::string& name) {
    const UniqueFd file(::openat(parent(), name.c_str(),
                                 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                                 entry.mode & 0777));
    if (!file) return fail_errno(errno, "make the file");
    for (;;) {
      const std::string_view bytes = TRY(archive_.content());
      if (bytes.empty()) break;
      TRY(base::write_all(file.get(), bytes));
    }
    TRY(set_attributes(file.get(), entry));
    const timespec times[] = {time_of(entry), time_of(entry)};
    if (::futimens(file.get(), times) != 0) return fail_errno(errno, "set its time");
    return {};
  }

  /// Links, devices and pipes: by name, since they cannot be opened without effect.
  Result<> add_special(const TarEntry& entry, const std::string& name) {
    if (entry.type == TarType::Symlink) {
      if (::symlinkat(entry.link.c_str(), parent(), name.c_str()) != 0)
        return fail_errno(errno, "make the link");
    } else {
      const mode_t type = entry.type == TarType::Fifo              ? S_IFIFO
                          : entry.type == TarType::CharacterDevice ? S_IFCHR
                                                                   : S_IFBLK;
      const dev_t device = makedev(entry.device_major, entry.device_minor);
      // This one would be overlayfs's whiteout.
      if (type == S_IFCHR && device == makedev(0, 0)) return {};
      if (::mknodat(parent(), name.c_str(), type | (entry.mode & 0777), device) != 0)
        return fail_errno(errno, "make the special file");
    }
    if (::fchownat(parent(), name.c_str(), entry.user, entry.group, AT_SYMLINK_NOFOLLOW) != 0)
      return fail_errno(errno, "set its owner");
    const std::string path = fmt::format("/proc/self/fd/{}/{}", parent(), name);
    if (entry.type != TarType::Symlink && ::chmod(path.c_str(), entry.mode) != 0)
      return fail_errno(errno, "set its mode");
    for (const auto& [key, value] : entry.xattrs)
      if (!is_overlay_instruction(key) &&
          ::lsetxattr(path.c_str(), key.c_str(), value.data(), value.size(), 0) != 0)
        return fail_errno(errno, fmt::format("set its attribute '{}'", base::escape_controls(key)));
    const timespec times[] = {time_of(entry), time_of(entry)};
    if (::utimensat(parent(), name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0)
      return fail_errno(errno, "set its time");
    return {};
  }

  Result<> add_hard_link(const TarEntry& entry, const Pieces& pieces, const std::string& name) {
    Pieces target = TRY(clamped(entry.link));
    if (target == pieces) return {};
    const auto no_file = [&] {
      return fail(ErrorCode::InvalidArgument, "a hard link to '{}', which is no file of it",
                  base::escape_controls(entry.link));
    };
    if (target.empty()) return no_file();
    const std::string last = std::move(target.back());
    target.pop_back();
    const UniqueFd folder = open_inside(target.empty() ? "." : base::join(target, "/"));
    struct stat facts {};
    if (!folder || ::fstatat(folder.get(), last.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0 ||
        S_ISDIR(facts.st_mode) || is_whiteout(facts))
      return no_file();
    TRY(remove_entry(parent(), name));
    if (::linkat(folder.get(), last.c_str(), parent(), name.c_str(), 0) != 0)
      return errno == ENOENT ? no_file() : fail_errno(errno, "make the hard link");
    return {};
  }

  static Result<> set_attributes(int fd, const TarEntry& entry) {
    // In this order: a new owner takes set-user-id and capabilities away.
    if (::fchown(fd, entry.user, entry.group) != 0) return fail_errno(errno, "set its owner");
    if (::fchmod(fd, entry.mode) != 0) return fail_errno(errno, "set its mode");
    for (const auto& [key, value] : entry.xattrs)
      if (!is_overlay_instruction(key) &&
          ::fsetxattr(fd, key.c_str(), value.data(), value.size(), 0) != 0)
        return fail_errno(errno, fmt::format("set its attribute '{}'", base::escape_controls(key)));
    return {};
  }

  static timespec time_of(const TarEntry& entry) {
    return {entry.modified_s, static_cast<long>(entry.modified_ns)};
  }

  UniqueFd open_inside(const std::string& path) const {
    open_how how{};
    how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
    return UniqueFd(
        static_cast<int>(::syscall(SYS_openat2, root_, path.c_str(), &how, sizeof how)));
  }

  /// Last, because every entry that was made in a folder has changed its time.
  Result<> settle_times() {
    open_.clear();
    for (const FolderTime& each : folder_times_) {
      const UniqueFd folder = open_inside(each.path.empty() ? "." : each.path);
      if (!folder) continue;  // Replaced by a later entry.
      const timespec times[] = {each.modified, each.modified};
      if (::futimens(folder.get(), times) != 0) return fail_errno(errno, "set a folder's time");
    }
    return {};
  }

  TarReader& archive_;
  const int root_;
  const UnpackKind kind_;
  std::vector<Opened> open_;  ///< The folders from the root to the entry's own.
  std::vector<FolderTime> folder_times_;
};

}  // namespace

Result<> unpack(TarReader& archive, int folder, UnpackKind kind) {
  return Unpacker(archive, folder, kind).run();
}

}  // namespace agent
