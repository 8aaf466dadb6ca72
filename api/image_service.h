#pragma once
/// What the daemon answers about images and the space on the disk: those routes of api/wire.h.

#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "api/byte_stream.h"
#include "api/http_server.h"
#include "image/images.h"
#include "planner/snapshot.h"
#include "runtime/folders.h"

namespace api {

class ImageService {
 public:
  /// Not called on the reconciler's loop.
  using Snapshots = std::function<base::Result<planner::Snapshot>()>;
  ImageService(image::Images& images, runtime::Folders folders, Snapshots snapshot);
  /// Waits for archives that are still written; their streams must have been closed.
  ~ImageService();

  std::vector<Route> routes();

 private:
  using Reply = base::Result<HttpReply>;
  Reply list(const HttpRequest& request);
  Reply inspect(const HttpRequest& request);
  Reply load(const HttpRequest& request, ByteStream& body);
  Reply save(const HttpRequest& request);
  Reply tag(const HttpRequest& request);
  Reply remove(const HttpRequest& request);
  Reply prune(const HttpRequest& request);
  Reply disk_use(const HttpRequest& request);

  image::Images& images_;
  const runtime::Folders folders_;
  const Snapshots snapshot_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int writers_ = 0;  ///< Threads; guarded by mutex_.
};

}  // namespace api
