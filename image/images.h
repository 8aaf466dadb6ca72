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
#include "image/archive_writer.h"
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

struct LoadOptions {
  bool skip_invalid_members = false;  ///< See ArchiveOptions.
};

/// Writes an archive that was prepared; the content stays in the store meanwhile.
using ArchiveWriter = std::function<base::Result<>(const ArchiveSink& sink)>;

struct ImageUse {
  uint64_t total = 0;   ///< Images, each once, however many names it has.
  uint64_t active = 0;  ///< Those of them that containers use.
  Space space;
};

struct Removed {
  std::vector<std::string> references;  ///< Names, and digests of what had no name.
  uint64_t reclaimed_bytes = 0;
};

class Images : public reconciler::ImagePort {
 public:
  static base::Result<std::unique_ptr<Images>> open(ImagesOptions options);

  /// An OCI layout or `docker save` archive, plain, gzip or zstd. All of it or nothing.
  virtual base::Result<Loaded> load(const ArchiveSource& source,
                                    const LoadOptions& options = {}) = 0;
  /// {reference, digest, descriptor, variants: [{platform, digest, size, created, config}]}. The
  /// config of an artifact that is no image is null.
  virtual base::Result<nlohmann::json> inspect(const std::string& reference) = 0;
  /// Forgets the name, or all names of the digest, and content nothing leads to any more. Busy if a
  /// container uses it, or a digest has several names, unless `force`; what containers use stays
  /// either way.
  virtual base::Result<Removed> remove(const std::string& reference, bool force) = 0;
  /// Names an image once more; the full form of `target`, which moves if it named another.
  virtual base::Result<std::string> tag(const std::string& source, const std::string& target) = 0;
  /// Removes content without a name; with `all`, also the names no container uses.
  virtual base::Result<Removed> prune(bool all) = 0;
  /// With a platform (`os/architecture[/variant]`) only that image of each, else all that is here.
  virtual base::Result<ArchiveWriter> save(const std::vector<std::string>& references,
                                           const std::string& platform) = 0;
  virtual base::Result<ImageUse> use() = 0;
  /// Content, for those who bring it in or carry it out: registries, the builder.
  virtual Store& store() = 0;
};

}  // namespace image
