#pragma once
/// Ownership of a file descriptor, and the few system calls everybody needs on one.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace base {

/// Closes its descriptor when it dies. Moves, never copies.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  /// Gives the descriptor away; the caller closes it.
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

struct Pipe {
  UniqueFd reader;
  UniqueFd writer;
};
/// A pipe, close-on-exec at both ends.
Result<Pipe> make_pipe();

/// Opens with O_CLOEXEC added; `mode` counts only with O_CREAT.
Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode = 0600);

/// Writes all of `bytes`, resuming after EINTR and short writes. For blocking descriptors.
Result<> write_all(int fd, std::string_view bytes);
/// Reads up to `buffer.size()` bytes once, resuming after EINTR. 0 is end of file.
Result<size_t> read_some(int fd, std::span<char> buffer);

Result<> set_nonblocking(int fd, bool on);

/// A stream socket listening at `path` (mode 0600). A stale socket file there is replaced.
/// Paths longer than sun_path are reached through /proc/self/fd of the parent folder.
Result<UniqueFd> listen_unix(const std::string& path);
/// Connects to `path`; NotFound if nothing is there, Io if nobody listens.
Result<UniqueFd> connect_unix(const std::string& path);

}  // namespace base
