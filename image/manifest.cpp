#include "image/manifest.h"

#include <algorithm>
#include <tuple>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "image/digest.h"

namespace image {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;
namespace limits = base::limits;

/// Of one image, in all its indexes: ones that list each other would be read without end.
constexpr uint32_t documents_max = 1000;
constexpr size_t platform_bytes_max = 64;

std::vector<std::string> texts(const json& object, const char* key) {
  std::vector<std::string> list;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) return list;
  for (const json& one : *found)
    if (one.is_string()) list.push_back(one.get<std::string>());
  return list;
}

std::string platform_text_or(const json& object, const char* key) {
  return base::json_string_or(object, key, "");
}

/// Docker's extension of the config. Durations are nanoseconds; 0 means "not said".
spec::HealthCheck health_check(const json& config) {
  spec::HealthCheck check;
  const auto found = config.find("Healthcheck");
  if (found == config.end() || !found->is_object()) return check;
  const std::vector<std::string> test = texts(*found, "Test");
  if (!test.empty() && test[0] == "NONE") check.disable = true;
  if (test.size() > 1 && test[0] == "CMD") check.test.assign(test.begin() + 1, test.end());
  if (test.size() > 1 && test[0] == "CMD-SHELL") check.test = {"/bin/sh", "-c", test[1]};
  const auto duration = [&](const char* key) -> std::optional<int64_t> {
    const int64_t value = base::json_int_or(*found, key, 0);
    return value > 0 ? std::optional(value) : std::nullopt;
  };
  check.interval_ns = duration("Interval");
  check.timeout_ns = duration("Timeout");
  check.start_period_ns = duration("StartPeriod");
  check.start_interval_ns = duration("StartInterval");
  if (const int64_t retries = base::json_int_or(*found, "Retries", 0);
      retries > 0 && retries <= 1'000'000)
    check.retries = static_cast<uint32_t>(retries);
  return check;
}

/// What a document says it is must be what it was announced as and what it looks like: two readers
/// who believe two of these would see two images.
Result<> check_media_type(const json& document, const Descriptor& descriptor) {
  if (!document.is_object()) return fail(ErrorCode::InvalidArgument, "a manifest is no object");
  const std::string said = base::json_string_or(document, "mediaType", "");
  if (said.empty()) return {};
  if (!descriptor.media_type.empty() && said != descriptor.media_type)
    return fail(ErrorCode::InvalidArgument, "{} was announced as '{}' and says it is '{}'",
                descriptor.digest, base::escape_controls(descriptor.media_type),
                base::escape_controls(said));
  const bool says_index =
      said.ends_with(".image.index.v1+json") || said.ends_with(".manifest.list.v2+json");
  if (says_index == is_index(document)) return {};
  return fail(ErrorCode::InvalidArgument, "{} says it is '{}' and is not", descriptor.digest,
              base::escape_controls(said));
}

/// Walks from an index to its manifests.
class VariantSearch {
 public:
  explicit VariantSearch(const Store& store) : store_(store) {}
  Result<> visit(const Descriptor& descriptor, const json& said, int depth);
  std::vector<Variant> take() { return std::move(found_); }

 private:
  const Store& store_;
  std::vector<Variant> found_;
  uint32_t documents_ = 0;
};

Result<> VariantSearch::visit(const Descriptor& descriptor, const json& said, int depth) {
  if (depth > limits::image_index_depth_max)
    return fail(ErrorCode::InvalidArgument, "the image's indexes are nested more than {} deep",
                limits::image_index_depth_max);
  if (!store_.has(descriptor.digest)) return {};
  if (++documents_ > documents_max)
    return fail(ErrorCode::InvalidArgument, "the image's indexes list more than {} manifests",
                documents_max);
  const json document = TRY(read_json(store_, descriptor, limits::manifest_bytes_max));
  TRY(check_media_type(document, descriptor));
  if (is_index(document)) {
    for (const json& one : document.at("manifests")) {
      const Descriptor child = TRY(descriptor_from_json(one));
      const auto platform = one.find("platform");
      TRY(visit(child, platform != one.end() ? *platform : json(), depth + 1));
    }
    return {};
  }
  Variant variant{.platform = {}, .descriptor = descriptor};
  variant.platform.os = platform_text_or(said, "os");
  variant.platform.architecture = platform_text_or(said, "architecture");
  variant.platform.variant = platform_text_or(said, "variant");
  if (variant.platform.architecture.empty()) {  // an index may leave it to the config
    const Manifest manifest = TRY(manifest_from_json(document));
    if (!is_image_config(manifest.config.media_type)) {
      variant.platform = {.os = "unknown", .architecture = "unknown", .variant = {}};
      found_.push_back(std::move(variant));
      return {};
    }
    const Config config = TRY(read_config(store_, manifest.config));
    variant.platform = {
        .os = config.os, .architecture = config.runtime.architecture, .variant = config.variant};
  }
  found_.push_back(std::move(variant));
  return {};
}

