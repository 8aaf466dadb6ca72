#include "builder/content.h"

#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/sha256.h"
#include "base/text.h"
#include "builder/root_tree.h"
#include "image/byte_pipe.h"
#include "image/decompress.h"
#include "image/layer.h"
#include "image/new_layer.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

/// An OCI manifest may not name Docker's types.
std::string oci_layer_type(const std::string& media_type) {
  if (media_type == "application/vnd.docker.image.rootfs.diff.tar.gzip")
    return image::gzip_layer_media_type;
  if (media_type == "application/vnd.docker.image.rootfs.diff.tar") return image::layer_media_type;
  return media_type;
}

}  // namespace

std::string key_of(const std::vector<std::string>& parts) {
  base::Sha256 hash;
  for (const std::string& part : parts) {
    hash.update(fmt::format("{}:", part.size()));
    hash.update(part);
  }
  return hash.finish();
}

Content::Content(const BuildPorts& ports)
    : ports_(ports), lease_(std::make_shared<image::Lease>(ports.store.lease())) {}

Result<Root> Content::image(const ImageWanted& wanted, const StepNote& note) {
  const std::string& reference = wanted.reference;
  const image::Descriptor found = TRY(ports_.fetch_image(wanted, note));
  TRY(lease_->keep(found.digest));
  const image::Variant variant =
      TRY(image::choose_variant(ports_.store, reference, found, wanted.platform));
  const image::Manifest manifest = TRY(image::read_manifest(ports_.store, variant.descriptor));
  ImageConfig config = TRY(ImageConfig::from_json(
      TRY(image::read_json(ports_.store, manifest.config, base::limits::image_config_bytes_max))));
  Root root{.digest = variant.descriptor.digest, .config = std::move(config), .layers = {}};
  const std::vector<std::string> diff_ids = root.config.diff_ids();
  if (diff_ids.size() != manifest.layers.size())
    return base::fail(ErrorCode::InvalidArgument,
                      "image '{}' has {} layers and its config names {}", reference,
                      manifest.layers.size(), diff_ids.size());
  for (size_t i = 0; i < diff_ids.size(); ++i) {
    TRY_DURING(image::make_layer(ports_.store, *lease_, manifest.layers[i], diff_ids[i]),
               "prepare image '{}'", reference);
    root.layers.push_back({.diff_id = diff_ids[i], .blob = manifest.layers[i]});
  }
  return root;
}

Result<bool> Content::has(const LayerRef& layer) {
  if (layer.diff_id.empty()) return true;
  TRY(lease_->keep(layer.blob.digest));
  TRY(lease_->keep(layer.diff_id));
  if (!ports_.store.has(layer.blob.digest)) return false;
  // A disk that was lost is made again; a blob that was lost is the step to do again.
  return image::make_layer(ports_.store, *lease_, layer.blob, layer.diff_id).has_value();
}

Result<LayerRef> Content::add_layer(const Produce& produce) {
  image::BytePipe pipe;
  Result<image::NewLayer> stored =
      base::fail(ErrorCode::Internal, "the layer's writer has not run");
  std::thread writer([&] {
    stored = image::pack_layer(ports_.store, *lease_,
                               [&](std::span<char> buffer) { return pipe.read(buffer); });
    pipe.leave();
  });
  const Result<> produced = produce([&](std::string_view bytes) { return pipe.write(bytes); });
  pipe.finish(produced);
  writer.join();
  // A writer that failed makes the producer fail; its own words say why.
  if (!produced && (stored || produced.error().code() != ErrorCode::Cancelled))
    return tl::unexpected<base::Error>(produced.error());
  const image::NewLayer layer = TRY(std::move(stored));
  if (layer.empty) return LayerRef{};
  return LayerRef{.diff_id = layer.diff_id, .blob = layer.blob};
}

Result<image::ByteSource> Content::open_layer(const LayerRef& layer) const {
  auto file = std::make_shared<base::UniqueFd>(TRY(ports_.store.open_blob(layer.blob.digest)));
  const image::ByteSource bytes = image::read_from(file->get());
  return image::decompressed(
      [file, bytes](std::span<char> buffer) -> Result<size_t> { return bytes(buffer); });
}

Result<std::shared_ptr<const Tree>> Content::open_root(const std::vector<LayerRef>& layers) {
  std::string name;
  std::vector<std::string> disks;
  for (const LayerRef& layer : layers) {
    name += layer.diff_id;
    disks.push_back(ports_.store.layer_path(layer.diff_id));
  }
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const Tree>& tree = roots_[name];
  if (!tree) tree = TRY(open_root_tree(disks));
  return tree;
}

Result<std::string> Content::put_machine_image(const Root& root) {
  return TRY_DURING(put_image(root), "prepare the build's machine").digest;
}

Result<image::Descriptor> Content::put_image(const Root& root) {
  if (root.layers.size() > base::limits::image_layers_max)
    return base::fail(ErrorCode::Unsupported,
                      "the image would have {} layers, at most {} fit one machine; put several "
                      "commands into one RUN",
                      root.layers.size(), base::limits::image_layers_max);
  const image::Descriptor config = TRY(ports_.store.put_text(
      *lease_, base::dump_json(root.config.document()), image::config_media_type));
  json layers = json::array();
  for (const LayerRef& layer : root.layers) {
    image::Descriptor blob = layer.blob;
    blob.media_type = oci_layer_type(blob.media_type);
    layers.push_back(image::to_json(blob));
  }
  const json manifest = {{"schemaVersion", 2},
                         {"mediaType", image::manifest_media_type},
                         {"config", image::to_json(config)},
                         {"layers", std::move(layers)}};
  return ports_.store.put_text(*lease_, base::dump_json(manifest), image::manifest_media_type);
}

Result<image::Descriptor> Content::put_index(
    const std::vector<std::pair<image::Platform, image::Descriptor>>& images) {
  json manifests = json::array();
  for (const auto& [platform, descriptor] : images) {
    json one = image::to_json(descriptor);
    one["platform"] = {{"os", platform.os}, {"architecture", platform.architecture}};
    if (!platform.variant.empty()) one["platform"]["variant"] = platform.variant;
    manifests.push_back(std::move(one));
  }
  const json index = {{"schemaVersion", 2},
                      {"mediaType", image::index_media_type},
                      {"manifests", std::move(manifests)}};
  return ports_.store.put_text(*lease_, base::dump_json(index), image::index_media_type);
}

}  // namespace builder
