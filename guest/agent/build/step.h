#pragma once
/// The inside of one build step, made in its own mount namespace by the child that will become its
/// first process.
///
/// Its root is an overlay whose upper folder is the step's layer. What has to exist for mounts
/// only (mount points, /etc/hosts and its like) is made in a folder between that and the layers
/// below, so that it is never part of what the step changed.

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "guest/protocol/protocol.h"

namespace agent {

/// What the agent knows when the step begins.
struct StepStage {
  guest::StepConfig config;
  std::vector<std::string> lower;  ///< Folders of the layers below, lowest first.
  std::string folder;  ///< The step's own, empty: gets `files` (the upper one) and helpers.
  std::string trees_folder;
  std::string shares_folder;
  std::string etc_folder;
  /// For each mount of kind Share the name of its share; empty for others.
  std::vector<std::string> share_names;
  std::string hosts;  ///< Content of /etc/hosts.
};

/// Listening sockets of the step's mounts of kind Socket are given to `listening`, with the number
/// of the mount. Returns with "/" being the step's root.
base::Result<> enter_step(const StepStage& stage,
                          const std::function<void(size_t mount, int socket)>& listening);

}  // namespace agent
