#pragma once
/// A folder of the host as a Tree: a build context.
///
/// Closed by the kernel (openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS): whatever somebody
/// does to the folder meanwhile, nothing outside it is opened. Fifos, sockets and devices are
/// reported and never opened. Only what is asked for is read.

#include <memory>
#include <string>

#include "base/result.h"
#include "builder/digest_cache.h"
#include "builder/tree.h"

namespace builder {

struct FolderTreeOptions {
  /// Docker's clients send every file of a context as root's; `local` outputs and tests may differ.
  bool owned_by_root = true;
  bool read_xattrs = true;         ///< `security.capability` and `user.*` only.
  DigestCache* digests = nullptr;  ///< Not owned; nullptr: every digest is computed.
};

/// NotFound, or InvalidArgument if `path` is no folder. Thread-safe.
base::Result<std::unique_ptr<Tree>> open_folder_tree(const std::string& path,
                                                     const FolderTreeOptions& options = {});

}  // namespace builder
