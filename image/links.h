#pragma once
/// Which content names which.

#include <set>
#include <string>
#include <vector>

#include "image/store.h"

namespace image {

/// What a manifest or an index names: other manifests, which lead further, the blobs it is made
/// of, and its layers' diff ids. All empty for content that is neither, or cannot be read.
struct Links {
  std::vector<std::string> manifests;
  std::vector<std::string> blobs;
  std::vector<std::string> diff_ids;
  bool is_manifest = false;  ///< Or an index.
};
Links links_of(const Store& store, const std::string& digest);

/// Adds `roots` and all they lead to.
void add_reachable(const Store& store, const std::set<std::string>& roots,
                   std::set<std::string>& found);

/// The blobs in the store that `digest` leads to, itself among them. NotFound if it names one that
/// is missing; only an index's manifests may be: other platforms that were not brought in.
base::Result<std::set<std::string>> blobs_of(const Store& store, const std::string& digest);

}  // namespace image
