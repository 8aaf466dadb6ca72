#pragma once
/// The port to images. Implemented by image/ and by tests/sim. Synchronous, any thread.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "reconciler/ports/runtime.h"

namespace reconciler {

struct ImageSummary {
  std::string reference;  ///< Full: `docker.io/library/alpine:latest`.
  std::string digest;     ///< Of the tagged manifest or index.
  std::string created;    ///< RFC 3339, from the config; may be empty.
  std::string os;
  std::string architecture;
  uint64_t size_bytes = 0;  ///< Compressed, manifest + config + layers.
};

class ImagePort {
 public:
  virtual ~ImagePort() = default;
  /// What `reference` names right now, with its layer disks made; NotFound says how to get it. A
  /// reference may be a digest, `sha256:…`, or at least 12 of its digits. `platform` is
  /// `os/architecture[/variant]`, or empty for this machine's.
  virtual base::Result<ImageRuntimeConfig> resolve(const std::string& reference,
                                                   const std::string& platform) = 0;
  /// The digest alone, cheap: for planning. NotFound if it is not in the store.
  virtual base::Result<std::string> digest_of(const std::string& reference) = 0;
  virtual base::Result<std::vector<ImageSummary>> list() = 0;
};

}  // namespace reconciler
