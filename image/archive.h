#pragma once
/// Image archives: OCI image layouts in a tar, and what `docker save` writes.

#include <string>
#include <vector>

#include "base/result.h"
#include "image/bytes.h"
#include "image/images.h"
#include "image/store.h"

namespace image {

struct ArchiveImage {
  std::vector<std::string> references;  ///< Full.
  Descriptor descriptor;
};

struct ArchiveOptions {
  /// Leaves out members whose paths are absolute or have `..` in them, instead of refusing all.
  bool skip_invalid_members = false;
};

struct ArchiveContent {
  std::vector<ArchiveImage> images;
  std::vector<std::string> notes;
};

/// Takes the archive's content into the store, kept by `lease`, and says what is in it; names
/// nothing yet. A
/// member's name is only ever compared, never used as a path.
base::Result<ArchiveContent> read_archive(Store& store, Lease& lease, ByteSource source,
                                          const ArchiveOptions& options);

}  // namespace image
