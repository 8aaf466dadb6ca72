#include "base/guest_owner.h"

#include <cerrno>
#include <string>

#include <sys/xattr.h>
#include <unistd.h>

#include <fmt/format.h>

namespace base {

Result<> set_guest_owner(int fd, uint32_t user, uint32_t group, std::string_view path) {
  if (::geteuid() == 0) {
    if (::fchown(fd, user, group) == 0) return {};
    return fail_errno(errno, fmt::format("give '{}' its owner", path));
  }
  // Files of whoever runs the system are root's in a guest anyway.
  if (user == 0 && group == 0) return {};
  const std::string owner = fmt::format("{}:{}", user, group);
  if (::fsetxattr(fd, std::string(guest_owner_attribute).c_str(), owner.data(), owner.size(), 0) ==
      0)
    return {};
  return fail_errno(errno, fmt::format("note the owner of '{}' (the file system of the system's "
                                       "folder must keep extended attributes)",
                                       path));
}

}  // namespace base
