#pragma once
/// What a build takes from the image store and puts there.
///
/// Everything that is looked at or made is named to the build's lease first, so that a removal of
/// images at the same time takes nothing away. Thread-safe.

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "builder/build.h"
#include "builder/image_config.h"
#include "builder/tree.h"
#include "image/bytes.h"

namespace builder {

/// An image, or a stage: its configuration and what lies on top of each other.
struct Root {
  std::string digest;  ///< Of the image it began with; empty for `scratch`.
  ImageConfig config;
  std::vector<LayerRef> layers;
};

class Content {
 public:
  explicit Content(const BuildPorts& ports);

  /// Fetches it if it is not here, or in any case; its layers have disks afterwards.
  base::Result<Root> image(const ImageWanted& wanted, const StepNote& note);

  /// True if the layer is in the store, whole; from now on it stays.
  base::Result<bool> has(const LayerRef& layer);
  /// Stores what `produce` writes: the tar of a layer.
  using Produce =
      std::function<base::Result<>(const std::function<base::Result<>(std::string_view)>& sink)>;
  base::Result<LayerRef> add_layer(const Produce& produce);
  /// The layer's tar.
  base::Result<image::ByteSource> open_layer(const LayerRef& layer) const;
  /// What the layers show together. Opened once for each stack of layers.
  base::Result<std::shared_ptr<const Tree>> open_root(const std::vector<LayerRef>& layers);

  /// An image of these layers for a machine to start from; its digest.
  base::Result<std::string> put_machine_image(const Root& root);
  base::Result<image::Descriptor> put_image(const Root& root);
  base::Result<image::Descriptor> put_index(
      const std::vector<std::pair<image::Platform, image::Descriptor>>& images);

  const std::shared_ptr<image::Lease>& lease() const { return lease_; }
  image::Store& store() const { return ports_.store; }

 private:
  const BuildPorts& ports_;
  const std::shared_ptr<image::Lease> lease_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const Tree>> roots_;  ///< By diff ids; guarded by mutex_.
};

/// SHA-256 over the texts and where each ends.
std::string key_of(const std::vector<std::string>& parts);

}  // namespace builder
