#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "files/operations.h"

namespace files {

Reply Server::open_file(Call& call) {
  const auto wanted = call.arguments.take<fuse_open_in>();
  const Inode* const known = inode(call.header.nodeid);
  if (!wanted) return Reply::failure(EINVAL);
  if (!known) return Reply::failure(ENOENT);
  // A device or a pipe of the host must not be reachable through a share.
  if (known->type != S_IFREG) return Reply::failure(known->type == S_IFDIR ? EISDIR : EACCES);
  const int access = static_cast<int>(wanted->flags) & O_ACCMODE;
  const bool writable = access != O_RDONLY;
  if (writable && read_only(*known)) return Reply::failure(EROFS);
  // The guest appends by offset itself, and it may read what it opened for writing to fill a page.
  const int flags = (writable ? O_RDWR : O_RDONLY) | (static_cast<int>(wanted->flags) & O_TRUNC);
  if (flags & O_TRUNC && !writable) return Reply::failure(EACCES);
  const std::string path = known->proc_path();
  int file = ::open(path.c_str(), flags | O_CLOEXEC);
  if (file < 0 && writable && errno == EACCES)
    file = ::open(path.c_str(), (flags & ~O_ACCMODE) | O_WRONLY | O_CLOEXEC);
  if (file < 0) return Reply::failure(errno);
  Handle handle;
  handle.file.reset(file);
  handle.writable = writable;
  const uint64_t number = keep(std::move(handle));
  if (number == 0) return Reply::failure(ENFILE);
  fuse_open_out answer{};
  answer.fh = number;
  return Reply::of(answer);
}

Reply Server::read_file(Call& call) {
  const auto wanted = call.arguments.take<fuse_read_in>();
  const Handle* const handle = wanted ? find_handle(wanted->fh) : nullptr;
  if (!handle || !handle->file) return Reply::failure(EBADF);
  std::string content(std::min(wanted->size, data_bytes_max), '\0');
  const ssize_t count = ::pread(handle->file.get(), content.data(), content.size(),
                                static_cast<off_t>(wanted->offset));
  if (count < 0) return Reply::failure(errno);
  content.resize(static_cast<size_t>(count));
  return Reply::bytes(std::move(content));
}

Reply Server::write_file(Call& call) {
  const auto wanted = call.arguments.take<fuse_write_in>();
  const Handle* const handle = wanted ? find_handle(wanted->fh) : nullptr;
  const auto content = wanted ? call.arguments.take_bytes(wanted->size) : std::nullopt;
  if (!handle || !handle->file || !handle->writable) return Reply::failure(EBADF);
  if (!content) return Reply::failure(EINVAL);
  const ssize_t count = ::pwrite(handle->file.get(), content->data(), content->size(),
                                 static_cast<off_t>(wanted->offset));
  if (count < 0) return Reply::failure(errno);
  fuse_write_out answer{};
  answer.size = static_cast<uint32_t>(count);
  return Reply::of(answer);
}

Reply Server::sync(Call& call) {
  const auto wanted = call.arguments.take<fuse_fsync_in>();
  const Handle* const handle = wanted ? find_handle(wanted->fh) : nullptr;
  if (!handle) return Reply::failure(EBADF);
  const int file = handle->folder ? ::dirfd(handle->folder.get()) : handle->file.get();
  if (file < 0) return {};  // The virtual root.
  const bool data_only = wanted->fsync_flags & FUSE_FSYNC_FDATASYNC;
  return (data_only ? ::fdatasync(file) : ::fsync(file)) == 0 ? Reply() : Reply::failure(errno);
}

Reply Server::allocate(Call& call) {
  const auto wanted = call.arguments.take<fuse_fallocate_in>();
  const Handle* const handle = wanted ? find_handle(wanted->fh) : nullptr;
  if (!handle || !handle->file || !handle->writable) return Reply::failure(EBADF);
  const int done =
      ::fallocate(handle->file.get(), static_cast<int>(wanted->mode),
                  static_cast<off_t>(wanted->offset), static_cast<off_t>(wanted->length));
  return done == 0 ? Reply() : Reply::failure(errno);
}

Reply Server::seek(Call& call) {
  const auto wanted = call.arguments.take<fuse_lseek_in>();
  const Handle* const handle = wanted ? find_handle(wanted->fh) : nullptr;
  if (!handle || !handle->file) return Reply::failure(EBADF);
  if (wanted->whence != SEEK_DATA && wanted->whence != SEEK_HOLE) return Reply::failure(EINVAL);
  const off_t found = ::lseek(handle->file.get(), static_cast<off_t>(wanted->offset),
                              static_cast<int>(wanted->whence));
  if (found < 0) return Reply::failure(errno);
  return Reply::of(fuse_lseek_out{.offset = static_cast<uint64_t>(found)});
}

Reply Server::release(Call& call) {
  const auto wanted = call.arguments.take<fuse_release_in>();
  if (!wanted || handles_.erase(wanted->fh) == 0) return Reply::failure(EBADF);
  return {};
}

}  // namespace files
