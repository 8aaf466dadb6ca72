#pragma once
/// Names of users and groups, looked up in /etc/passwd and /etc/group of a tree.
///
/// The files are an image's: read up to limits::account_file_bytes_max, symbolic links followed
/// inside the tree, lines that make no sense skipped.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "builder/tree.h"

namespace builder {

struct Owner {
  uint32_t user = 0;
  uint32_t group = 0;
  bool operator==(const Owner&) const = default;
};

/// `user[:group]` of COPY's --chown: names or numbers. Without a group it is the named user's own,
/// or the number of the user. Numbers need no tree. NotFound names the file that lacks the name.
base::Result<Owner> resolve_owner(std::string_view text, const Tree* root);

}  // namespace builder
