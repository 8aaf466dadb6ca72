#include "base/fd.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace base {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) return fail_errno(errno, fmt::format("open '{}'", path));
  return UniqueFd(fd);
}

Result<> write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return fail_errno(errno, "write");
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

Result<size_t> read_some(int fd, std::span<char> buffer) {
  for (;;) {
    const ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count >= 0) return static_cast<size_t>(count);
    if (errno != EINTR) return fail_errno(errno, "read");
  }
}

Result<> set_nonblocking(int fd, bool on) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return fail_errno(errno, "fcntl");
  const int wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  if (wanted != flags && ::fcntl(fd, F_SETFL, wanted) != 0) return fail_errno(errno, "fcntl");
  return {};
}

namespace {

/// An address for `path`. sun_path holds 107 bytes, and a state folder may lie deeper than that:
/// then the parent folder is opened and the name is taken relative to its descriptor.
struct UnixAddress {
  sockaddr_un address{};
  UniqueFd folder;  ///< Keeps the /proc/self/fd form valid.
};

Result<UnixAddress> unix_address(const std::string& path) {
  UnixAddress made;
  made.address.sun_family = AF_UNIX;
  std::string usable = path;
  if (usable.size() >= sizeof made.address.sun_path) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos)
      return fail(ErrorCode::InvalidArgument, "socket name '{}' is too long", path);
    made.folder = TRY(open_file(path.substr(0, slash), O_PATH | O_DIRECTORY));
    usable = fmt::format("/proc/self/fd/{}{}", made.folder.get(), path.substr(slash));
    if (usable.size() >= sizeof made.address.sun_path)
      return fail(ErrorCode::InvalidArgument, "socket name '{}' is too long", path);
  }
  std::memcpy(made.address.sun_path, usable.c_str(), usable.size() + 1);
  return made;
}

}  // namespace

Result<UniqueFd> listen_unix(const std::string& path) {
  const UnixAddress at = TRY(unix_address(path));
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "socket");
  ::unlink(path.c_str());
  // The mode is right from the first moment: nobody else may connect between bind and chmod.
  ::fchmod(socket.get(), 0600);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&at.address), sizeof at.address) != 0)
    return fail_errno(errno, fmt::format("bind '{}'", path));
  if (::listen(socket.get(), 128) != 0) return fail_errno(errno, fmt::format("listen '{}'", path));
  return socket;
}

Result<UniqueFd> connect_unix(const std::string& path) {
  const UnixAddress at = TRY(unix_address(path));
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "socket");
  for (;;) {
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&at.address),
                  sizeof at.address) == 0)
      return socket;
    if (errno != EINTR) return fail_errno(errno, fmt::format("connect to '{}'", path));
  }
}

}  // namespace base
