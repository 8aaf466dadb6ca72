#pragma once
/// A layer's blob in the store becomes a disk: decompressed, checked and written in one pass.

#include <string>

#include "base/result.h"
#include "image/store.h"

namespace image {

/// Makes the EROFS disk of `diff_id` from the blob `layer`, unless it is there. InvalidArgument
/// if blob or content have other digests than they should, or a limit is passed. `lease` keeps it.
base::Result<> make_layer(Store& store, Lease& lease, const Descriptor& layer,
                          const std::string& diff_id);

/// The same disk, verified and complete, but not yet in its place.
base::Result<Ingest> write_layer(Store& store, Lease& lease, const Descriptor& layer,
                                 const std::string& diff_id);

}  // namespace image
