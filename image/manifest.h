#pragma once
/// Manifests, indexes and configs of the OCI Image Specification (and Docker's older forms of
/// them), read defensively: they come from strangers.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "image/store.h"
#include "reconciler/ports/runtime.h"

namespace image {

inline constexpr const char* manifest_media_type = "application/vnd.oci.image.manifest.v1+json";
inline constexpr const char* index_media_type = "application/vnd.oci.image.index.v1+json";
inline constexpr const char* config_media_type = "application/vnd.oci.image.config.v1+json";
inline constexpr const char* layer_media_type = "application/vnd.oci.image.layer.v1.tar";
inline constexpr const char* gzip_layer_media_type = "application/vnd.oci.image.layer.v1.tar+gzip";

struct Manifest {
  Descriptor config;
  std::vector<Descriptor> layers;  ///< Lowest first.
};

struct Platform {
  std::string os = "linux";
  std::string architecture;
  std::string variant;
  std::string text() const;
  bool operator==(const Platform&) const = default;
};

/// `linux/arm64`, `linux/arm/v7`, `linux/x86_64`. InvalidArgument says what is allowed.
base::Result<Platform> parse_platform(std::string_view text);
/// What the names people and tools use for it stand for: `x86_64` is `amd64`, `arm64/v8` is
/// `arm64`, `arm` is `arm/v7`.
Platform normalized(Platform platform);

/// One image of an index, or the only one of a manifest.
struct Variant {
  Platform platform;
  Descriptor descriptor;  ///< Of its manifest.
};

/// What a config says, as far as we use it.
struct Config {
  reconciler::ImageRuntimeConfig runtime;  ///< Without reference, digest and layer disks.
  std::vector<std::string> diff_ids;
  std::string created;
  std::string os;
  std::string variant;  ///< Of the architecture; may be empty.
};

base::Result<Descriptor> descriptor_from_json(const nlohmann::json& json);
/// As manifests and indexes name what they hold.
nlohmann::json to_json(const Descriptor& descriptor);
/// A manifest or an index must say only one of both; that two tools see two images is refused.
base::Result<Manifest> manifest_from_json(const nlohmann::json& json);
bool is_index(const nlohmann::json& json);
base::Result<Config> config_from_json(const nlohmann::json& json);
/// Whether a config of this type describes a root file system; other artifacts have others.
bool is_image_config(const std::string& media_type);

/// The images behind a descriptor; those whose manifest is not in the store are left out.
base::Result<std::vector<Variant>> variants_of(const Store& store, const Descriptor& descriptor);
/// The one for `platform`; else, for 32-bit ARM, the one for the newest older processor. NotFound
/// lists what there is instead.
base::Result<Variant> choose_variant(const Store& store, const std::string& reference,
                                     const Descriptor& descriptor, const Platform& platform);

base::Result<nlohmann::json> read_json(const Store& store, const Descriptor& descriptor,
                                       uint64_t bytes_max);
base::Result<Manifest> read_manifest(const Store& store, const Descriptor& descriptor);
base::Result<Config> read_config(const Store& store, const Descriptor& descriptor);

}  // namespace image