/// Both normalized. A 32-bit ARM processor runs what older ones do.
bool suits(const Platform& offered, const Platform& wanted) {
  if (offered.os != wanted.os || offered.architecture != wanted.architecture) return false;
  if (offered.variant == wanted.variant) return true;
  return wanted.architecture == "arm" && offered.variant < wanted.variant;
}

}  // namespace

std::string Platform::text() const {
  return os + "/" + architecture + (variant.empty() ? "" : "/" + variant);
}

Result<Platform> parse_platform(std::string_view text) {
  const std::vector<std::string> pieces = base::split(text, '/');
  const bool has_form =
      (pieces.size() == 2 || pieces.size() == 3) && text.size() <= platform_bytes_max &&
      std::all_of(pieces.begin(), pieces.end(), [](const std::string& piece) {
        return !piece.empty() &&
               piece.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789._-") ==
                   std::string::npos;
      });
  if (!has_form)
    return fail(ErrorCode::InvalidArgument,
                "'{}' is no platform; write for instance linux/amd64 or linux/arm/v7",
                base::escape_controls(text));
  return normalized({.os = pieces[0],
                     .architecture = pieces[1],
                     .variant = pieces.size() == 3 ? pieces[2] : std::string()});
}

Platform normalized(Platform platform) {
  std::string& architecture = platform.architecture;
  std::string& variant = platform.variant;
  if (architecture == "x86_64" || architecture == "x86-64") architecture = "amd64";
  if (architecture == "aarch64") architecture = "arm64";
  if (architecture == "i386") architecture = "386";
  if (architecture == "armhf") architecture = "arm";
  if (architecture == "armel") std::tie(architecture, variant) = std::pair("arm", "v6");
  if (architecture == "arm64" && (variant == "v8" || variant == "8")) variant.clear();
  if (architecture == "amd64" && variant == "v1") variant.clear();
  if (architecture == "arm" && variant.empty()) variant = "v7";
  if (architecture == "arm" && !variant.starts_with('v')) variant = "v" + variant;
  return platform;
}

Result<Descriptor> descriptor_from_json(const json& document) {
  Descriptor descriptor;
  descriptor.digest = TRY(base::json_string(document, "digest"));
  if (!is_digest(descriptor.digest))
    return fail(ErrorCode::InvalidArgument, "'{}' is no sha256 digest",
                base::escape_controls(descriptor.digest));
  const int64_t size = TRY(base::json_int(document, "size"));
  if (size < 0) return fail(ErrorCode::InvalidArgument, "a descriptor's size is negative");
  descriptor.size = static_cast<uint64_t>(size);
  descriptor.media_type = base::json_string_or(document, "mediaType", "");
  return descriptor;
}

json to_json(const Descriptor& descriptor) {
  return {{"mediaType", descriptor.media_type},
          {"digest", descriptor.digest},
          {"size", descriptor.size}};
}

bool is_index(const json& document) {
  const auto manifests = document.find("manifests");
  return manifests != document.end() && manifests->is_array() && !document.contains("layers") &&
         !document.contains("config");
}

Result<Manifest> manifest_from_json(const json& document) {
  if (!document.is_object() || document.contains("manifests") == document.contains("layers"))
    return fail(ErrorCode::InvalidArgument,
                "a manifest must have either layers or manifests, not both and not neither");
  const auto layers = document.find("layers");
  if (layers == document.end() || !layers->is_array() || !document.contains("config"))
    return fail(ErrorCode::InvalidArgument, "the manifest has no list of layers, or no config");
  Manifest manifest;
  manifest.config = TRY(descriptor_from_json(document.at("config")));
  for (const json& layer : *layers) manifest.layers.push_back(TRY(descriptor_from_json(layer)));
  return manifest;
}

