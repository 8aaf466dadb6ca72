#pragma once
/// What the daemon answers: api/wire.h's routes over the reconciler and the drivers.
///
/// Handlers run on their connections' threads; whatever touches the reconciler is carried out on
/// its loop (`on_loop`).

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "api/byte_stream.h"
#include "api/commands.h"
#include "api/http_server.h"
#include "api/process_frames.h"
#include "api/wire.h"
#include "image/images.h"
#include "reconciler/reconciler.h"

namespace api {

/// Facts about this daemon. All but the last do not change.
struct SystemFacts {
  std::string app_root;
  std::string install_root;
  std::string log_root;
  std::string version;
  std::string accelerator;
  std::string accelerator_reason;
  uint64_t epoch = 0;
  /// How networks reach the world now, and why not in the best way; any thread.
  std::function<std::string()> way_out;
};

class Service {
 public:
  Service(reconciler::Ports ports, image::Images& images, reconciler::Reconciler& reconciler,
          SystemFacts facts, std::function<void()> exit);
  /// Waits for those who still read logs; their streams must have been closed.
  ~Service();

  std::vector<Route> routes();
  /// On the loop: hand this to Reconciler::on_notice.
  void tell(const reconciler::ContainerNotice& notice);
  /// What a reference leads to at its registry, for plans about images that are not here yet.
  using RemoteDigest = std::function<base::Result<std::string>(const std::string& reference,
                                                               const nlohmann::json& access)>;
  void set_remote_digest(RemoteDigest remote_digest) { remote_digest_ = std::move(remote_digest); }
  /// Digests of the images that containers were made from. Not on the loop: it waits for it.
  base::Result<std::set<std::string>> images_in_use();
  /// What there is now. Not on the loop.
  base::Result<planner::Snapshot> snapshot() {
    return snapshot_after({}, reconciler::Ended::Removed);
  }

 private:
  using Reply = base::Result<HttpReply>;
  base::Result<> on_loop(const std::function<void()>& call);
  base::Result<planner::Snapshot> snapshot_after(const std::vector<std::string>& ids,
                                                 reconciler::Ended ended);
  base::Result<planner::Snapshot> snapshot_for(const Command& command);

  Reply status(const HttpRequest& request);
  Reply stop_system(const HttpRequest& request);
  Reply containers(const HttpRequest& request);
  Reply container(const HttpRequest& request);
  Reply networks(const HttpRequest& request);
  Reply volumes(const HttpRequest& request);
  Reply plan(const HttpRequest& request);
  Reply apply(const HttpRequest& request);
  Reply logs(const HttpRequest& request);
  void copy_logs(const std::string& id, const reconciler::LogRequest& wanted, ByteStream& stream);
  Reply attach(const HttpRequest& request);
  Reply exec(const HttpRequest& request);
  Reply trace(const HttpRequest& request);
  Reply notices(const HttpRequest& request);

  struct Job {
    planner::Plan plan;
    std::string owner;
    bool wait_for_lock = true;
    std::function<base::Result<planner::Plan>(const planner::Snapshot&)> replan;
    std::function<void()> afterwards;  ///< On the loop, when the result was told.
    /// What the volumes take on the disk that the plan removes; absent: nobody asks.
    std::optional<std::map<std::string, uint64_t>> volume_bytes;
  };
  Reply run(Job job);
  Reply run_attached(Job job, const std::string& id);
  Reply talk_to(std::unique_ptr<reconciler::ProcessSession> session, const std::string& container);

  struct Listener {
    std::weak_ptr<ByteStream> stream;
    std::string project;
  };

  reconciler::Ports ports_;
  image::Images& images_;
  reconciler::Reconciler& reconciler_;
  const SystemFacts facts_;
  const std::function<void()> exit_;
  RemoteDigest remote_digest_;
  AttachedClients attached_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Listener> listeners_;  ///< Guarded by mutex_.
  int log_readers_ = 0;              ///< Threads; guarded by mutex_.
};

}  // namespace api
