#include "network/slirp/seccomp.h"

#include <cerrno>
#include <cstddef>
#include <vector>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

namespace network::slirp {
namespace {

#if defined(__x86_64__)
constexpr uint32_t architecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t architecture = AUDIT_ARCH_AARCH64;
#else
#error "name this processor's audit architecture"
#endif
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);  // The low word of an argument is first.

constexpr uint32_t plain_calls[] = {
    // The TAP, the sockets, and waiting for them.
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_close, SYS_ppoll, SYS_connect, SYS_bind,
    SYS_listen, SYS_accept, SYS_accept4, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg,
    SYS_setsockopt, SYS_getsockopt, SYS_getsockname, SYS_getpeername, SYS_shutdown, SYS_fcntl,
#ifdef SYS_poll
    SYS_poll,
#endif
    // Memory, time, and a decent end.
    SYS_brk, SYS_munmap, SYS_mremap, SYS_madvise, SYS_futex, SYS_clock_gettime, SYS_gettimeofday,
    SYS_getrandom, SYS_restart_syscall, SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_getpid,
    SYS_gettid, SYS_exit, SYS_exit_group};

constexpr sock_filter load(size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
}
constexpr sock_filter load_argument(size_t index) {
  return load(offsetof(seccomp_data, args) + index * sizeof(uint64_t));
}
constexpr sock_filter answer(uint32_t verdict) { return BPF_STMT(BPF_RET | BPF_K, verdict); }
/// Goes on with the next instruction if the loaded word is `value`, else skips `otherwise` of them.
constexpr sock_filter if_equal(uint32_t value, uint8_t otherwise) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, otherwise);
}

constexpr uint32_t allow = SECCOMP_RET_ALLOW;
constexpr uint32_t refuse = SECCOMP_RET_ERRNO | EPERM;
constexpr uint32_t socket_type_mask = 0xF;  // Without SOCK_NONBLOCK and SOCK_CLOEXEC.

std::vector<sock_filter> filter() {
  std::vector<sock_filter> program = {
      load(offsetof(seccomp_data, arch)), if_equal(architecture, 1), BPF_STMT(BPF_JMP | BPF_JA, 1),
      answer(SECCOMP_RET_KILL_PROCESS), load(offsetof(seccomp_data, nr))};
  for (const uint32_t call : plain_calls) {
    program.push_back(if_equal(call, 1));
    program.push_back(answer(allow));
  }
  const auto append = [&](std::initializer_list<sock_filter> more) {
    program.insert(program.end(), more);
  };
  append({if_equal(SYS_socket, 7), load_argument(0), if_equal(AF_INET, 4), load_argument(1),
          BPF_STMT(BPF_ALU | BPF_AND | BPF_K, socket_type_mask),
          BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, SOCK_DGRAM, 1, 0),  // SOCK_STREAM or SOCK_DGRAM
          answer(allow), answer(refuse)});
  append({if_equal(SYS_ioctl, 4), load_argument(1), if_equal(FIONREAD, 1), answer(allow),
          answer(refuse)});
  append({if_equal(SYS_mmap, 4), load_argument(2),
          BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0), answer(allow), answer(refuse)});
  program.push_back(answer(refuse));
  return program;
}

}  // namespace

base::Result<> confine_to_sockets() {
  std::vector<sock_filter> instructions = filter();
  const sock_fprog program{.len = static_cast<unsigned short>(instructions.size()),
                           .filter = instructions.data()};
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0) return {};
  if (errno == EINVAL)
    return base::fail(base::ErrorCode::Unsupported, "this kernel has no seccomp filters");
  return base::fail_errno(errno, "install the seccomp filter");
}

}  // namespace network::slirp
