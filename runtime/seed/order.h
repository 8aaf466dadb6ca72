#pragma once
/// The daemon's side of message.h: orders a machine from a process that can fork one.

#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/process.h"
#include "base/result.h"
#include "runtime/seed/message.h"

namespace runtime {

struct SeedRequest {
  std::vector<std::string> words;                ///< Of a launch, see launch/confine.h.
  std::vector<std::pair<int, int>> descriptors;  ///< Ours, and their number in the machine.
  std::vector<SeedPart> parts;
};

struct Ordered {
  int64_t pid = -1;
  /// With the child; while it has not been told to go, its life hangs on it.
  base::UniqueFd talk;
};

/// One at a time on each socket.
base::Result<Ordered> order_machine(int socket, const SeedRequest& request);
/// When the child is ready: it is confined, and goes on by itself. After a failure there is none.
base::Result<base::ProcessIdentity> let_go(Ordered ordered);

}  // namespace runtime
