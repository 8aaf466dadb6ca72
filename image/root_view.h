#pragma once
/// The root of an image as a container sees it, read from its layer disks without mounting them.
///
/// A reader of the EROFS form that erofs_writer.h makes (uncompressed, plain and inline layouts),
/// with overlayfs's rules on top: a character device 0:0 hides a name, `trusted.overlay.opaque`
/// a folder's lower layers. Disks are ours but all offsets are checked: a damaged one is an error,
/// never a crash.
///
/// Paths are relative to the root, without `.`, `..` or leading slash; "" is the root. Symbolic
/// links are not followed.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace image {

struct RootNode {
  uint32_t mode = 0;  ///< With the type bits of stat(2).
  uint32_t user = 0;
  uint32_t group = 0;
  uint64_t size = 0;
  int64_t modified_s = 0;
  uint32_t modified_ns = 0;
  std::string link;  ///< Target of a symbolic link.
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;  ///< Without overlayfs's own.
  uint64_t hard_link_id = 0;  ///< Nonzero if the file has several names in its layer.
};

/// Thread-safe: every call reads on its own.
class RootView {
 public:
  /// Disks of the layers, lowest first; none gives an empty root (`scratch`).
  static base::Result<std::unique_ptr<RootView>> open(const std::vector<std::string>& disks);
  virtual ~RootView() = default;

  /// NotFound if there is no such name; Io if the disk is damaged.
  virtual base::Result<RootNode> node(std::string_view path) const = 0;
  /// Children of a folder, sorted by name.
  virtual base::Result<std::vector<std::pair<std::string, RootNode>>> list(
      std::string_view path) const = 0;
  /// A file's bytes, in order.
  using Sink = std::function<base::Result<>(std::string_view bytes)>;
  virtual base::Result<> read(std::string_view path, const Sink& sink) const = 0;
};

}  // namespace image
