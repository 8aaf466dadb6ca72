#include "image/images.h"

#include <algorithm>
#include <mutex>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "image/archive.h"
#include "image/digest.h"
#include "image/layer.h"
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

class StoredImages final : public Images {
 public:
  StoredImages(ImagesOptions options, std::unique_ptr<Store> store)
      : options_(std::move(options)), store_(std::move(store)) {}

  Result<reconciler::ImageRuntimeConfig> resolve(const std::string& reference) override;
  Result<std::string> digest_of(const std::string& reference) override {
    return TRY(find(reference)).second.digest;
  }
  Result<std::vector<reconciler::ImageSummary>> list() override;
  Result<Loaded> load(const ArchiveSource& source) override;
  Result<json> inspect(const std::string& reference) override;
  Result<Removed> remove(const std::string& reference, bool force,
                         const std::set<std::string>& in_use) override;

 private:
  using Named = std::pair<std::string, Descriptor>;
  Result<Named> find(const std::string& reference) const;
  Result<> make_layers(const Manifest& manifest, const Config& config);
  Result<Loaded> take(const ArchiveSource& source);
  Result<uint64_t> collect_garbage(const std::set<std::string>& in_use);
  void mark(const std::string& first, std::set<std::string>& keep) const;
  Result<json> describe(const Variant& variant) const;

  const ImagesOptions options_;
  const std::unique_ptr<Store> store_;
  std::mutex changing_;  ///< Held while content comes or goes.
};

/// A name; or, with a digest, any name of that repository that has it.
Result<StoredImages::Named> StoredImages::find(const std::string& reference) const {
  const Reference wanted = TRY(parse_reference(reference));
  const auto tags = store_->tags();
  if (const auto found = tags.find(wanted.full()); found != tags.end()) return *found;
  for (const auto& [name, descriptor] : tags)
    if (!wanted.digest.empty() && descriptor.digest == wanted.digest &&
        name.starts_with(wanted.repository() + ":"))
      return Named{name, descriptor};
  return fail(ErrorCode::NotFound,
              "image '{}' is not on this system; load it with: container image load -i FILE",
              base::escape_controls(wanted.display()));
}

Result<> StoredImages::make_layers(const Manifest& manifest, const Config& config) {
  if (config.diff_ids.size() != manifest.layers.size())
    return fail(ErrorCode::InvalidArgument, "the manifest has {} layers and its config names {}",
                manifest.layers.size(), config.diff_ids.size());
  for (size_t i = 0; i < manifest.layers.size(); ++i)
    TRY_DURING(make_layer(*store_, manifest.layers[i], config.diff_ids[i]), "layer {} of {}", i + 1,
               manifest.layers.size());
  return {};
}

