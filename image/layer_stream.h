#pragma once
/// A layer's disk, made while its blob is downloaded, so that both end together.

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "image/store.h"

namespace image {

class LayerStream {
 public:
  virtual ~LayerStream() = default;  ///< Without finish() nothing stays.
  /// nullptr if the disk is there. Waits for another thread that makes the same one. Use and end
  /// it on the thread that began it; store and lease must outlive it.
  static base::Result<std::unique_ptr<LayerStream>> begin(Store& store, Lease& lease,
                                                          const std::string& diff_id);
  /// Blocks while the disk is far behind. InvalidArgument once the content is known to be bad.
  virtual base::Result<> write(std::string_view compressed) = 0;
  /// The blob ends here, and was what it should be: completes the disk. InvalidArgument if the
  /// content has another digest than `diff_id`.
  virtual base::Result<> finish() = 0;
};

}  // namespace image
