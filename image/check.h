#pragma once
/// Whether what the store holds is what its names say, and repair where the store itself can.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/store.h"

namespace image {

/// Brings one blob of the image `reference` into the store again, from wherever that came from.
using Fetch = std::function<base::Result<>(const std::string& reference, const Descriptor& blob)>;

struct CheckReport {
  uint64_t blobs = 0;                 ///< Read and hashed.
  uint64_t disks = 0;                 ///< Compared with what their layer gives.
  std::vector<std::string> repaired;  ///< A sentence for each.
  std::vector<std::string> problems;  ///< A sentence for each, with what to do.
};

/// Hashes every blob; one with other bytes than its digest says is set aside, into damaged/. What
/// images lack is brought back by `fetch`, if there is one; what was set aside, now or earlier, is
/// deleted once the store has it whole again. A layer's disk is made once more from
/// its blob and compared: the same blob gives the same disk, so no digest of it needs to be kept.
/// One that differs is replaced; a machine that runs on it has the old one until it is started
/// again. Runs beside everything else.
/// Cancelled once `is_ended`, if there is one, says so.
base::Result<CheckReport> check_store(Store& store, const Fetch& fetch = {},
                                      const std::function<bool()>& is_ended = {});

}  // namespace image
