#include "image/images.h"

#include <algorithm>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "image/archive.h"
#include "image/digest.h"
#include "image/layer.h"
#include "image/links.h"
#include "image/manifest.h"
#include "image/reference.h"
#include "image/store.h"

namespace image {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;
namespace limits = base::limits;

constexpr size_t digest_digits_min = 12;
constexpr size_t digest_digits = 64;

class StoredImages final : public Images {
 public:
  StoredImages(const ImagesOptions& options, std::unique_ptr<Store> store)
      : host_{.os = "linux", .architecture = options.architecture, .variant = {}},
        store_(std::move(store)) {}

  Result<reconciler::ImageRuntimeConfig> resolve(const std::string& reference,
                                                 const std::string& platform) override;
  Result<std::string> digest_of(const std::string& reference) override {
    return TRY(find(reference)).second.digest;
  }
  Result<std::vector<reconciler::ImageSummary>> list() override;
  Result<Loaded> load(const ArchiveSource& source, const LoadOptions& options) override;
  Result<json> inspect(const std::string& reference) override;
  Result<Removed> remove(const std::string& reference, bool force) override;
  Result<std::string> tag(const std::string& source, const std::string& target) override;
  Result<Removed> prune(bool all) override;
  Result<ArchiveWriter> save(const std::vector<std::string>& references,
                             const std::string& platform) override;
  Result<ImageUse> use() override;
  Store& store() override { return *store_; }

 private:
  using Named = std::pair<std::string, Descriptor>;
  using MaybeNamed = std::optional<Named>;
  Result<Named> find(const std::string& reference) const;
  Result<MaybeNamed> find_manifest(const std::string& digits) const;
  std::optional<Descriptor> manifest_in_store(const std::string& digest) const;
  Result<> make_layers(Lease& lease, const Manifest& manifest, const Config& config);
  Result<> take_image(Lease& lease, const std::string& shown, const Descriptor& descriptor,
                      std::vector<std::string>& notes);
  Result<> check_content(const Descriptor& descriptor) const;
  Result<json> describe(const Variant& variant) const;