Result<reconciler::ImageRuntimeConfig> StoredImages::resolve(const std::string& reference) {
  const Named image = TRY(find(reference));
  const Variant variant =
      TRY(choose_variant(*store_, reference, image.second, options_.architecture));
  const Manifest manifest = TRY(read_manifest(*store_, variant.descriptor));
  Config config = TRY(read_config(*store_, manifest.config));
  const bool complete = std::all_of(
      config.diff_ids.begin(), config.diff_ids.end(),
      [&](const std::string& diff_id) { return base::path_exists(store_->layer_path(diff_id)); });
  if (!complete || config.diff_ids.size() != manifest.layers.size()) {
    const std::lock_guard lock(changing_);
    TRY_DURING(make_layers(manifest, config), "prepare image '{}'", reference);
  }
  reconciler::ImageRuntimeConfig resolved = std::move(config.runtime);
  resolved.reference = image.first;
  resolved.digest = image.second.digest;
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
    const auto variant = choose_variant(*store_, name, descriptor, options_.architecture);
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

Result<Loaded> StoredImages::load(const ArchiveSource& source) {
  const std::lock_guard lock(changing_);
  store_->forget_new();
  Result<Loaded> loaded = take(source);
  // What no name leads to came for nothing: all of it after a failure, else members of no image.
  std::set<std::string> named;
  for (const auto& [name, descriptor] : store_->tags()) mark(descriptor.digest, named);
  store_->discard_new(named);
  return loaded;
}

Result<Loaded> StoredImages::take(const ArchiveSource& source) {
  ArchiveContent content = TRY(read_archive(
      *store_, [&](std::span<char> buffer) { return source(buffer.data(), buffer.size()); }));
  Loaded loaded{.references = {}, .notes = std::move(content.notes)};
  std::vector<Named> names;
  const auto before = store_->tags();
  for (const ArchiveImage& image : content.images) {
    const std::string shown =
        image.references.empty() ? image.descriptor.digest : image.references.front();
    if (!store_->has(image.descriptor.digest))
      return fail(ErrorCode::InvalidArgument, "the archive lists '{}' but does not hold it",
                  base::escape_controls(shown));
    const Variant variant =
        TRY(choose_variant(*store_, shown, image.descriptor, options_.architecture));
    const Manifest manifest = TRY(read_manifest(*store_, variant.descriptor));
    const Config config = TRY(read_config(*store_, manifest.config));
    TRY_DURING(make_layers(manifest, config), "load '{}'", shown);
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

// ---- looking -----------------------------------------------------------------------------------

Result<json> StoredImages::describe(const Variant& variant) const {
  const Manifest manifest = TRY(read_manifest(*store_, variant.descriptor));
  uint64_t size = variant.descriptor.size + manifest.config.size;
  for (const Descriptor& layer : manifest.layers) size += layer.size;
  json platform = {{"os", variant.platform.os}, {"architecture", variant.platform.architecture}};
  if (!variant.platform.variant.empty()) platform["variant"] = variant.platform.variant;
  return json{{"platform", platform},
              {"digest", variant.descriptor.digest},
              {"size", size},
              {"config", TRY(read_json(*store_, manifest.config, limits::image_config_bytes_max))}};
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

/// Everything that `first` leads to. What cannot be read leads nowhere, and is kept itself.
void StoredImages::mark(const std::string& first, std::set<std::string>& keep) const {
  std::vector<std::string> waiting{first};
  // Not `keep`: one image may call a layer what for another is its manifest.
  std::set<std::string> seen;
  while (!waiting.empty()) {
    const std::string digest = std::move(waiting.back());
    waiting.pop_back();
    if (!seen.insert(digest).second) continue;
    keep.insert(digest);
    const auto text = store_->read(digest, limits::manifest_bytes_max);
    if (!text) continue;
    const auto document = base::parse_json(*text);
    if (!document || !document->is_object()) continue;
    if (is_index(*document)) {
      for (const json& one : document->at("manifests"))
        if (const auto child = descriptor_from_json(one)) waiting.push_back(child->digest);
      continue;
    }
    const auto manifest = manifest_from_json(*document);
    if (!manifest) continue;
    keep.insert(manifest->config.digest);
    for (const Descriptor& layer : manifest->layers) keep.insert(layer.digest);
    if (const auto config = read_config(*store_, manifest->config))
      keep.insert(config->diff_ids.begin(), config->diff_ids.end());
  }
}

Result<uint64_t> StoredImages::collect_garbage(const std::set<std::string>& in_use) {
  std::set<std::string> keep;
  for (const auto& [name, descriptor] : store_->tags()) mark(descriptor.digest, keep);
  for (const std::string& digest : in_use) mark(digest, keep);
  return store_->sweep(keep);
}

Result<Removed> StoredImages::remove(const std::string& reference, bool force,
                                     const std::set<std::string>& in_use) {
  const std::lock_guard lock(changing_);
  const Named image = TRY(find(reference));
  if (!force && in_use.contains(image.second.digest))
    return fail(ErrorCode::Busy,
                "image '{}' is used by a container; remove the container first, or use --force",
                base::escape_controls(reference));
  TRY(store_->untag(image.first));
  return Removed{.references = {image.first}, .reclaimed_bytes = TRY(collect_garbage(in_use))};
}

}  // namespace

Result<std::unique_ptr<Images>> Images::open(ImagesOptions options) {
  std::unique_ptr<Store> store = TRY(Store::open(options.root));
  return std::make_unique<StoredImages>(std::move(options), std::move(store));
}

}  // namespace image
