#pragma once
/// An image from the store to a registry: what is there already is skipped, what another
/// repository of the same registry has is mounted from there, the rest is sent; manifests follow
/// their blobs, indexes their manifests. Everything goes byte for byte.

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "image/manifest.h"
#include "image/registry/access.h"
#include "image/registry/http.h"
#include "image/registry/pull.h"
#include "image/store.h"

namespace image::registry {

struct PushRequest {
  std::string reference;
  std::optional<Platform> platform;  ///< Only its manifest, under the tag; absent: all of it.
  std::optional<Descriptor> root;    ///< What to send; absent: what the store has by that name.
};

struct Pushed {
  std::string reference;  ///< Full.
  std::string digest;     ///< Of what the tag leads to there.
  uint32_t blobs_sent = 0;
  uint32_t blobs_mounted = 0;
  uint32_t blobs_present = 0;  ///< Were there already.
};

/// NotFound if the image or a part of it is not in the store.
base::Result<Pushed> push(Store& store, HttpClient& http, const Access& access,
                          const PushRequest& request, const TransferObserver& observer,
                          Cancel& cancel);

}  // namespace image::registry
