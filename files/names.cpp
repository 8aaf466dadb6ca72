#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files/operations.h"

namespace files {
namespace {

/// The share's own name behind the virtual root; numbered behind FUSE_ROOT_ID in listings.
fuse_entry_out entry_of(const Inode& inode, const fuse_attr& attributes) {
  fuse_entry_out entry{};
  entry.nodeid = inode.number;
  entry.entry_valid = trust_seconds;
  entry.attr_valid = trust_seconds;
  entry.attr = attributes;
  return entry;
}

size_t padded(size_t bytes) { return FUSE_DIRENT_ALIGN(bytes); }

}  // namespace

Reply Server::entry_reply(Inode& parent, const std::string& name) {
  base::UniqueFd place(::openat(parent.place.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat info {};
  if (!place || ::fstat(place.get(), &info) != 0) return Reply::failure(errno);
  Inode* const known = inodes_.remember(std::move(place), parent.share, info);
  if (!known) return Reply::failure(ENFILE);
  return Reply::of(entry_of(*known, attributes_of(known->number, info, known->proc_path())));
}

Reply Server::lookup_share(const std::string& name) {
  for (size_t i = 0; i < shares_.size(); ++i) {
    if (shares_[i].share.name != name) continue;
    base::UniqueFd place(::fcntl(shares_[i].place.get(), F_DUPFD_CLOEXEC, 0));
    struct stat info {};
    if (!place || ::fstat(place.get(), &info) != 0) return Reply::failure(errno);
    Inode* const known = inodes_.remember(std::move(place), i, info);
    if (!known) return Reply::failure(ENFILE);
    return Reply::of(entry_of(*known, attributes_of(known->number, info, known->proc_path())));
  }
  return Reply::failure(ENOENT);
}

Reply Server::lookup(Call& call) {
  const std::optional<std::string> name = call.arguments.take_name();
  // `..` is never asked of us by an honest kernel: it knows the parents of what it looked up.
  if (!name) return Reply::failure(EINVAL);
  if (call.header.nodeid == FUSE_ROOT_ID) return lookup_share(*name);
  Inode* const parent = inode(call.header.nodeid);
  return parent ? entry_reply(*parent, *name) : Reply::failure(ENOENT);
}

int Server::take_ownership(Inode& parent, const std::string& name, const fuse_in_header& header) {
  if (!mapped_) {
    const int done =
        ::fchownat(parent.place.get(), name.c_str(), header.uid, header.gid, AT_SYMLINK_NOFOLLOW);
    return done == 0 ? 0 : errno;
  }
  if (header.uid == 0 && header.gid == 0) return 0;
  const base::UniqueFd place(
      ::openat(parent.place.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat info {};
  if (!place || ::fstat(place.get(), &info) != 0) return errno;
  // A link or a pipe cannot carry user attributes; it stays its maker's.
  if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) return 0;
  return set_owner(fmt::format("/proc/self/fd/{}", place.get()), header.uid, header.gid);
}

Reply Server::make_node(Call& call) {
  const auto wanted = call.arguments.take<fuse_mknod_in>();
  const std::optional<std::string> name = call.arguments.take_name();
  if (!wanted || !name) return Reply::failure(EINVAL);
  int error = 0;
  Inode* const parent = changeable(call.header.nodeid, error);
  if (!parent) return Reply::failure(error);
  const mode_t type = wanted->mode & S_IFMT;
  // Device nodes would be the host's devices.
  if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK) return Reply::failure(EPERM);
  if (::mknodat(parent->place.get(), name->c_str(), wanted->mode & ~wanted->umask, 0) != 0)
    return Reply::failure(errno);
  error = take_ownership(*parent, *name, call.header);
  return error == 0 ? entry_reply(*parent, *name) : Reply::failure(error);
}

Reply Server::make_folder(Call& call) {
  const auto wanted = call.arguments.take<fuse_mkdir_in>();
  const std::optional<std::string> name = call.arguments.take_name();
  if (!wanted || !name) return Reply::failure(EINVAL);
  int error = 0;
  Inode* const parent = changeable(call.header.nodeid, error);
  if (!parent) return Reply::failure(error);
  if (::mkdirat(parent->place.get(), name->c_str(), wanted->mode & ~wanted->umask & 07777) != 0)
    return Reply::failure(errno);
  error = take_ownership(*parent, *name, call.header);
  return error == 0 ? entry_reply(*parent, *name) : Reply::failure(error);
}

Reply Server::make_link(Call& call) {
  const auto wanted = call.arguments.take<fuse_link_in>();
  const std::optional<std::string> name = call.arguments.take_name();
  if (!wanted || !name) return Reply::failure(EINVAL);
  int error = 0;
  Inode* const parent = changeable(call.header.nodeid, error);
  Inode* const existing = inode(wanted->oldnodeid);
  if (!parent || !existing) return Reply::failure(parent ? ENOENT : error);
  // Two shares are two filesystems to the guest, even where they are one to the host.
  if (existing->share != parent->share) return Reply::failure(EXDEV);
  if (existing->type == S_IFLNK) return Reply::failure(EPERM);
  if (::linkat(AT_FDCWD, existing->proc_path().c_str(), parent->place.get(), name->c_str(),
               AT_SYMLINK_FOLLOW) != 0)
    return Reply::failure(errno);
  return entry_reply(*parent, *name);
}

Reply Server::make_symbolic_link(Call& call) {
  const std::optional<std::string> name = call.arguments.take_name();
  const std::optional<std::string> target = call.arguments.take_text();
  if (!name || !target || target->empty()) return Reply::failure(EINVAL);
  int error = 0;
  Inode* const parent = changeable(call.header.nodeid, error);
  if (!parent) return Reply::failure(error);
  // The target is text for the guest; we never follow it.
  if (::symlinkat(target->c_str(), parent->place.get(), name->c_str()) != 0)
    return Reply::failure(errno);
  error = take_ownership(*parent, *name, call.header);
  return error == 0 ? entry_reply(*parent, *name) : Reply::failure(error);
}

Reply Server::read_symbolic_link(Call& call) {
  const Inode* const known = inode(call.header.nodeid);
  if (!known) return Reply::failure(ENOENT);
  std::string target(PATH_MAX, '\0');
  const ssize_t length = ::readlinkat(known->place.get(), "", target.data(), target.size());
  if (length < 0) return Reply::failure(errno);
  target.resize(static_cast<size_t>(length));
  return Reply::bytes(std::move(target));
}

Reply Server::remove_entry(Call& call, int flags) {
  const std::optional<std::string> name = call.arguments.take_name();
  if (!name) return Reply::failure(EINVAL);
  int error = 0;
  const Inode* const parent = changeable(call.header.nodeid, error);
  if (!parent) return Reply::failure(error);
  const int done = ::unlinkat(parent->place.get(), name->c_str(), flags);
  return done == 0 ? Reply() : Reply::failure(errno);
}

Reply Server::rename(Call& call, bool extended) {
  fuse_rename2_in wanted{};
  if (extended) {
    const auto given = call.arguments.take<fuse_rename2_in>();
    if (!given) return Reply::failure(EINVAL);
    wanted = *given;
  } else {
    const auto given = call.arguments.take<fuse_rename_in>();
    if (!given) return Reply::failure(EINVAL);
    wanted.newdir = given->newdir;
  }
  const std::optional<std::string> from = call.arguments.take_name();
  const std::optional<std::string> to = call.arguments.take_name();
  // RENAME_WHITEOUT would make a device node.
  constexpr uint32_t known_flags = RENAME_NOREPLACE | RENAME_EXCHANGE;
  if (!from || !to || (wanted.flags & ~known_flags) != 0) return Reply::failure(EINVAL);
  int error = 0;
  const Inode* const old_parent = changeable(call.header.nodeid, error);
  const Inode* const new_parent = old_parent ? changeable(wanted.newdir, error) : nullptr;
  if (!new_parent) return Reply::failure(error);
  if (old_parent->share != new_parent->share) return Reply::failure(EXDEV);
  const int done = ::renameat2(old_parent->place.get(), from->c_str(), new_parent->place.get(),
                               to->c_str(), wanted.flags);
  return done == 0 ? Reply() : Reply::failure(errno);
}

Reply Server::create_file(Call& call) {
  const auto wanted = call.arguments.take<fuse_create_in>();
  const std::optional<std::string> name = call.arguments.take_name();
  if (!wanted || !name) return Reply::failure(EINVAL);
  int error = 0;
  Inode* const parent = changeable(call.header.nodeid, error);
  if (!parent) return Reply::failure(error);
  // The kernel looked before: somebody else's file that appeared since is refused, not opened, and
  // the guest looks again.
  Handle handle;
  handle.file.reset(::openat(parent->place.get(), name->c_str(),
                             O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC,
                             wanted->mode & ~wanted->umask & 07777));
  if (!handle.file) return Reply::failure(errno);
  handle.writable = true;
  error = take_ownership(*parent, *name, call.header);
  if (error != 0) return Reply::failure(error);
  const Reply entry = entry_reply(*parent, *name);
  if (entry.error() != 0) return entry;
  const uint64_t number = keep(std::move(handle));
  if (number == 0) return Reply::failure(ENFILE);
  fuse_open_out opened{};
  opened.fh = number;
  return entry.followed_by(opened);
}

Reply Server::open_folder(Call& call) {
  Handle handle;
  if (call.header.nodeid != FUSE_ROOT_ID) {
    const Inode* const known = inode(call.header.nodeid);
    if (!known) return Reply::failure(ENOENT);
    if (known->type != S_IFDIR) return Reply::failure(ENOTDIR);
    const int file = ::open(known->proc_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0) return Reply::failure(errno);
    handle.folder.reset(::fdopendir(file));
    if (!handle.folder) {
      const int error = errno;
      ::close(file);
      return Reply::failure(error);
    }
  }
  const uint64_t number = keep(std::move(handle));
  if (number == 0) return Reply::failure(ENFILE);
  fuse_open_out answer{};
  answer.fh = number;
  return Reply::of(answer);
}

bool Server::append_entry(std::string& listing, size_t bytes_max, const dirent& entry,
                          Inode* parent, bool with_attributes) {
  const std::string_view name(entry.d_name);
  const size_t head = with_attributes ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
  const size_t size = padded(head + name.size());
  if (listing.size() + size > bytes_max) return false;
  fuse_dirent listed{};
  listed.ino = entry.d_ino;
  listed.off = static_cast<uint64_t>(entry.d_off);
  listed.namelen = static_cast<uint32_t>(name.size());
  listed.type = entry.d_type;
  if (with_attributes) {
    // An entry with number 0 tells the guest a name and no more; it looks it up when it needs to.
    fuse_entry_out known{};
    const bool dots = name == "." || name == "..";
    const Reply reply = dots     ? Reply()
                        : parent ? entry_reply(*parent, std::string(name))
                                 : lookup_share(std::string(name));
    if (!dots && reply.error() == 0) std::memcpy(&known, reply.body().data(), sizeof known);
    listing += bytes_of(known);
  }
  const size_t begin = listing.size();
  listing.append(reinterpret_cast<const char*>(&listed), FUSE_NAME_OFFSET).append(name);
  listing.resize(begin + padded(FUSE_NAME_OFFSET + name.size()), '\0');
  return true;
}

Reply Server::read_root(uint64_t offset, size_t bytes_max, bool with_attributes) {
  std::string listing;
  for (size_t i = offset; i < shares_.size(); ++i) {
    dirent entry{};
    entry.d_ino = shares_[i].info.st_ino;
    entry.d_off = static_cast<off_t>(i + 1);
    entry.d_type = S_ISDIR(shares_[i].info.st_mode) ? DT_DIR : DT_REG;
    std::snprintf(entry.d_name, sizeof entry.d_name, "%s", shares_[i].share.name.c_str());
    if (!append_entry(listing, bytes_max, entry, nullptr, with_attributes)) break;
  }
  return Reply::bytes(std::move(listing));
}

Reply Server::read_folder(Call& call, bool with_attributes) {
  const auto wanted = call.arguments.take<fuse_read_in>();
  Handle* const handle = wanted ? find_handle(wanted->fh) : nullptr;
  if (!handle) return Reply::failure(EBADF);
  const size_t bytes_max = std::min(wanted->size, data_bytes_max);
  if (call.header.nodeid == FUSE_ROOT_ID)
    return read_root(wanted->offset, bytes_max, with_attributes);
  Inode* const parent = inode(call.header.nodeid);
  if (!parent || !handle->folder) return Reply::failure(EBADF);
  DIR* const folder = handle->folder.get();
  const auto offset = static_cast<int64_t>(wanted->offset);
  if (offset != handle->next_offset) ::seekdir(folder, offset);
  handle->next_offset = offset;
  std::string listing;
  for (;;) {
    errno = 0;
    const dirent* const entry = ::readdir(folder);
    if (!entry) {
      if (errno != 0 && listing.empty()) return Reply::failure(errno);
      break;
    }
    if (!append_entry(listing, bytes_max, *entry, parent, with_attributes)) {
      ::seekdir(folder, handle->next_offset);
      break;
    }
    handle->next_offset = entry->d_off;
  }
  return Reply::bytes(std::move(listing));
}

}  // namespace files