Result<Config> config_from_json(const json& document) {
  if (!document.is_object()) return fail(ErrorCode::InvalidArgument, "the config is no object");
  Config config;
  config.created = base::json_string_or(document, "created", "");
  config.os = base::json_string_or(document, "os", "linux");
  config.variant = base::json_string_or(document, "variant", "");
  reconciler::ImageRuntimeConfig& runtime = config.runtime;
  runtime.architecture = base::json_string_or(document, "architecture", "");
  const auto rootfs = document.find("rootfs");
  if (rootfs == document.end() || !rootfs->is_object())
    return fail(ErrorCode::InvalidArgument, "the config does not name its layers (rootfs)");
  config.diff_ids = texts(*rootfs, "diff_ids");
  for (const std::string& diff_id : config.diff_ids)
    if (!is_digest(diff_id))
      return fail(ErrorCode::InvalidArgument, "'{}' is no sha256 digest",
                  base::escape_controls(diff_id));
  const auto found = document.find("config");
  const json inner = found != document.end() && found->is_object() ? *found : json::object();
  runtime.entrypoint = texts(inner, "Entrypoint");
  runtime.command = texts(inner, "Cmd");
  runtime.environment = texts(inner, "Env");
  runtime.working_dir = base::json_string_or(inner, "WorkingDir", "");
  runtime.user = base::json_string_or(inner, "User", "");
  runtime.stop_signal = base::json_string_or(inner, "StopSignal", "");
  runtime.healthcheck = health_check(inner);
  if (const auto volumes = inner.find("Volumes"); volumes != inner.end() && volumes->is_object())
    for (const auto& [path, nothing] : volumes->items()) runtime.volumes.push_back(path);
  if (const auto labels = inner.find("Labels"); labels != inner.end() && labels->is_object())
    for (const auto& [key, value] : labels->items())
      if (value.is_string()) runtime.labels.emplace(key, value.get<std::string>());
  return config;
}

bool is_image_config(const std::string& media_type) {
  return media_type.empty() || media_type == config_media_type ||
         media_type == "application/vnd.docker.container.image.v1+json";
}

Result<json> read_json(const Store& store, const Descriptor& descriptor, uint64_t bytes_max) {
  const std::string text = TRY(store.read(descriptor.digest, bytes_max));
  if (text.size() != descriptor.size)
    return fail(ErrorCode::InvalidArgument, "{} has {} bytes where {} were announced",
                descriptor.digest, text.size(), descriptor.size);
  return base::parse_json(text);
}

Result<Manifest> read_manifest(const Store& store, const Descriptor& descriptor) {
  return manifest_from_json(TRY(read_json(store, descriptor, limits::manifest_bytes_max)));
}

Result<Config> read_config(const Store& store, const Descriptor& descriptor) {
  return config_from_json(TRY(read_json(store, descriptor, limits::image_config_bytes_max)));
}

Result<std::vector<Variant>> variants_of(const Store& store, const Descriptor& descriptor) {
  VariantSearch search(store);
  TRY(search.visit(descriptor, json(), 0));
  return search.take();
}

Result<Variant> choose_variant(const Store& store, const std::string& reference,
                               const Descriptor& descriptor, const Platform& platform) {
  std::vector<Variant> variants = TRY(variants_of(store, descriptor));
  const Platform wanted = normalized(platform);
  Variant* best = nullptr;
  std::vector<std::string> others;
  for (Variant& variant : variants) {
    if (variant.platform.os == "unknown") continue;  // an attestation
    others.push_back(variant.platform.text());
    if (suits(normalized(variant.platform), wanted) &&
        (best == nullptr ||
         normalized(variant.platform).variant > normalized(best->platform).variant))
      best = &variant;
  }
  if (best != nullptr) return *best;
  return fail(ErrorCode::NotFound,
              "image '{}' has no content for platform {}; available platforms: {}",
              base::escape_controls(reference), platform.text(),
              others.empty() ? "none" : base::escape_controls(base::join(others, ", ")));
}

}  // namespace image
