#include "network/slirp/seccomp.h"

#include <cerrno>
#include <functional>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

namespace {

/// Not by `_exit`, where a sanitizer looks for leaks, and cannot once it is confined.
void leave(int code) { ::syscall(SYS_exit_group, code); }

/// The errno of `call` in a confined child; 0 where it succeeds, 254 where confining failed.
int confined(const std::function<bool()>& call) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !network::slirp::confine_to_sockets())
      leave(254);
    leave(call() ? 0 : errno);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

bool opens(int family, int type) { return ::socket(family, type, 0) >= 0; }
bool maps(int protection) {
  return ::mmap(nullptr, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

}  // namespace

TEST_CASE("a confined way out has TCP and UDP over IPv4, and memory for data") {
  CHECK(confined([] { return opens(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC); }) == 0);
  CHECK(confined([] { return opens(AF_INET, SOCK_DGRAM); }) == 0);
  CHECK(confined([] { return maps(PROT_READ | PROT_WRITE); }) == 0);
  CHECK(confined([] {
          const int socket = ::socket(AF_INET, SOCK_DGRAM, 0);
          int waiting = 0;
          return ::ioctl(socket, FIONREAD, &waiting) == 0;
        }) == 0);
}

TEST_CASE("a confined way out has no files, programs, other sockets, or new code") {
  CHECK(confined([] { return ::open("/etc/passwd", O_RDONLY) >= 0; }) == EPERM);
  CHECK(confined([] { return ::execl("/bin/true", "true", nullptr) == 0; }) == EPERM);
  CHECK(confined([] { return ::fork() >= 0; }) == EPERM);
  CHECK(confined([] { return opens(AF_UNIX, SOCK_STREAM); }) == EPERM);
  CHECK(confined([] { return opens(AF_INET6, SOCK_STREAM); }) == EPERM);
  CHECK(confined([] { return opens(AF_NETLINK, SOCK_DGRAM); }) == EPERM);
  CHECK(confined([] { return opens(AF_INET, SOCK_RAW); }) == EPERM);
  CHECK(confined([] { return maps(PROT_READ | PROT_EXEC); }) == EPERM);
  CHECK(confined([] {
          termios settings{};
          return ::ioctl(0, TCGETS, &settings) == 0;
        }) == EPERM);
  CHECK(confined([] { return ::kill(::getppid(), 0) == 0; }) == EPERM);
}
