#include "runtime/template/idle_tap.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace runtime {
namespace {

using base::Result;

constexpr int header_bytes = 12;  // as network/ sets it: VIRTIO 1.x, struct virtio_net_hdr_v1

/// In a child of a program with threads: system calls only.
int open_tap() {
  const bool privileged = ::geteuid() == 0;
  if (::unshare(privileged ? CLONE_NEWNET : CLONE_NEWUSER | CLONE_NEWNET) != 0) return -1;
  const int tap = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (tap < 0) return -1;
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  std::memcpy(request.ifr_name, "idle", sizeof "idle");
  const int control = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (::ioctl(tap, TUNSETIFF, &request) != 0 || ::ioctl(tap, TUNSETVNETHDRSZ, &header_bytes) != 0 ||
      ::ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) != 0 || control < 0)
    return -1;
  request.ifr_flags = IFF_UP;
  return ::ioctl(control, SIOCSIFFLAGS, &request) == 0 ? tap : -1;
}

[[noreturn]] void hand_over(int socket) {
  const int tap = open_tap();
  if (tap < 0) ::_exit(errno);
  char byte = 0;
  iovec bytes{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &tap, sizeof tap);
  ::_exit(::sendmsg(socket, &message, MSG_NOSIGNAL) == 1 ? 0 : errno);
}

Result<base::UniqueFd> receive(int socket) {
  char byte = 0;
  iovec bytes{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (::recvmsg(socket, &message, MSG_CMSG_CLOEXEC) < 0)
    return base::fail_errno(errno, "take over a TAP");
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return base::UniqueFd();
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return base::UniqueFd(fd);
}

}  // namespace

Result<base::UniqueFd> make_idle_tap() {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
    return base::fail_errno(errno, "socketpair");
  const base::UniqueFd ours(pair[0]);
  base::UniqueFd theirs(pair[1]);
  const pid_t child = ::fork();
  if (child < 0) return base::fail_errno(errno, "fork");
  if (child == 0) hand_over(theirs.get());
  theirs.reset();
  Result<base::UniqueFd> tap = receive(ours.get());
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (tap && *tap) return tap;
  if (!tap) return tap;
  return base::fail_errno(WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD,
                          "make a TAP for a template");
}

}  // namespace runtime
