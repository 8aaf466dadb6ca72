#pragma once
/// A layer's disk, made while its blob is downloaded, so that both end together.

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/result.h"
#include "image/layer_disk.h"
#include "image/store.h"

namespace image {

class LayerStream {
 public:
  /// nullptr if the disk is there. Waits for another thread that makes the same one. Use and end
  /// it on the thread that began it; store and lease must outlive it. Without finish() nothing
  /// stays.
  static base::Result<std::unique_ptr<LayerStream>> begin(Store& store, Lease& lease,
                                                          const std::string& diff_id);
  /// Blocks while the disk is far behind. InvalidArgument once the content is known to be bad.
  base::Result<> write(std::string_view compressed) { return disk_.write(compressed); }
  /// The blob ends here, and was what it should be: completes the disk. InvalidArgument if the
  /// content has another digest than `diff_id`.
  base::Result<> finish();

 private:
  LayerStream(Store& store, std::string diff_id, std::shared_ptr<std::mutex> turn,
              std::unique_lock<std::mutex> held, Ingest file);

  Store& store_;
  const std::string diff_id_;
  const std::shared_ptr<std::mutex> turn_;
  const std::unique_lock<std::mutex> held_;
  LayerDisk disk_;
};

}  // namespace image