  const Platform host_;
  const std::unique_ptr<Store> store_;
};

/// The digits of `sha256:HEX` or of what may be the beginning of HEX; else nothing.
std::string digest_digits_of(std::string_view reference) {
  constexpr std::string_view scheme = "sha256:";
  const bool has_scheme = reference.starts_with(scheme);
  if (has_scheme) reference.remove_prefix(scheme.size());
  const bool is_hex = reference.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  if (!is_hex || reference.size() < digest_digits_min || reference.size() > digest_digits)
    return {};
  return std::string(reference);
}

/// A descriptor of `digest`, if that is a manifest or an index in the store.
std::optional<Descriptor> StoredImages::manifest_in_store(const std::string& digest) const {
  const auto text = store_->read(digest, limits::manifest_bytes_max);
  if (!text || !text->starts_with('{')) return std::nullopt;
  const auto document = base::parse_json(*text);
  if (!document || !document->is_object()) return std::nullopt;
  if (!is_index(*document) && !manifest_from_json(*document)) return std::nullopt;
  return Descriptor{
      .media_type = base::json_string_or(
          *document, "mediaType", is_index(*document) ? index_media_type : manifest_media_type),
      .digest = digest,
      .size = text->size()};
}

auto StoredImages::find_manifest(const std::string& digits) const -> Result<MaybeNamed> {
  MaybeNamed found;
  for (const std::string& digest : TRY(store_->blobs("sha256:" + digits))) {
    const auto descriptor = manifest_in_store(digest);
    if (!descriptor) continue;
    if (found)
      return fail(ErrorCode::InvalidArgument,
                  "more than one image's digest begins with {}; write more digits", digits);
    found = Named{digest, *descriptor};
  }
  return found;
}

/// A name; with a digest too, any name of that repository that has it; a digest, or its beginning.
Result<StoredImages::Named> StoredImages::find(const std::string& reference) const {
  const std::string digits = digest_digits_of(reference);
  if (reference.starts_with("sha256:") && digits.size() == digest_digits) {
    if (auto manifest = TRY(find_manifest(digits))) return *manifest;
    return fail(ErrorCode::NotFound, "no image on this system has the digest {}", reference);
  }
  const Reference wanted = TRY(parse_reference(reference));
  const auto tags = store_->tags();
  if (const auto found = tags.find(wanted.full()); found != tags.end()) return *found;
  for (const auto& [name, descriptor] : tags)
    if (!wanted.digest.empty() && descriptor.digest == wanted.digest &&
        name.starts_with(wanted.repository() + ":"))
      return Named{name, descriptor};
  if (!digits.empty())
    if (auto manifest = TRY(find_manifest(digits))) return *manifest;
  return fail(ErrorCode::NotFound,
              "image '{}' is not on this system; load it with: container image load -i FILE",
              base::escape_controls(wanted.display()));
}

Result<> StoredImages::make_layers(Lease& lease, const Manifest& manifest, const Config& config) {
  if (manifest.layers.size() > limits::image_layers_max)
    return fail(ErrorCode::Unsupported, "the image has {} layers; at most {} fit one machine",
                manifest.layers.size(), limits::image_layers_max);
  if (config.diff_ids.size() != manifest.layers.size())
    return fail(ErrorCode::InvalidArgument, "the manifest has {} layers and its config names {}",
                manifest.layers.size(), config.diff_ids.size());
  for (size_t i = 0; i < manifest.layers.size(); ++i)
    TRY_DURING(make_layer(*store_, lease, manifest.layers[i], config.diff_ids[i]), "layer {} of {}",
               i + 1, manifest.layers.size());
  return {};
}

Result<reconciler::ImageRuntimeConfig> StoredImages::resolve(const std::string& reference,
                                                             const std::string& platform) {
  const Platform wanted = platform.empty() ? host_ : TRY(parse_platform(platform));
  const Named image = TRY(find(reference));
  auto hold = store_->hold(image.second.digest);
  const Variant variant = TRY(choose_variant(*store_, reference, image.second, wanted));
  const Manifest manifest = TRY(read_manifest(*store_, variant.descriptor));
  Config config = TRY(read_config(*store_, manifest.config));
  const bool complete = std::all_of(
      config.diff_ids.begin(), config.diff_ids.end(),
      [&](const std::string& diff_id) { return base::path_exists(store_->layer_path(diff_id)); });
  if (!complete || config.diff_ids.size() != manifest.layers.size()) {
    Lease lease = store_->lease();
    TRY_DURING(make_layers(lease, manifest, config), "prepare image '{}'", reference);
  }
  reconciler::ImageRuntimeConfig resolved = std::move(config.runtime);
  resolved.reference = image.first;
  resolved.digest = image.second.digest;
  resolved.hold = std::move(hold);
  for (const std::string& diff_id : config.diff_ids)
    resolved.layer_disks.push_back(store_->layer_path(diff_id));
  return resolved;
}

Result<std::vector<reconciler::ImageSummary>> StoredImages::list() {
  std::vector<reconciler::ImageSummary> images;
  for (const auto& [name, descriptor] : store_->tags()) {
    reconciler::ImageSummary& image = images.emplace_back();
    image.reference = name;
    image.digest = descriptor.digest;
    const auto variant = choose_variant(*store_, name, descriptor, host_);
    if (!variant) continue;  // of another platform: there, but not to be run here
    const auto manifest = read_manifest(*store_, variant->descriptor);
    if (!manifest) continue;
    image.size_bytes = variant->descriptor.size + manifest->config.size;
    for (const Descriptor& layer : manifest->layers) image.size_bytes += layer.size;
    const auto config = read_config(*store_, manifest->config);
    if (!config) continue;
    image.created = config->created;
    image.os = config->os;
    image.architecture = config->runtime.architecture;
  }
  return images;
}

// ---- loading -----------------------------------------------------------------------------------

Result<Loaded> StoredImages::load(const ArchiveSource& source, const LoadOptions& options) {
  Lease lease = store_->lease();  // members of no image, or all after a failure, go with it
  ArchiveContent content = TRY(read_archive(
      *store_, lease, [&](std::span<char> buffer) { return source(buffer.data(), buffer.size()); },
      {.skip_invalid_members = options.skip_invalid_members}));
  Loaded loaded{.references = {}, .notes = std::move(content.notes)};
  std::vector<Named> names;
  const auto before = store_->tags();
  for (const ArchiveImage& image : content.images) {
    const std::string shown = base::escape_controls(
        image.references.empty() ? image.descriptor.digest : image.references.front());
    TRY_DURING(take_image(lease, shown, image.descriptor, loaded.notes), "load '{}'", shown);
    if (image.references.empty())
      loaded.notes.push_back(fmt::format("{} has no name in the archive and was not kept", shown));
    for (const std::string& reference : image.references) {
      const auto old = before.find(reference);
      if (old != before.end() && old->second.digest != image.descriptor.digest)
        loaded.notes.push_back(fmt::format("{} named {} before", reference, old->second.digest));
      names.emplace_back(reference, image.descriptor);
      loaded.references.push_back(reference);
    }
  }
  if (names.empty())
    return fail(ErrorCode::InvalidArgument,
                "no image in the archive has a name; save it with one (docker save NAME:TAG)");
  TRY(store_->tag(names));
  return loaded;
}

/// All that is there of it must be what it says; layers are made for this machine's platform, for
/// others when they are first used.
Result<> StoredImages::take_image(Lease& lease, const std::string& shown,
                                  const Descriptor& descriptor, std::vector<std::string>& notes) {
  if (!store_->has(descriptor.digest))
    return fail(ErrorCode::InvalidArgument, "the archive lists it but does not hold it");
  const std::vector<Variant> variants = TRY(variants_of(*store_, descriptor));
  if (variants.empty())
    return fail(ErrorCode::InvalidArgument, "the archive holds its index but none of its content");
  for (const Variant& variant : variants) TRY(check_content(variant.descriptor));
  const auto own = choose_variant(*store_, shown, descriptor, host_);
  if (!own) {
    notes.push_back(own.error().to_string());
    return {};
  }
  const Manifest manifest = TRY(read_manifest(*store_, own->descriptor));
  const Config config = TRY(read_config(*store_, manifest.config));
  return make_layers(lease, manifest, config);
}

/// That a manifest's config and layers are in the store, with the announced sizes.
Result<> StoredImages::check_content(const Descriptor& descriptor) const {
  const Manifest manifest = TRY(read_manifest(*store_, descriptor));
  std::vector<Descriptor> parts = manifest.layers;
  parts.push_back(manifest.config);
  for (const Descriptor& part : parts) {
    const uint64_t size = TRY(store_->size_of(part.digest));
    if (size != part.size)
      return fail(ErrorCode::InvalidArgument, "{} has {} bytes where {} were announced",
                  part.digest, size, part.size);
  }
  return {};
}

// ---- looking -----------------------------------------------------------------------------------

Result<json> StoredImages::describe(const Variant& variant) const {
  const Manifest manifest = TRY(read_manifest(*store_, variant.descriptor));
  uint64_t size = variant.descriptor.size + manifest.config.size;
  for (const Descriptor& layer : manifest.layers) size += layer.size;
  json platform = {{"os", variant.platform.os}, {"architecture", variant.platform.architecture}};
  if (!variant.platform.variant.empty()) platform["variant"] = variant.platform.variant;
  json config;
  if (is_image_config(manifest.config.media_type))
    config = TRY(read_json(*store_, manifest.config, limits::image_config_bytes_max));
  return json{{"platform", platform},
              {"digest", variant.descriptor.digest},
              {"size", size},
              {"created", config.is_object() ? base::json_string_or(config, "created", "") : ""},
              {"config", config}};
}

Result<json> StoredImages::inspect(const std::string& reference) {
  const Named image = TRY(find(reference));
  json variants = json::array();
  for (const Variant& variant : TRY(variants_of(*store_, image.second)))
    if (Result<json> one = describe(variant)) variants.push_back(std::move(*one));
  return json{{"reference", image.first},
              {"digest", image.second.digest},
              {"descriptor",
               {{"mediaType", image.second.media_type},
                {"digest", image.second.digest},
                {"size", image.second.size}}},
              {"variants", variants}};
}

// ---- removing ----------------------------------------------------------------------------------

Result<Removed> StoredImages::remove(const std::string& reference, bool force) {
  const Named image = TRY(find(reference));
  std::vector<std::string> names;
  bool has_other_name = false;
  for (const auto& [name, descriptor] : store_->tags()) {
    if (descriptor.digest != image.second.digest) continue;
    if (name == image.first || is_digest(image.first))
      names.push_back(name);
    else
      has_other_name = true;
  }
  if (!force && !has_other_name && TRY(store_->users()).contains(image.second.digest))
    return fail(ErrorCode::Busy,
                "image '{}' is used by a container; remove the container first, or use --force",
                base::escape_controls(reference));
  if (names.size() > 1 && !force)
    return fail(ErrorCode::Busy,
                "image '{}' has more than one name ({}); remove them by name, or use --force",
                base::escape_controls(reference), base::join(names, ", "));
  TRY(store_->untag(names));
  if (names.empty()) names.push_back(image.first);  // by its digest, and nothing named it
  const uint64_t reclaimed = TRY(store_->collect()).bytes;
  return Removed{.references = std::move(names), .reclaimed_bytes = reclaimed};
}

Result<Removed> StoredImages::prune(bool all) {
  std::vector<std::string> names;
  if (all) {
    const std::set<std::string> used = TRY(store_->users());
    for (const auto& [name, descriptor] : store_->tags())
      if (!used.contains(descriptor.digest)) names.push_back(name);
    TRY(store_->untag(names));
  }
  Collected collected = TRY(store_->collect());
  // What had a name is told by it; a digest says that content had none.
  if (names.empty()) names = std::move(collected.manifests);
  return Removed{.references = std::move(names), .reclaimed_bytes = collected.bytes};
}

// ---- naming and carrying out -------------------------------------------------------------------

Result<std::string> StoredImages::tag(const std::string& source, const std::string& target) {
  const Named image = TRY(find(source));
  const Reference wanted = TRY(parse_reference(target));
  if (!wanted.digest.empty() || target.starts_with("sha256:"))
    return fail(ErrorCode::InvalidArgument,
                "'{}' is no name to give: it has a digest; write for instance my-app:1.2",
                base::escape_controls(target));
  TRY(store_->tag({{wanted.full(), image.second}}));
  return wanted.full();
}

Result<ArchiveWriter> StoredImages::save(const std::vector<std::string>& references,
                                         const std::string& platform) {
  std::vector<SavedImage> images;
  std::vector<std::shared_ptr<const void>> holds;
  for (const std::string& reference : references) {
    Named image = TRY(find(reference));
    holds.push_back(store_->hold(image.second.digest));
    if (!platform.empty())
      image.second =
          TRY(choose_variant(*store_, reference, image.second, TRY(parse_platform(platform))))
              .descriptor;
    SavedImage& saved = images.emplace_back();
    saved.descriptor = image.second;
    if (!is_digest(image.first)) saved.references.push_back(image.first);
    TRY_DURING(blobs_of(*store_, image.second.digest), "save '{}'",
               base::escape_controls(reference));
  }
  return [this, images = std::move(images), holds = std::move(holds)](const ArchiveSink& sink) {
    return write_archive(*store_, images, host_, sink);
  };
}

Result<ImageUse> StoredImages::use() {
  std::set<std::string> digests;
  for (const auto& [name, descriptor] : store_->tags()) digests.insert(descriptor.digest);
  const std::set<std::string> used = TRY(store_->users());
  ImageUse use;
  use.total = digests.size();
  use.space = TRY(store_->space());
  for (const std::string& digest : digests) use.active += used.contains(digest) ? 1 : 0;
  return use;
}

}  // namespace

Result<std::unique_ptr<Images>> Images::open(ImagesOptions options) {
  std::unique_ptr<Store> store = TRY(Store::open(options.root));
  return std::make_unique<StoredImages>(options, std::move(store));
}

}  // namespace image
