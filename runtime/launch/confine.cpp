#include "runtime/launch/confine.h"

#include <cerrno>
#include <cstdlib>

#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

namespace runtime {
namespace {

using base::ErrorCode;
using base::Result;

constexpr rlim_t open_files_max = 1024;
/// What a dynamically linked program reads before its main(), and QEMU's firmware.
constexpr const char* system_paths[] = {
    "/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/dev/urandom", "/proc/self"};

Result<uint32_t> number(const char* text) {
  char* end = nullptr;
  errno = 0;
  const unsigned long value = std::strtoul(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value > 0x7fffffffUL)
    return base::fail(ErrorCode::InvalidArgument, "'{}' is no id", text);
  return static_cast<uint32_t>(value);
}

Result<> take_option(LaunchRequest& request, const std::string& flag, const std::string& value) {
  if (flag == "--uid")
    request.uid = TRY(number(value.c_str()));
  else if (flag == "--group")
    request.groups.push_back(TRY(number(value.c_str())));
  else if (flag == "--read")
    request.readable.push_back(value);
  else if (flag == "--write")
    request.writable.push_back(value);
  else if (flag == "--preload")
    request.preload = value;
  else
    return base::fail(ErrorCode::InvalidArgument, "unknown option '{}'", flag);
  return {};
}

Result<> limit_resources() {
  const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};
  const rlimit files{.rlim_cur = open_files_max, .rlim_max = open_files_max};
  if (::setrlimit(RLIMIT_CORE, &no_core) != 0 || ::setrlimit(RLIMIT_NOFILE, &files) != 0)
    return base::fail_errno(errno, "set resource limits");
  ::umask(077);
  return {};
}

constexpr uint64_t read_access =
    LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
/// All rights of the first Landlock version; each is denied unless a rule gives it.
constexpr uint64_t handled_access = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;

Result<> allow(int ruleset, const std::string& path, uint64_t access) {
  const int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? Result<>() : base::fail_errno(errno, "open " + path);
  const base::UniqueFd owner(fd);
  struct stat info {};
  if (::fstat(fd, &info) != 0) return base::fail_errno(errno, "stat " + path);
  if (!S_ISDIR(info.st_mode)) access &= ~static_cast<uint64_t>(LANDLOCK_ACCESS_FS_READ_DIR);
  landlock_path_beneath_attr rule{};
  rule.allowed_access = access;
  rule.parent_fd = fd;
  if (::syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
    return base::fail_errno(errno, "allow " + path);
  return {};
}

/// A second wall. A kernel without Landlock has only the first one (no privileges, seccomp).
Result<> restrict_paths(const LaunchRequest& request) {
  landlock_ruleset_attr attributes{};
  attributes.handled_access_fs = handled_access;
  const base::UniqueFd ruleset(
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0)));
  if (!ruleset) {
    if (errno == ENOSYS || errno == EOPNOTSUPP) return {};
    return base::fail_errno(errno, "make a Landlock ruleset");
  }
  for (const char* path : system_paths) TRY(allow(ruleset.get(), path, read_access));
  for (const std::string& path : request.readable) TRY(allow(ruleset.get(), path, read_access));
  constexpr uint64_t both = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;
  TRY(allow(ruleset.get(), "/dev/null", both));
  for (const std::string& path : request.writable) TRY(allow(ruleset.get(), path, both));
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0)
    return base::fail_errno(errno, "enter Landlock");
  return {};
}

Result<> drop_ids(const LaunchRequest& request) {
  if (!request.uid) return {};
  const gid_t gid = *request.uid;
  if (::setgroups(request.groups.size(), request.groups.data()) != 0 ||
      ::setresgid(gid, gid, gid) != 0 || ::setresuid(*request.uid, *request.uid, *request.uid) != 0)
    return base::fail_errno(errno, fmt::format("become user {}", *request.uid));
  return {};
}

Result<> drop_capabilities() {
  const cap_t none = ::cap_init();
  if (none == nullptr) return base::fail_errno(errno, "capabilities");
  const int status = ::cap_set_proc(none);
  const int reason = errno;
  ::cap_free(none);
  if (status != 0) return base::fail_errno(reason, "drop capabilities");
  return {};
}

}  // namespace

Result<LaunchRequest> parse_launch(const std::vector<std::string>& words) {
  LaunchRequest request;
  size_t at = 0;
  for (; at + 1 < words.size() && words[at] != "--"; at += 2)
    TRY(take_option(request, words[at], words[at + 1]));
  if (at + 1 >= words.size())
    return base::fail(ErrorCode::InvalidArgument,
                      "usage: container-launch [OPTION VALUE]... -- PROGRAM ARGUMENT...");
  request.program.assign(words.begin() + static_cast<std::ptrdiff_t>(at) + 1, words.end());
  return request;
}

Result<> confine(const LaunchRequest& request) {
  TRY(limit_resources());
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return base::fail_errno(errno, "give up new privileges");
  TRY(restrict_paths(request));
  // The bounding set needs the privilege that changing the user takes away.
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability) >= 0; ++capability)
    ::prctl(PR_CAPBSET_DROP, capability);  // refused without privileges, and then not needed
  TRY(drop_ids(request));
  return drop_capabilities();
}

}  // namespace runtime
