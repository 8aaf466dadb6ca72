#pragma once
/// The images of one system: what the rest of the program knows of image/.
///
/// Thread-safe and blocking; calls run side by side. Two programs cannot share one store: `open`
/// holds a lock on it. A reference is a name, or the digest of a manifest in the store: `sha256:…`
/// or at least 12 of its digits, where only one manifest begins so.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "image/store.h"
#include "reconciler/ports/image.h"

namespace image {

struct ImagesOptions {
  std::string root;  ///< `<app root>/images`: an OCI image layout, and layers/ beside it.
  std::string architecture = "amd64";
};

/// Up to `capacity` bytes of an archive into `buffer`; 0 at its end.
using ArchiveSource = std::function<base::Result<size_t>(char* buffer, size_t capacity)>;

struct Loaded {
  std::vector<std::string> references;  ///< Full, in the order of the archive.
  std::vector<std::string> notes;       ///< For people: a tag that moved, a member left out.
};

struct Removed {
  std::vector<std::string> references;
  uint64_t reclaimed_bytes = 0;
};

class Images : public reconciler::ImagePort {
 public:
  static base::Result<std::unique_ptr<Images>> open(ImagesOptions options);

  /// An OCI layout or `docker save` archive, plain, gzip or zstd. All of it or nothing.
  virtual base::Result<Loaded> load(const ArchiveSource& source) = 0;
  /// {reference, digest, descriptor, variants: [{platform, digest, size, config}]}.
  virtual base::Result<nlohmann::json> inspect(const std::string& reference) = 0;
  /// Forgets the name, or all names of the digest, and content nothing leads to any more. Busy if a
  /// container uses it, or a digest has several names, unless `force`; what containers use stays
  /// either way.
  virtual base::Result<Removed> remove(const std::string& reference, bool force) = 0;
  /// Content, for those who bring it in or carry it out: registries, the builder.
  virtual Store& store() = 0;
};

}  // namespace image
