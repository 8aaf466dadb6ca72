#include "files/confine.h"

#include <cerrno>

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

namespace files {
namespace {

using base::ErrorCode;
using base::Result;

constexpr uint64_t read_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr uint64_t write_access = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                                  LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |
                                  LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
                                  LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM;
constexpr uint64_t never_granted =
    LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK;
/// Since the second version of Landlock: renames and links between folders.
constexpr uint64_t refer_access = 1ULL << 13;
/// What can be granted on a single file.
constexpr uint64_t file_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;

Result<> allow(int ruleset, const std::string& path, uint64_t access) {
  const base::UniqueFd place = TRY(base::open_file(path, O_PATH));
  struct stat info {};
  if (::fstat(place.get(), &info) != 0) return base::fail_errno(errno, path);
  const landlock_path_beneath_attr rule{
      .allowed_access = S_ISDIR(info.st_mode) ? access : access & file_access,
      .parent_fd = place.get()};
  if (::syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
    return base::fail_errno(errno, fmt::format("allow '{}'", path));
  return {};
}

Result<> restrict_paths(const std::vector<Share>& shares, bool refer) {
  const uint64_t refers = refer ? refer_access : 0;
  const landlock_ruleset_attr rules{.handled_access_fs =
                                        read_access | write_access | never_granted | refers};
  const base::UniqueFd ruleset(
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0)));
  if (!ruleset) return base::fail_errno(errno, "landlock");
  for (const Share& share : shares)
    TRY(allow(ruleset.get(), share.path,
              share.read_only ? read_access : read_access | write_access | refers));
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0)
    return base::fail_errno(errno, "landlock");
  return {};
}

}  // namespace

Result<> confine(const std::vector<Share>& shares, std::string& missing) {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return base::fail_errno(errno, "prctl");
  const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};
  if (::setrlimit(RLIMIT_CORE, &no_core) != 0) return base::fail_errno(errno, "setrlimit");
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    if (::setrlimit(RLIMIT_NOFILE, &files) != 0) return base::fail_errno(errno, "setrlimit");
  }
  const long version =
      ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1) {
    missing = "this kernel has no Landlock";
    return {};
  }
  return restrict_paths(shares, version >= 2);
}

}  // namespace files
