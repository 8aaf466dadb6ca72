#include "guest/agent/build/pack.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <vector>

#include "base/fd.h"
#include "base/text.h"
#include "guest/agent/build/tar_writer.h"
#include "guest/agent/limits.h"

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

constexpr size_t buffer_bytes = 64u << 10;
constexpr size_t xattr_bytes_max = 64u << 10;
constexpr size_t splice_bytes_max = 1u << 20;
constexpr uint64_t splice_worth_bytes = 16u << 10;
constexpr const char* opaque_xattr = "trusted.overlay.opaque";
constexpr const char* whiteout_prefix = ".wh.";

struct CloseDir {
  void operator()(DIR* dir) const noexcept { ::closedir(dir); }
};

bool is_whiteout(const struct stat& facts) {
  return S_ISCHR(facts.st_mode) && facts.st_rdev == makedev(0, 0);
}

struct Child {
  std::string name;
  struct stat facts {};
};

Result<std::vector<Child>> children_of(int folder) {
  const int again = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, CloseDir> dir(again < 0 ? nullptr : ::fdopendir(again));
  if (!dir) return fail_errno(errno, "read a folder");
  std::vector<Child> children;
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    Child child{std::string(name), {}};
    if (::fstatat(folder, entry->d_name, &child.facts, AT_SYMLINK_NOFOLLOW) != 0)
      return fail_errno(errno, fmt::format("look at '{}'", child.name));
    children.push_back(std::move(child));
  }
  std::sort(children.begin(), children.end(),
            [](const Child& a, const Child& b) { return a.name < b.name; });
  return children;
}

class Packer {
 public:
  explicit Packer(int out) : out_(out) {}

  Result<> root(const std::string& folder, const RootFacts& before) {
    const UniqueFd top = TRY(base::open_file(folder, O_RDONLY | O_DIRECTORY));
    struct stat facts {};
    if (::fstat(top.get(), &facts) != 0) return fail_errno(errno, "look at the root");
    if ((facts.st_mode & 07777) != (before.mode & 07777) || facts.st_uid != before.user ||
        facts.st_gid != before.group) {
      TarEntry entry = entry_of(facts, "./");
      entry.type = TarType::Directory;
      TRY(put(tar_header(entry)));
    }
    TRY(content_of(top.get(), "", 0));
    TRY(put(tar_end()));
    return flush();
  }

 private:
  Result<> put(std::string_view bytes) {
    buffer_ += bytes;
    return buffer_.size() < buffer_bytes ? Result<>() : flush();
  }
  Result<> flush() {
    TRY(base::write_all(out_, buffer_));
    buffer_.clear();
    return {};
  }

  static TarEntry entry_of(const struct stat& facts, std::string path) {
    TarEntry entry;
    entry.path = std::move(path);
    entry.mode = facts.st_mode & 07777;
    entry.user = facts.st_uid;
    entry.group = facts.st_gid;
    entry.modified_s = facts.st_mtim.tv_sec;
    return entry;
  }

  Result<> content_of(int folder, const std::string& prefix, size_t depth) {
    if (depth > limits::layer_depth_max)
      return fail(ErrorCode::InvalidArgument, "more than {} folders inside each other",
                  limits::layer_depth_max);
    std::vector<Child> children = TRY(children_of(folder));
    if (is_opaque(folder)) TRY(put_mark(prefix + ".wh..wh..opq"));
    for (const Child& child : children)
      if (is_whiteout(child.facts)) TRY(put_mark(prefix + whiteout_prefix + child.name));
    for (const Child& child : children)
      if (!is_whiteout(child.facts))
        TRY_DURING(add(folder, child, prefix + child.name, depth), "'{}'", child.name);
    return {};
  }

  static bool is_opaque(int folder) {
    char value = 0;
    return ::fgetxattr(folder, opaque_xattr, &value, 1) == 1 && value == 'y';
  }

  Result<> put_mark(std::string path) {
    TarEntry mark;
    mark.path = std::move(path);
    return put(tar_header(mark));
  }

