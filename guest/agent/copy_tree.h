#pragma once
/// A new volume takes over what the image has at its place.

#include <string>

#include "base/result.h"

namespace agent {

/// Copies the content of the folder `from_fd` into the folder `to`, with owners, modes, times,
/// extended attributes, links and special files. Nothing happens if `to` holds anything already, or
/// if `from_fd` is no folder.
base::Result<> copy_tree_into_empty(int from_fd, const std::string& to);

}  // namespace agent
