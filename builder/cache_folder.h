#pragma once
/// The folder on the host that a cache mount shows: made on its first use, empty or with what
/// `from` begins it with, and kept from build to build.

#include <memory>
#include <string>

#include "base/result.h"
#include "builder/build.h"
#include "builder/dockerfile.h"
#include "builder/tree.h"

namespace builder {

/// What a cache begins with.
struct CacheSeed {
  std::shared_ptr<const Tree> tree;
  std::string path;  ///< A folder of it.
};

struct CacheFolderOptions {
  std::string work_folder;  ///< On the same file system; the caller removes it.
  const Cancellation& cancellation;
};

/// Makes the folder `path`, unless it is there. It appears whole or not at all, also when this
/// process ends on the way: nothing takes a half-filled one for a cache. Names of `seed` were
/// written by strangers: each is made where no link can lead elsewhere, and devices are refused.
base::Result<> make_cache_folder(const std::string& path, const RunMount& mount,
                                 const CacheSeed& seed, const CacheFolderOptions& options);

}  // namespace builder
