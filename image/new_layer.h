#pragma once
/// A layer that is made here: its tar becomes a gzip blob and a disk in one pass.

#include <string>

#include "base/result.h"
#include "image/bytes.h"
#include "image/store.h"

namespace image {

struct NewLayer {
  Descriptor blob;  ///< Of the compressed tar.
  std::string diff_id;
  bool empty = false;  ///< No member: then nothing was stored.
};

/// Reads `tar` to its end and stores it under `lease`. Limits as for every layer.
base::Result<NewLayer> pack_layer(Store& store, const Lease& lease, const ByteSource& tar);

}  // namespace image
