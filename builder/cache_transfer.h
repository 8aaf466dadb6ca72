#pragma once
/// Carries a build's cache elsewhere and back: `--cache-to` and `--cache-from`.
///
/// A cache is an OCI image of the layers, with the keys in its config; a folder holds it as an OCI
/// layout, a registry under a tag. What comes in is a stranger's word: an entry counts only if its
/// layer's content has the digest it is said to have.

#include <functional>
#include <set>
#include <string>
#include <string_view>

#include "base/result.h"
#include "builder/cache.h"
#include "image/store.h"

namespace builder {

struct CachePlace {
  enum class Kind { Local, Registry };
  Kind kind = Kind::Local;
  std::string place;  ///< An absolute folder, or a full reference.
};

/// `type=local,src=/x`, `type=local,dest=/x`, `type=registry,ref=host/name:tag`, or a bare
/// reference. `folder_key` is `src` or `dest`.
base::Result<CachePlace> parse_cache_place(std::string_view text, std::string_view folder_key);

/// The image that carries the entries of `keys`; kept by `lease`. NotFound if there are none.
base::Result<image::Descriptor> pack_cache(image::Store& store, image::Lease& lease,
                                           const Cache& cache, const std::set<std::string>& keys);
/// Takes up the entries of such an image, which is in the store; how many.
base::Result<size_t> unpack_cache(image::Store& store, image::Lease& lease, Cache& cache,
                                  const image::Descriptor& packed, int64_t now_s);

/// Writes the image and all it leads to as an OCI layout in `folder`.
base::Result<> write_cache_folder(image::Store& store, const image::Descriptor& packed,
                                  const std::string& folder);
/// Brings the image of such a folder into the store; every blob is checked against its digest.
base::Result<image::Descriptor> read_cache_folder(image::Store& store, image::Lease& lease,
                                                  const std::string& folder);

}  // namespace builder
