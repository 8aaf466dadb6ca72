#include "guest/agent/capabilities.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;

/// In the order of their numbers in linux/capability.h.
constexpr std::array<std::string_view, 41> names = {"CHOWN",
                                                    "DAC_OVERRIDE",
                                                    "DAC_READ_SEARCH",
                                                    "FOWNER",
                                                    "FSETID",
                                                    "KILL",
                                                    "SETGID",
                                                    "SETUID",
                                                    "SETPCAP",
                                                    "LINUX_IMMUTABLE",
                                                    "NET_BIND_SERVICE",
                                                    "NET_BROADCAST",
                                                    "NET_ADMIN",
                                                    "NET_RAW",
                                                    "IPC_LOCK",
                                                    "IPC_OWNER",
                                                    "SYS_MODULE",
                                                    "SYS_RAWIO",
                                                    "SYS_CHROOT",
                                                    "SYS_PTRACE",
                                                    "SYS_PACCT",
                                                    "SYS_ADMIN",
                                                    "SYS_BOOT",
                                                    "SYS_NICE",
                                                    "SYS_RESOURCE",
                                                    "SYS_TIME",
                                                    "SYS_TTY_CONFIG",
                                                    "MKNOD",
                                                    "LEASE",
                                                    "AUDIT_WRITE",
                                                    "AUDIT_CONTROL",
                                                    "SETFCAP",
                                                    "MAC_OVERRIDE",
                                                    "MAC_ADMIN",
                                                    "SYSLOG",
                                                    "WAKE_ALARM",
                                                    "BLOCK_SUSPEND",
                                                    "AUDIT_READ",
                                                    "PERFMON",
                                                    "BPF",
                                                    "CHECKPOINT_RESTORE"};
constexpr std::string_view prefix = "CAP_";

}  // namespace

base::Result<uint64_t> capability_bits(const std::vector<std::string>& wanted) {
  uint64_t bits = 0;
  for (const std::string& each : wanted) {
    std::string_view name = each;
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end())
      return fail(ErrorCode::InvalidArgument, "there is no capability '{}'", each);
    bits |= uint64_t{1} << (found - names.begin());
  }
  return bits;
}

base::Result<> limit_bounding_set(uint64_t kept) {
  for (unsigned number = 0; number < names.size(); ++number) {
    if ((kept >> number & 1) != 0) continue;
    // EINVAL: this kernel does not know so high a number.
    if (::prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0 && errno != EINVAL)
      return fail_errno(errno, fmt::format("drop CAP_{}", names[number]));
  }
  return {};
}

base::Result<> set_capabilities(uint64_t bits) {
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  for (size_t half = 0; half < data.size(); ++half) {
    const auto part = static_cast<uint32_t>(bits >> (32 * half));
    data[half] = {part, part, 0};
  }
  if (::syscall(SYS_capset, &header, data.data()) != 0) return fail_errno(errno, "capset");
  return {};
}

}  // namespace agent
