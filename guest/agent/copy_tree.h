#pragma once
/// A new volume takes over what the image has at its place.

#include <string>
#include <vector>

#include "base/result.h"

namespace agent {

/// Copies the content of the folder `from_fd` into the folder `to`, with owners, modes, times,
/// extended attributes, links and special files. Nothing happens if `to` holds anything already, or
/// if `from_fd` is no folder.
base::Result<> copy_tree_into_empty(int from_fd, const std::string& to);

/// Owner, mode, times and extended attributes (overlayfs's own left out) of one entry. What the
/// other filesystem cannot keep is left out too.
void copy_attributes(int from_fd, int to_fd);
/// Everything in a folder but `.` and `..`.
base::Result<std::vector<std::string>> names_in(int folder_fd);

}  // namespace agent
