#pragma once
/// Digests of context files, remembered from build to build, so that only files that changed are
/// read again: 20,000 unchanged files cost one stat each.
///
/// A file is the same if device, inode, size, modification time and change time are. The change
/// time cannot be set by programs, so that a content put back under an old modification time is
/// seen. A file whose change time is younger than two seconds when it is hashed is not remembered:
/// it may change again within its clock's tick.
///
/// The file is a table of fixed records, checked by a digest of its own; a damaged one is an empty
/// one. Records that two runs in a row did not use are dropped.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"

namespace builder {

struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t modified_ns = 0;  ///< Since 1970.
  int64_t changed_ns = 0;
  auto operator<=>(const FileIdentity&) const = default;
};

/// Thread-safe.
class DigestCache {
 public:
  /// Reads `path` if it is there; what cannot be read is an empty cache.
  static std::unique_ptr<DigestCache> load(const std::string& path);
  virtual ~DigestCache() = default;
  /// `sha256:…` of the file's content.
  virtual std::optional<std::string> find(const FileIdentity& file) = 0;
  virtual void remember(const FileIdentity& file, const std::string& digest) = 0;
  /// Writes what is worth keeping, atomically; nothing if nothing changed.
  virtual base::Result<> save() = 0;
};

}  // namespace builder
