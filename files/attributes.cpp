#include <algorithm>
#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "files/operations.h"

namespace files {
namespace {

constexpr size_t xattr_bytes_max = 64 * 1024;

/// Only what users own crosses: security and trusted attributes mean something to the host, and
/// ours says who owns a file.
bool may_cross(const std::string& name) {
  return name.starts_with("user.") && name != guest_owner_attribute;
}

timespec time_of(uint64_t seconds, uint32_t nanoseconds) {
  return {.tv_sec = static_cast<time_t>(seconds), .tv_nsec = static_cast<long>(nanoseconds)};
}

/// What utimensat understands: leave it, now, or this time.
timespec wanted_time(uint32_t valid, uint32_t given, uint32_t now, timespec time) {
  if (valid & now) return {.tv_sec = 0, .tv_nsec = UTIME_NOW};
  if (valid & given) return time;
  return {.tv_sec = 0, .tv_nsec = UTIME_OMIT};
}

}  // namespace

fuse_attr Server::attributes_of(uint64_t number, const struct stat& info,
                                const std::string& proc_path) {
  fuse_attr attributes{};
  attributes.ino = number;
  attributes.size = static_cast<uint64_t>(info.st_size);
  attributes.blocks = static_cast<uint64_t>(info.st_blocks);
  attributes.atime = static_cast<uint64_t>(info.st_atim.tv_sec);
  attributes.mtime = static_cast<uint64_t>(info.st_mtim.tv_sec);
  attributes.ctime = static_cast<uint64_t>(info.st_ctim.tv_sec);
  attributes.atimensec = static_cast<uint32_t>(info.st_atim.tv_nsec);
  attributes.mtimensec = static_cast<uint32_t>(info.st_mtim.tv_nsec);
  attributes.ctimensec = static_cast<uint32_t>(info.st_ctim.tv_nsec);
  attributes.mode = info.st_mode;
  attributes.nlink = static_cast<uint32_t>(info.st_nlink);
  attributes.uid = info.st_uid;
  attributes.gid = info.st_gid;
  attributes.rdev = static_cast<uint32_t>(info.st_rdev);
  attributes.blksize = static_cast<uint32_t>(info.st_blksize);
  if (!mapped_) return attributes;
  if (info.st_uid == ::geteuid()) attributes.uid = 0;
  if (info.st_gid == ::getegid()) attributes.gid = 0;
  char owner[64] = "";
  unsigned user = 0;
  unsigned group = 0;
  const ssize_t length =
      S_ISLNK(info.st_mode)
          ? -1
          : ::getxattr(proc_path.c_str(), std::string(guest_owner_attribute).c_str(), owner,
                       sizeof owner - 1);
  if (length > 0 && std::sscanf(owner, "%u:%u", &user, &group) == 2) {
    attributes.uid = user;
    attributes.gid = group;
  }
  return attributes;
}

fuse_attr Server::root_attributes() const {
  fuse_attr attributes{};
  attributes.ino = FUSE_ROOT_ID;
  attributes.mode = S_IFDIR | 0555;
  attributes.nlink = 2;
  attributes.blksize = 4096;
  return attributes;
}

Reply Server::get_attributes(Call& call) {
  fuse_attr_out answer{};
  answer.attr_valid = trust_seconds;
  if (call.header.nodeid == FUSE_ROOT_ID) {
    answer.attr = root_attributes();
    return Reply::of(answer);
  }
  const Inode* const known = inode(call.header.nodeid);
  struct stat info {};
  if (!known) return Reply::failure(ENOENT);
  if (::fstat(known->place.get(), &info) != 0) return Reply::failure(errno);
  answer.attr = attributes_of(known->number, info, known->proc_path());
  return Reply::of(answer);
}

int Server::set_owner(const std::string& proc_path, std::optional<uint32_t> user,
                      std::optional<uint32_t> group) {
  constexpr auto unchanged = static_cast<uint32_t>(-1);
  if (!mapped_) {
    const int done =
        ::chown(proc_path.c_str(), user.value_or(unchanged), group.value_or(unchanged));
    return done == 0 ? 0 : errno;
  }
  struct stat info {};
  if (::stat(proc_path.c_str(), &info) != 0) return errno;
  const fuse_attr now = attributes_of(0, info, proc_path);
  const std::string owner = fmt::format("{}:{}", user.value_or(now.uid), group.value_or(now.gid));
  const int done = ::setxattr(proc_path.c_str(), std::string(guest_owner_attribute).c_str(),
                              owner.data(), owner.size(), 0);
  return done == 0 ? 0 : errno;
}

int Server::change_attributes(Inode& known, const fuse_setattr_in& wanted) {
  const std::string path = known.proc_path();
  // /proc/self/fd leads to a symbolic link itself for no call that changes it.
  if (known.type == S_IFLNK) return wanted.valid & (FATTR_UID | FATTR_GID) ? EPERM : 0;
  if (wanted.valid & (FATTR_UID | FATTR_GID)) {
    const int error =
        set_owner(path, wanted.valid & FATTR_UID ? std::optional(wanted.uid) : std::nullopt,
                  wanted.valid & FATTR_GID ? std::optional(wanted.gid) : std::nullopt);
    if (error != 0) return error;
  }
  // After the owner, since a change of owner takes set-id bits away.
  if (wanted.valid & FATTR_MODE && ::chmod(path.c_str(), wanted.mode & 07777) != 0) return errno;
  if (wanted.valid & FATTR_SIZE) {
    if (known.type != S_IFREG) return EINVAL;
    if (::truncate(path.c_str(), static_cast<off_t>(wanted.size)) != 0) return errno;
  }
  if (wanted.valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)) {
    const timespec times[2] = {wanted_time(wanted.valid, FATTR_ATIME, FATTR_ATIME_NOW,
                                           time_of(wanted.atime, wanted.atimensec)),
                               wanted_time(wanted.valid, FATTR_MTIME, FATTR_MTIME_NOW,
                                           time_of(wanted.mtime, wanted.mtimensec))};
    if (::utimensat(AT_FDCWD, path.c_str(), times, 0) != 0) return errno;
  }
  return 0;
}

