#pragma once
/// What the daemon answers about registries: pulls, pushes, logins and repairs of api/wire.h.
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

#include "api/access_desk.h"
#include "api/byte_stream.h"
#include "api/http_server.h"
#include "image/images.h"
#include "image/registry/http.h"
#include "image/registry/pull.h"
#include "image/registry/push.h"

namespace api {

class RegistryService {
 public:
  explicit RegistryService(image::Images& images, image::Platform own = own_platform());
  /// Ends transfers that still run; what they brought is there for the next.
  ~RegistryService();

  /// Cancels what speaks to a registry, now and from here on. Does not wait.
  void stop();

  std::vector<Route> routes();
  /// What `reference` leads to at its registry, with the `access` of api/wire.h.
  base::Result<std::string> remote_digest(const std::string& reference,
                                          const nlohmann::json& access);
  /// As part of another task, on the caller's thread.
  base::Result<image::registry::Pulled> pull_image(
      image::registry::PullRequest request, const image::registry::Access& access,
      const image::registry::TransferObserver& observer, image::registry::Cancel& cancel);
  base::Result<image::registry::Pushed> push_image(
      const image::registry::PushRequest& request, const image::registry::Access& access,
      const image::registry::TransferObserver& observer, image::registry::Cancel& cancel);
  AccessDesk& desk() { return desk_; }
  /// Linux on this machine's processor.
  static image::Platform own_platform();

 private:
  using Reply = base::Result<HttpReply>;
  struct Task {
    const image::registry::TransferObserver& observer;
    const TellLine& tell;
    image::registry::Cancel& cancel;
  };
  using Work = std::function<base::Result<nlohmann::json>(const Task& task)>;
  Reply pull(const HttpRequest& request);
  Reply push(const HttpRequest& request);
  Reply login(const HttpRequest& request);
  Reply present(const HttpRequest& request);
  Reply check(const HttpRequest& request);
  Reply run(Work work);
  base::Result<nlohmann::json> repair(const nlohmann::json& access, const Task& task);
  base::Result<std::shared_ptr<image::registry::HttpClient>> http();
  std::shared_ptr<image::registry::Cancel> cancel_with_us();

  image::Images& images_;
  const image::Platform own_;
  AccessDesk desk_;
  std::mutex mutex_;
  std::shared_ptr<image::registry::HttpClient> http_;  ///< From its first use on; guarded.
  std::condition_variable changed_;
  std::set<std::shared_ptr<image::registry::Cancel>> running_;  ///< Guarded by mutex_.
  bool stopping_ = false;                                       ///< Guarded by mutex_.
};

}  // namespace api
