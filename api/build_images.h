#pragma once
/// What one build brings from registries and takes there: the images it begins with, copies and
/// mounts from, and its cache.

#include <memory>
#include <string>

#include "api/access_desk.h"
#include "api/build_request.h"
#include "api/registry_service.h"
#include "base/result.h"
#include "builder/build.h"
#include "image/images.h"

namespace api {

class BuildImages {
 public:
  /// All of them must outlive it.
  static base::Result<std::unique_ptr<BuildImages>> create(image::Images& images,
                                                           RegistryService& registries,
                                                           const BuildOrder& order, TellLine tell,
                                                           builder::Cancellation& cancellation);

  /// From the store; pulled if it is not there, or if `wanted` says so.
  base::Result<image::Descriptor> fetch(const builder::ImageWanted& wanted,
                                        const builder::StepNote& note);
  /// The image of a cache. `lease` keeps it; the store has no name for it.
  base::Result<image::Descriptor> fetch_cache(const std::string& reference, image::Lease& lease,
                                              const builder::StepNote& note);
  base::Result<> push_cache(const std::string& reference, const image::Descriptor& packed,
                            const builder::StepNote& note);

 private:
  BuildImages(image::Images& images, RegistryService& registries, const BuildOrder& order)
      : images_(images), registries_(registries), order_(order) {}
  std::string named(const std::string& reference) const;
  bool is_here(const std::string& reference, const image::Platform& platform) const;

  image::Images& images_;
  RegistryService& registries_;
  const BuildOrder& order_;
  image::registry::Cancel cancel_;
  std::unique_ptr<TaskAccess> access_;
  std::shared_ptr<const void> listening_;  ///< To the build's cancellation.
};

}  // namespace api
