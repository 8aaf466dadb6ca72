/// Loaded into the QEMU of a clone: opens its template's memory without asking to write it.
///
/// A clone maps that file privately and never writes to it, but QEMU before 8.2 asks for write
/// access all the same, which would let a guest that broke out of its QEMU change the memory of
/// every later clone. Everything else goes to the kernel as it came.

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

int open_as_wanted(const char* path, int flags, mode_t mode) {
  return static_cast<int>(
      ::syscall(SYS_openat, AT_FDCWD, path, flags_for(path, flags) | O_LARGEFILE, mode));
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

CONTAINER_REPLACES __open_2(const char* path, int flags) { return open_as_wanted(path, flags, 0); }
CONTAINER_REPLACES __open64_2(const char* path, int flags) {
  return open_as_wanted(path, flags, 0);
}
// NOLINTEND
