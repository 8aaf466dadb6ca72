#include "guest/agent/file_pump.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/fd.h"
#include "guest/agent/limits.h"

namespace agent {
namespace {

using base::fail_errno;
using base::Result;
using base::UniqueFd;

/// The largest message: data of FUSE_MAX_PAGES pages and a header's room.
constexpr size_t message_bytes_max = (1u << 20) + 8192;

bool write_whole(int fd, const char* bytes, size_t count) {
  while (count > 0) {
    const ssize_t written = ::write(fd, bytes, count);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes += written;
    count -= static_cast<size_t>(written);
  }
  return true;
}

/// A port whose host side is closed reads as ended; its next opening wakes an edge-triggered wait.
class PortReader {
 public:
  explicit PortReader(int port) : port_(port), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, port_, &event);
  }
  bool read_whole(char* bytes, size_t count) {
    while (count > 0) {
      const ssize_t got = ::read(port_, bytes, count);
      if (got < 0 && errno != EINTR && errno != EAGAIN) return false;
      if (got <= 0) {
        epoll_event event{};
        (void)::epoll_wait(epoll_.get(), &event, 1, -1);
        continue;
      }
      bytes += got;
      count -= static_cast<size_t>(got);
    }
    return true;
  }

 private:
  int port_;
  UniqueFd epoll_;
};

[[noreturn]] void carry_requests(int fuse, int port) {
  std::vector<char> message(message_bytes_max);
  for (;;) {
    const ssize_t count = ::read(fuse, message.data(), message.size());
    // ENOENT: the request was interrupted before we took it.
    if (count < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;
    if (count <= 0) ::_exit(0);  // Unmounted.
    if (!write_whole(port, message.data(), static_cast<size_t>(count))) ::_exit(1);
  }
}

[[noreturn]] void carry_replies(int fuse, int port) {
  PortReader reader(port);
  std::vector<char> message(message_bytes_max);
  for (;;) {
    fuse_out_header header{};
    if (!reader.read_whole(message.data(), sizeof header)) ::_exit(1);
    std::memcpy(&header, message.data(), sizeof header);
    if (header.len < sizeof header || header.len > message.size()) ::_exit(1);
    if (!reader.read_whole(message.data() + sizeof header, header.len - sizeof header)) ::_exit(1);
    // An answer to a request that was given up meanwhile is refused with ENOENT.
    if (::write(fuse, message.data(), header.len) < 0 && errno == ENODEV) ::_exit(0);
  }
}

Result<> start(void (*carry)(int, int), const char* name, int fuse, int port) {
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  if (child > 0) return {};
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::prctl(PR_SET_NAME, name, 0, 0, 0);
  // Low numbers for the two we need, nothing else stays open.
  const int low_fuse = ::fcntl(fuse, F_DUPFD, 1000);
  const int low_port = ::fcntl(port, F_DUPFD, 1002);
  ::dup2(low_fuse, 3);
  ::dup2(low_port, 4);
  ::syscall(SYS_close_range, 5u, ~0u, 0u);
  carry(3, 4);
  return {};
}

}  // namespace

Result<> start_file_pump(const std::string& port_path, const std::string& folder) {
  const UniqueFd fuse = TRY(base::open_file("/dev/fuse", O_RDWR));
  const UniqueFd port = TRY(base::open_file(port_path, O_RDWR));
  if (::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno(errno, folder);
  const std::string options = fmt::format(
      "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fuse.get());
  if (::mount("container-files", folder.c_str(), "fuse", MS_NOSUID | MS_NODEV, options.c_str()) !=
      0)
    return fail_errno(errno, "mount the shared files");
  TRY(start(carry_requests, "files-requests", fuse.get(), port.get()));
  return start(carry_replies, "files-replies", fuse.get(), port.get());
}

}  // namespace agent
