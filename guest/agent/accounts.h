#pragma once
/// Who a process runs as: `uid|name[:gid|group]` resolved in the container's passwd and group
/// files.
///
/// The files are the image's, so they are foreign input of any size: read line by line in a fixed
/// buffer, overlong lines skipped, and no more than `account_file_bytes_max` bytes of them.

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"

namespace agent {

struct Account {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  ///< Supplementary, `gid` left out.
  std::string home = "/";
};

struct AccountFiles {
  int passwd_fd = -1;  ///< -1: the image has none.
  int group_fd = -1;
};

/// Fails with NotFound for a name that is in neither file: `unable to find user x`.
base::Result<Account> resolve_account(const std::string& user,
                                      const std::vector<std::string>& extra_groups,
                                      const AccountFiles& files);

}  // namespace agent
