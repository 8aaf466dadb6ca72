#include "guest/agent/copy_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/text.h"

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

constexpr int depth_max = 128;
constexpr size_t xattr_bytes_max = 64 * 1024;
constexpr size_t copy_bytes_max = 1 << 20;

struct CloseDir {
  void operator()(DIR* dir) const noexcept { ::closedir(dir); }
};

/// The path by which the calls that take no descriptor reach an O_PATH one.
std::string by_descriptor(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

void copy_xattrs(int from, int to) {
  std::string names(xattr_bytes_max, '\0');
  const ssize_t size = ::listxattr(by_descriptor(from).c_str(), names.data(), names.size());
  if (size <= 0) return;
  names.resize(static_cast<size_t>(size));
  std::string value(xattr_bytes_max, '\0');
  for (const std::string& name : base::split(names, '\0')) {
    if (name.empty() || name.starts_with("trusted.overlay.")) continue;
    const ssize_t length =
        ::getxattr(by_descriptor(from).c_str(), name.c_str(), value.data(), value.size());
    // A share that keeps no such attribute is no reason to leave the file out.
    if (length >= 0)
      (void)::setxattr(by_descriptor(to).c_str(), name.c_str(), value.data(),
                       static_cast<size_t>(length), 0);
  }
}

}  // namespace

Result<std::vector<std::string>> names_in(int folder) {
  const int again = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, CloseDir> dir(again < 0 ? nullptr : ::fdopendir(again));
  if (!dir) return fail_errno(errno, "read a folder");
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  return names;
}

void copy_attributes(int from, int to) {
  struct stat facts {};
  if (::fstat(from, &facts) != 0) return;
  (void)::chown(by_descriptor(to).c_str(), facts.st_uid, facts.st_gid);
  (void)::chmod(by_descriptor(to).c_str(), facts.st_mode & 07777);
  copy_xattrs(from, to);
  const timespec times[] = {facts.st_atim, facts.st_mtim};
  (void)::utimensat(AT_FDCWD, by_descriptor(to).c_str(), times, 0);
}

namespace {

class Copy {
 public:
  Result<> folder(int from, int to, int depth) {
    if (depth > depth_max)
      return fail(ErrorCode::InvalidArgument, "more than {} folders inside each other", depth_max);
    for (const std::string& name : TRY(names_in(from)))
      TRY_DURING(entry(from, to, name, depth), "'{}'", name);
    return {};
  }

 private:
  Result<> entry(int from, int to, const std::string& name, int depth) {
    const UniqueFd source(::openat(from, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat facts {};
    if (!source || ::fstat(source.get(), &facts) != 0) return fail_errno(errno, "open");
    if (S_ISLNK(facts.st_mode)) return link(from, to, name, facts);
    if (facts.st_nlink > 1 && !S_ISDIR(facts.st_mode) && linked(facts, to, name)) return {};
    if (S_ISDIR(facts.st_mode)) {
      if (::mkdirat(to, name.c_str(), 0700) != 0) return fail_errno(errno, "make a folder");
    } else if (S_ISREG(facts.st_mode)) {
      TRY(regular(from, to, name));
    } else if (::mknodat(to, name.c_str(), facts.st_mode, facts.st_rdev) != 0) {
      return fail_errno(errno, "make a special file");
    }
    const UniqueFd made(::openat(to, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!made) return fail_errno(errno, "open the copy");
    if (S_ISDIR(facts.st_mode)) TRY(folder(source.get(), made.get(), depth + 1));
    copy_attributes(source.get(), made.get());
    return {};
  }

  Result<> link(int from, int to, const std::string& name, const struct stat& facts) {
    std::string target(4096, '\0');
    const ssize_t size = ::readlinkat(from, name.c_str(), target.data(), target.size() - 1);
    if (size < 0) return fail_errno(errno, "read a link");
    target.resize(static_cast<size_t>(size));
    if (::symlinkat(target.c_str(), to, name.c_str()) != 0) return fail_errno(errno, "make a link");
    (void)::fchownat(to, name.c_str(), facts.st_uid, facts.st_gid, AT_SYMLINK_NOFOLLOW);
    return {};
  }

  Result<> regular(int from, int to, const std::string& name) {
    const UniqueFd source(::openat(from, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    const UniqueFd made(
        ::openat(to, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!source || !made) return fail_errno(errno, "copy a file");
    ssize_t count = 0;
    while ((count = ::sendfile(made.get(), source.get(), nullptr, copy_bytes_max)) > 0) {
    }
    if (count < 0) return fail_errno(errno, "copy a file");
    return {};
  }

  /// The first name of a file is copied; the later ones are linked to it.
  bool linked(const struct stat& facts, int to, const std::string& name) {
    const auto key = std::pair(facts.st_dev, facts.st_ino);
    const auto found = firsts_.find(key);
    if (found != firsts_.end())
      return ::linkat(
                 AT_FDCWD,
                 by_descriptor(found->second.folder.get()).append("/" + found->second.name).c_str(),
                 to, name.c_str(), 0) == 0;
    UniqueFd folder(::openat(to, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (folder && firsts_.size() < firsts_max) firsts_[key] = {std::move(folder), name};
    return false;
  }

  static constexpr size_t firsts_max = 256;  ///< Each holds a descriptor; later ones are copied.
  struct First {
    UniqueFd folder;
    std::string name;
  };
  std::map<std::pair<dev_t, ino_t>, First> firsts_;
};

}  // namespace

Result<> copy_tree_into_empty(int from_fd, const std::string& to) {
  const UniqueFd from(::openat(from_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!from) return {};
  const UniqueFd target = TRY(base::open_file(to, O_RDONLY | O_DIRECTORY));
  if (!TRY(names_in(target.get())).empty()) return {};
  TRY(Copy().folder(from.get(), target.get(), 0));
  copy_attributes(from.get(), target.get());
  return {};
}

}  // namespace agent
