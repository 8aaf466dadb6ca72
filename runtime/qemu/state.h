#pragma once
/// What is written about a VM beside its sockets, so that a later daemon can take it over.

#include <cstdint>
#include <optional>
#include <string>

#include "base/process.h"
#include "base/result.h"
#include "guest/protocol/protocol.h"
#include "reconciler/ports/runtime.h"

namespace runtime::qemu {

struct VmState {
  std::string id;
  uint64_t generation = 0;
  std::string uuid;               ///< QEMU must answer with it.
  base::ProcessIdentity process;  ///< pid 0: written before QEMU was started.
  uint32_t uid = 0;               ///< QEMU's own; 0: ours.
  int64_t started_wall_ns = 0;
  reconciler::Health health = reconciler::Health::None;
  guest::ProcessConfig main;  ///< What an exec inherits.
};

base::Result<> save(const std::string& path, const VmState& state);
base::Result<VmState> load(const std::string& path);

/// The container's end, kept with its disk until it is started again.
base::Result<> save_exit(const std::string& path, uint64_t generation, int64_t started_wall_ns,
                         const reconciler::ExitStatus& exit);
struct StoredExit {
  uint64_t generation = 0;
  int64_t started_wall_ns = 0;
  reconciler::ExitStatus exit;
};
base::Result<StoredExit> load_exit(const std::string& path);

}  // namespace runtime::qemu
