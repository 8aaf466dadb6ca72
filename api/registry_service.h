#pragma once
/// What the daemon answers about registries: pulls, pushes and logins of api/wire.h.
///
/// Credentials and settings come with each request and are forgotten with it.

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "api/byte_stream.h"
#include "api/http_server.h"
#include "image/images.h"
#include "image/registry/http.h"
#include "image/registry/pull.h"

namespace api {

class RegistryService {
 public:
  explicit RegistryService(image::Images& images, image::Platform own = own_platform());
  /// Ends transfers that still run; what they brought is there for the next.
  ~RegistryService();

  std::vector<Route> routes();
  /// What `reference` leads to at its registry, with the `access` of api/wire.h.
  base::Result<std::string> remote_digest(const std::string& reference,
                                          const nlohmann::json& access);
  /// Linux on this machine's processor.
  static image::Platform own_platform();

 private:
  using Reply = base::Result<HttpReply>;
  using Transfer = std::function<base::Result<nlohmann::json>(
      const image::registry::TransferObserver& observer, image::registry::Cancel& cancel)>;
  Reply pull(const HttpRequest& request);
  Reply push(const HttpRequest& request);
  Reply login(const HttpRequest& request);
  Reply present(const HttpRequest& request);
  Reply run(Transfer transfer);
  base::Result<std::shared_ptr<image::registry::HttpClient>> http();

  image::Images& images_;
  const image::Platform own_;
  std::mutex mutex_;
  std::shared_ptr<image::registry::HttpClient> http_;  ///< From its first use on; guarded.
  std::condition_variable changed_;
  std::set<std::shared_ptr<image::registry::Cancel>> running_;  ///< Guarded by mutex_.
};

}  // namespace api
