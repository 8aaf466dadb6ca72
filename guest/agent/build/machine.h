#pragma once
/// The part of the agent that makes a VM a build machine: layers on the scratch disk, trees beside
/// them, steps on top. See the build requests of guest/protocol/protocol.h.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "guest/agent/build/pack.h"
#include "guest/agent/build/relay.h"
#include "guest/agent/build/unpack.h"
#include "guest/agent/build/worker.h"
#include "guest/agent/launch.h"
#include "guest/agent/session.h"

namespace agent {

/// Where the machine's first process goes: one that only waits to be told to end.
Place idle_place(int cgroup_fd);

class BuildMachine {
 public:
  explicit BuildMachine(Loop& loop) : loop_(loop), relay_(loop) {}

  /// Mounts the image's layers and the scratch disk, for all steps to come.
  base::Result<> set_up(const guest::ContainerConfig& config, const std::string& image_disk,
                        const std::string& scratch_disk, const std::string& shares_folder);
  /// Unmounts them again. Nothing may be going on.
  base::Result<> take_down();

  /// A sink for the tar of a new layer or tree; answers when it is unpacked.
  base::Result<std::shared_ptr<BodySink>> receive_layer(const std::string& id,
                                                        const ReplyPtr& reply);
  base::Result<std::shared_ptr<BodySink>> receive_tree(const std::string& name,
                                                       const ReplyPtr& reply);
  base::Result<> send_layer(const std::string& id, const ReplyPtr& reply);

  /// Makes room for a step; where its process goes. end_step() must follow.
  base::Result<Place> begin_step(const guest::StepConfig& config);
  /// Its layer stays if it `succeeded`.
  void end_step(const std::string& id, bool succeeded);
  void listen(const std::string& id, size_t mount, base::UniqueFd socket) {
    relay_.listen(id, mount, std::move(socket));
  }
  Relay& relay() { return relay_; }

 private:
  struct Layer {
    std::string id;
    std::string folder;  ///< `files` in it is the layer.
    RootFacts root;      ///< Before whatever made the layer.
  };

  base::Result<std::shared_ptr<BodySink>> receive(UnpackKind kind, const std::string& folder,
                                                  const ReplyPtr& reply,
                                                  std::function<void(bool succeeded)> finished);
  base::Result<Layer> new_layer(const std::string& id);
  base::Result<> check_free(const std::string& id) const;
  base::Result<> restore_folders();
  RootFacts top_root() const;
  void discard(const std::string& folder);

  Loop& loop_;
  Relay relay_;
  guest::ContainerConfig config_;
  std::string shares_folder_;
  std::vector<std::string> image_layers_;
  std::vector<Layer> layers_;          ///< On top of the image's.
  std::optional<Layer> coming_;        ///< Being made: by a step, or from a tar.
  std::map<std::string, bool> trees_;  ///< True when whole.
  uint64_t last_folder_ = 0;
};

}  // namespace agent
