#pragma once
/// POST /v1/builds and what belongs to builds: their threads, folders and cache.

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "api/build_machines.h"
#include "api/build_request.h"
#include "api/byte_stream.h"
#include "api/http_server.h"
#include "api/registry_service.h"
#include "base/result.h"
#include "builder/build.h"
#include "builder/cache.h"
#include "image/images.h"

namespace api {

struct BuildsOptions {
  std::string root;  ///< `<app root>/builds`: cache, folders of cache mounts, spooled archives.
  std::string architecture = "amd64";
};

class Builds {
 public:
  static base::Result<std::unique_ptr<Builds>> open(BuildsOptions options, image::Images& images,
                                                    reconciler::BuildPort& builds,
                                                    PlanRunner runner, RegistryService& registries);
  ~Builds();

  /// Cancels what runs, waits for it and takes nothing new.
  void stop();

  std::vector<Route> routes();
  /// Content of the store that the cache needs.
  std::set<std::string> digests() const { return cache_->digests(); }

 private:
  struct Job;
  Builds(BuildsOptions options, image::Images& images, reconciler::BuildPort& builds,
         PlanRunner runner, RegistryService& registries);
  base::Result<HttpReply> start(ByteStream& body);
  base::Result<HttpReply> builder_state(const HttpRequest& request);
  base::Result<HttpReply> set_builder(const HttpRequest& request);
  base::Result<HttpReply> prune(const HttpRequest& request);
  base::Result<> spool(std::string first_bytes, ByteStream& body, Job& job) const;
  void run(const std::shared_ptr<Job>& job);
  base::Result<nlohmann::json> build(Job& job);
  base::Result<> as_step(Job& job, const std::string& name,
                         const std::function<base::Result<>(const builder::StepNote&)>& work);
  base::Result<> import_caches(Job& job, image::Lease& lease);
  base::Result<size_t> import_cache(Job& job, const builder::CachePlace& place, image::Lease& lease,
                                    const builder::StepNote& note);
  base::Result<> export_caches(Job& job, const builder::BuildResult& result);
  base::Result<> write_output(Job& job, const builder::BuildResult& result);
  void size_machine(BuildOrder& order) const;
  base::Result<> forget_mounts() const;

  const BuildsOptions options_;
  image::Images& images_;
  reconciler::BuildPort& builds_;
  const PlanRunner runner_;
  RegistryService& registries_;
  std::unique_ptr<builder::Cache> cache_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::set<std::shared_ptr<Job>> jobs_;           ///< Guarded by mutex_.
  std::set<std::shared_ptr<ByteStream>> ending_;  ///< Of jobs over, whose result is being told.
  bool stopping_ = false;                         ///< Guarded by mutex_.
};

}  // namespace api
