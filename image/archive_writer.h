#pragma once
/// Images as an archive that every tool reads: an OCI image layout in a tar, with docker's
/// manifest.json beside it. The same images give the same bytes.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/manifest.h"
#include "image/store.h"

namespace image {

/// Takes a piece of an archive; an error ends the writing.
using ArchiveSink = std::function<base::Result<>(std::string_view bytes)>;

struct SavedImage {
  std::vector<std::string> references;  ///< Full; none for an image known by its digest only.
  Descriptor descriptor;
};

/// NotFound if content of an image is missing. `host` chooses what docker's manifest.json, which
/// knows no platforms, names of an image of several.
base::Result<> write_archive(const Store& store, const std::vector<SavedImage>& images,
                             const Platform& host, const ArchiveSink& sink);

}  // namespace image
