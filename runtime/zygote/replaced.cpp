#include "runtime/zygote/replaced.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstring>

#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <csignal>

#include "base/fd.h"
#include "runtime/zygote/fork_threads.h"

namespace runtime {
namespace {

using base::ErrorCode;
using base::Result;

bool replacing = false;
// Written while the process has one thread that runs.
dev_t image_device = 0;
ino_t image_inode = 0;
std::vector<JoinedPart> image_parts;
std::vector<sock_filter> filter;
std::array<unsigned long, 32> tap_offloads{};  // By descriptor; all of them are low.

constexpr unsigned long never_set = ~0UL;

bool is_image(int fd) {
  struct stat facts {};
  return !image_parts.empty() && ::fstat(fd, &facts) == 0 && facts.st_ino == image_inode &&
         facts.st_dev == image_device;
}

ssize_t plain_read(int fd, void* to, size_t bytes, uint64_t at) {
  return ::syscall(SYS_pread64, fd, to, bytes, at);
}

/// One piece of it; the caller asks for the rest.
ssize_t read_image(int fd, char* to, size_t bytes, uint64_t at) {
  const auto next = std::upper_bound(
      image_parts.begin(), image_parts.end(), at,
      [](uint64_t place, const JoinedPart& part) { return place < part.first_byte; });
  if (next != image_parts.begin()) {
    const JoinedPart& part = *std::prev(next);
    const uint64_t inside = at - part.first_byte;
    if (inside < part.bytes) {
      const size_t wanted = std::min<uint64_t>(bytes, part.bytes - inside);
      const ssize_t count = plain_read(part.descriptor, to, wanted, inside);
      // A file whose size is no multiple of a sector ends in zeros.
      if (count != 0) return count;
      std::memset(to, 0, wanted);
      return static_cast<ssize_t>(wanted);
    }
  }
  if (next != image_parts.end()) bytes = std::min<uint64_t>(bytes, next->first_byte - at);
  return plain_read(fd, to, bytes, at);
}

ssize_t read_whole(int fd, char* to, size_t bytes, uint64_t at) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t count = read_image(fd, to + done, bytes - done, at + done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && done == 0) return -1;
    if (count <= 0) break;
    done += static_cast<size_t>(count);
  }
  return static_cast<ssize_t>(done);
}

template <class Function>
Function next_of(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

bool remember_filter(void* context) {
  const auto write = next_of<int (*)(void*, int)>("seccomp_export_bpf");
  const base::UniqueFd file(::memfd_create("filter", MFD_CLOEXEC));
  struct stat facts {};
  if (write == nullptr || !file || write(context, file.get()) != 0 ||
      ::fstat(file.get(), &facts) != 0 || facts.st_size == 0)
    return false;
  filter.resize(static_cast<size_t>(facts.st_size) / sizeof(sock_filter));
  const size_t bytes = filter.size() * sizeof(sock_filter);
  return plain_read(file.get(), filter.data(), bytes, 0) == static_cast<ssize_t>(bytes);
}

void note_ioctl(int fd, unsigned long request, unsigned long value) {
  if (replacing && request == TUNSETOFFLOAD && fd >= 0 &&
      static_cast<size_t>(fd) < tap_offloads.size())
    tap_offloads[static_cast<size_t>(fd)] = value;
}

}  // namespace

void begin_to_replace() {
  replacing = true;
  tap_offloads.fill(never_set);
}

void join_image(int disk, std::vector<JoinedPart> parts) {
  struct stat facts {};
  ::fstat(disk, &facts);
  image_device = facts.st_dev;
  image_inode = facts.st_ino;
  for (const JoinedPart& part : image_parts) ::close(part.descriptor);
  image_parts = std::move(parts);
}

Result<> enter_sandbox() {
  if (filter.empty()) return base::fail(ErrorCode::Internal, "QEMU asked for no sandbox");
  const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0)
    return base::fail_errno(errno, "enter the sandbox");
  return {};
}

Result<> settings_like(int tap, int other) {
  int header_bytes = 0;
  if (::ioctl(tap, TUNGETVNETHDRSZ, &header_bytes) != 0 ||
      ::ioctl(other, TUNSETVNETHDRSZ, &header_bytes) != 0)
    return base::fail_errno(errno, "set the headers of a TAP");
  const unsigned long offloads = tap_offloads.at(static_cast<size_t>(tap));
  if (offloads != never_set && ::syscall(SYS_ioctl, other, TUNSETOFFLOAD, offloads) != 0)
    return base::fail_errno(errno, "set the offloads of a TAP");
  return {};
}

}  // namespace runtime

#define CONTAINER_REPLACES extern "C" __attribute__((visibility("default")))

// NOLINTBEGIN: names and shapes are those of the C library and of libseccomp.
CONTAINER_REPLACES ssize_t pread64(int fd, void* to, size_t bytes, off64_t at) {
  if (!runtime::is_image(fd)) return runtime::plain_read(fd, to, bytes, static_cast<uint64_t>(at));
  return runtime::read_whole(fd, static_cast<char*>(to), bytes, static_cast<uint64_t>(at));
}

CONTAINER_REPLACES ssize_t preadv64(int fd, const iovec* pieces, int count, off64_t at) {
  if (!runtime::is_image(fd)) return ::syscall(SYS_preadv, fd, pieces, count, at, 0);
  size_t done = 0;
  for (int i = 0; i < count; ++i) {
    const ssize_t got = runtime::read_whole(fd, static_cast<char*>(pieces[i].iov_base),
                                            pieces[i].iov_len, static_cast<uint64_t>(at) + done);
    if (got < 0) return done > 0 ? static_cast<ssize_t>(done) : -1;
    done += static_cast<size_t>(got);
    if (static_cast<size_t>(got) < pieces[i].iov_len) break;
  }
  return static_cast<ssize_t>(done);
}

/// A zygote's children need the guest's memory.
CONTAINER_REPLACES int madvise(void* begin, size_t bytes, int advice) noexcept {
  if (runtime::replacing && advice == MADV_DONTFORK) return 0;
  return static_cast<int>(::syscall(SYS_madvise, begin, bytes, advice));
}

/// A zygote's threads can always be parked.
CONTAINER_REPLACES int pthread_sigmask(int how, const sigset_t* set, sigset_t* old) noexcept {
  sigset_t wanted;
  if (set != nullptr) {
    wanted = *set;
    if (runtime::replacing && how != SIG_UNBLOCK) ::sigdelset(&wanted, runtime::parking_signal());
  }
  constexpr size_t kernel_set_bytes = 8;
  const long done =
      ::syscall(SYS_rt_sigprocmask, how, set != nullptr ? &wanted : nullptr, old, kernel_set_bytes);
  return done == 0 ? 0 : errno;
}

/// Of a zygote it would keep children from being made; they enter it themselves.
CONTAINER_REPLACES int seccomp_load(void* context) {
  if (runtime::replacing) return runtime::remember_filter(context) ? 0 : -EINVAL;
  const auto load = runtime::next_of<int (*)(void*)>("seccomp_load");
  return load != nullptr ? load(context) : -ENOSYS;
}

CONTAINER_REPLACES int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list rest;
  va_start(rest, request);
  const auto value = va_arg(rest, unsigned long);
  va_end(rest);
  runtime::note_ioctl(fd, request, value);
  return static_cast<int>(::syscall(SYS_ioctl, fd, request, value));
}
// NOLINTEND