Reply Server::set_attributes(Call& call) {
  const auto wanted = call.arguments.take<fuse_setattr_in>();
  if (!wanted) return Reply::failure(EINVAL);
  int error = 0;
  Inode* const known = changeable(call.header.nodeid, error);
  if (!known) return Reply::failure(error);
  error = change_attributes(*known, *wanted);
  return error == 0 ? get_attributes(call) : Reply::failure(error);
}

Reply Server::filesystem_statistics(Call& call) {
  const Inode* const known = inode(call.header.nodeid);
  const int place = known ? known->place.get() : shares_.empty() ? -1 : shares_[0].place.get();
  struct statvfs host {};
  if (::fstatvfs(place, &host) != 0) return Reply::failure(errno);
  fuse_statfs_out answer{};
  answer.st.blocks = host.f_blocks;
  answer.st.bfree = host.f_bfree;
  answer.st.bavail = host.f_bavail;
  answer.st.files = host.f_files;
  answer.st.ffree = host.f_ffree;
  answer.st.bsize = static_cast<uint32_t>(host.f_bsize);
  answer.st.frsize = static_cast<uint32_t>(host.f_frsize);
  answer.st.namelen = static_cast<uint32_t>(host.f_namemax);
  return Reply::of(answer);
}

namespace {

/// Size-query protocol of both get and list: size 0 asks how much room is needed.
Reply sized_reply(const std::string& value, uint32_t room) {
  if (room == 0) return Reply::of(fuse_getxattr_out{.size = static_cast<uint32_t>(value.size())});
  if (value.size() > room) return Reply::failure(ERANGE);
  return Reply::bytes(value);
}

}  // namespace

Reply Server::get_extended(Call& call) {
  const auto wanted = call.arguments.take<fuse_getxattr_in>();
  const std::optional<std::string> name = call.arguments.take_text();
  const Inode* const known = inode(call.header.nodeid);
  if (!wanted || !name) return Reply::failure(EINVAL);
  if (!known || known->type == S_IFLNK || !may_cross(*name)) return Reply::failure(ENODATA);
  std::string value(xattr_bytes_max, '\0');
  const ssize_t length =
      ::getxattr(known->proc_path().c_str(), name->c_str(), value.data(), value.size());
  if (length < 0) return Reply::failure(errno);
  value.resize(static_cast<size_t>(length));
  return sized_reply(value, wanted->size);
}

Reply Server::set_extended(Call& call) {
  // Without FUSE_SETXATTR_EXT the message ends after size and flags.
  const auto head = call.arguments.take_bytes(FUSE_COMPAT_SETXATTR_IN_SIZE);
  const std::optional<std::string> name = call.arguments.take_text();
  if (!head || !name) return Reply::failure(EINVAL);
  uint32_t size_and_flags[2];
  std::memcpy(size_and_flags, head->data(), sizeof size_and_flags);
  const auto value = call.arguments.take_bytes(size_and_flags[0]);
  if (!value || value->size() > xattr_bytes_max) return Reply::failure(EINVAL);
  int error = 0;
  Inode* const known = changeable(call.header.nodeid, error);
  if (!known) return Reply::failure(error);
  if (known->type == S_IFLNK || !may_cross(*name)) return Reply::failure(ENOTSUP);
  const int done = ::setxattr(known->proc_path().c_str(), name->c_str(), value->data(),
                              value->size(), static_cast<int>(size_and_flags[1]));
  return done == 0 ? Reply() : Reply::failure(errno);
}

Reply Server::list_extended(Call& call) {
  const auto wanted = call.arguments.take<fuse_getxattr_in>();
  const Inode* const known = inode(call.header.nodeid);
  if (!wanted) return Reply::failure(EINVAL);
  if (!known || known->type == S_IFLNK) return sized_reply("", wanted->size);
  std::string names(xattr_bytes_max, '\0');
  const ssize_t length = ::listxattr(known->proc_path().c_str(), names.data(), names.size());
  if (length < 0) return Reply::failure(errno);
  Arguments listed(std::string_view(names).substr(0, static_cast<size_t>(length)));
  std::string crossing;
  while (const std::optional<std::string> name = listed.take_text())
    if (may_cross(*name)) crossing.append(*name).push_back('\0');
  return sized_reply(crossing, wanted->size);
}

Reply Server::remove_extended(Call& call) {
  const std::optional<std::string> name = call.arguments.take_text();
  if (!name) return Reply::failure(EINVAL);
  int error = 0;
  Inode* const known = changeable(call.header.nodeid, error);
  if (!known) return Reply::failure(error);
  if (known->type == S_IFLNK || !may_cross(*name)) return Reply::failure(ENOTSUP);
  const int done = ::removexattr(known->proc_path().c_str(), name->c_str());
  return done == 0 ? Reply() : Reply::failure(errno);
}

}  // namespace files