  Result<> add(int folder, const Child& child, const std::string& path, size_t depth) {
    const struct stat& facts = child.facts;
    if (S_ISSOCK(facts.st_mode)) return {};
    TarEntry entry = entry_of(facts, path);
    if (facts.st_nlink > 1 && !S_ISDIR(facts.st_mode)) {
      const auto [first, is_new] = first_names_.emplace(facts.st_ino, path);
      if (!is_new) {
        entry.type = TarType::HardLink;
        entry.link = first->second;
        return put(tar_header(entry));
      }
    }
    TRY(take_xattrs(fmt::format("/proc/self/fd/{}/{}", folder, child.name), entry));
    if (S_ISREG(facts.st_mode)) return add_file(folder, child, entry);
    if (S_ISDIR(facts.st_mode)) {
      entry.type = TarType::Directory;
      entry.path += '/';
      TRY(put(tar_header(entry)));
      const UniqueFd inner(
          ::openat(folder, child.name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!inner) return fail_errno(errno, "open the folder");
      return content_of(inner.get(), entry.path, depth + 1);
    }
    TRY(describe_special(folder, child, entry));
    return put(tar_header(entry));
  }

  static Result<> describe_special(int folder, const Child& child, TarEntry& entry) {
    if (S_ISLNK(child.facts.st_mode)) {
      std::string target(4096, '\0');
      const ssize_t size = ::readlinkat(folder, child.name.c_str(), target.data(), target.size());
      if (size < 0) return fail_errno(errno, "read the link");
      entry.type = TarType::Symlink;
      entry.link = target.substr(0, static_cast<size_t>(size));
      return {};
    }
    entry.type = S_ISFIFO(child.facts.st_mode)  ? TarType::Fifo
                 : S_ISCHR(child.facts.st_mode) ? TarType::CharacterDevice
                                                : TarType::BlockDevice;
    if (entry.type == TarType::Fifo) return {};
    entry.device_major = major(child.facts.st_rdev);
    entry.device_minor = minor(child.facts.st_rdev);
    return {};
  }

  static Result<> take_xattrs(const std::string& path, TarEntry& entry) {
    std::string names(xattr_bytes_max, '\0');
    const ssize_t size = ::llistxattr(path.c_str(), names.data(), names.size());
    if (size < 0 && errno != ENOTSUP) return fail_errno(errno, "list its attributes");
    if (size <= 0) return {};
    names.resize(static_cast<size_t>(size));
    for (const std::string& name : base::split(names, '\0')) {
      if (name.empty() || name.starts_with("trusted.overlay.") || name == "security.selinux")
        continue;
      std::string value(xattr_bytes_max, '\0');
      const ssize_t length = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
      if (length < 0) return fail_errno(errno, fmt::format("read its attribute '{}'", name));
      entry.xattrs.emplace_back(name, value.substr(0, static_cast<size_t>(length)));
    }
    std::sort(entry.xattrs.begin(), entry.xattrs.end());
    return {};
  }

  Result<> add_file(int folder, const Child& child, TarEntry& entry) {
    entry.size = static_cast<uint64_t>(child.facts.st_size);
    TRY(put(tar_header(entry)));
    if (entry.size == 0) return {};
    const UniqueFd file(
        ::openat(folder, child.name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!file) return fail_errno(errno, "open the file");
    // Pages of a large file go into the pipe as they are; small ones share a write.
    if (entry.size >= splice_worth_bytes) {
      TRY(flush());
      TRY(splice_file(file.get(), entry.size));
    } else {
      TRY(read_file(file.get(), entry.size));
    }
    return put(tar_padding(entry.size));
  }

  Result<> splice_file(int file, uint64_t size) {
    while (size > 0) {
      const size_t wanted = static_cast<size_t>(std::min<uint64_t>(size, splice_bytes_max));
      const ssize_t sent = ::sendfile(out_, file, nullptr, wanted);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return fail_errno(errno, "read the file");
      if (sent == 0) return fail(ErrorCode::Io, "the file became shorter while it was read");
      size -= static_cast<uint64_t>(sent);
    }
    return {};
  }

  Result<> read_file(int file, uint64_t size) {
    std::string bytes(static_cast<size_t>(size), '\0');
    for (size_t done = 0; done < bytes.size();) {
      const size_t count = TRY(base::read_some(file, {bytes.data() + done, bytes.size() - done}));
      if (count == 0) return fail(ErrorCode::Io, "the file became shorter while it was read");
      done += count;
    }
    return put(bytes);
  }

  const int out_;
  std::string buffer_;
  std::map<ino_t, std::string> first_names_;  ///< Of files with several.
};

}  // namespace

Result<> pack(const std::string& folder, const RootFacts& before, int out) {
  return Packer(out).root(folder, before);
}

}  // namespace agent
