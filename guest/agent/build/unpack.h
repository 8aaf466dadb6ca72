#pragma once
/// A tar becomes the content of a folder: a layer, or a tree beside it.
///
/// What the archive says is data of strangers: names are clamped to the folder, symbolic links on
/// the way are never followed but replaced by folders, and attributes by which overlayfs takes
/// instructions are left out. In a layer OCI whiteouts (`.wh.x`, `.wh..wh..opq`) become overlayfs's
/// own marks; they hide lower layers only, so an entry of the same layer wins over its whiteout.

#include "base/result.h"
#include "guest/agent/build/tar_reader.h"

namespace agent {

enum class UnpackKind { Layer, Tree };

/// `folder` is empty, and stays the caller's. Runs in a process of its own, with a umask of 0.
base::Result<> unpack(TarReader& archive, int folder, UnpackKind kind);

}  // namespace agent
