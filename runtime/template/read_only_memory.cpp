/// Loaded into the QEMU of a clone: opens its template's memory without asking to write it.
///
/// A clone maps that file privately and never writes to it, but QEMU before 8.2 asks for write
/// access all the same, which would let a guest that broke out of its QEMU change the memory of
/// every later clone. And when a guest reports pages as free, QEMU punches holes into the file
/// before it drops its own copies of them: the latter is all that is to happen, since what a page
/// that was reported holds is nobody's business until it is written. Everything else goes to the
/// kernel as it came.

#include <atomic>
#include <cstdarg>
#include <cstring>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/qemu/config.h"

namespace {

int flags_for(const char* path, int flags) {
  const bool memory = std::strcmp(path, runtime::qemu::memory_path) == 0;
  if (memory && (flags & O_ACCMODE) == O_RDWR) return (flags & ~O_ACCMODE) | O_RDONLY;
  return flags;
}

std::atomic<int> memory_descriptor = -1;

int open_as_wanted(const char* path, int flags, mode_t mode) {
  const int wanted = flags_for(path, flags);
  const int fd =
      static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, wanted | O_LARGEFILE, mode));
  if (wanted != flags && fd >= 0) memory_descriptor = fd;
  return fd;
}

int allocate_as_wanted(int fd, int mode, off_t offset, off_t bytes) {
  if (fd == memory_descriptor && (mode & FALLOC_FL_PUNCH_HOLE) != 0) return 0;
  return static_cast<int>(::syscall(SYS_fallocate, fd, mode, offset, bytes));
}

}  // namespace

#define CONTAINER_REPLACES extern "C" __attribute__((visibility("default"))) int

// NOLINTBEGIN: names and shapes are the C library's, the last two those of its checked calls.
CONTAINER_REPLACES open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open_as_wanted(path, flags, mode);
}

CONTAINER_REPLACES open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open_as_wanted(path, flags, mode);
}

CONTAINER_REPLACES fallocate(int fd, int mode, off_t offset, off_t bytes) {
  return allocate_as_wanted(fd, mode, offset, bytes);
}
CONTAINER_REPLACES fallocate64(int fd, int mode, off_t offset, off_t bytes) {
  return allocate_as_wanted(fd, mode, offset, bytes);
}

CONTAINER_REPLACES __open_2(const char* path, int flags) { return open_as_wanted(path, flags, 0); }
CONTAINER_REPLACES __open64_2(const char* path, int flags) {
  return open_as_wanted(path, flags, 0);
}
// NOLINTEND
