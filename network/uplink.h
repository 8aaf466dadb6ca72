#pragma once
/// The way out of a network: a process between the namespace and the host's sockets.
///
/// libslirp in a process of ours (container-slirp), else pasta where it is installed. Both make the
/// interface `out0` in the namespace and turn what comes out of it into ordinary connections of the
/// host's, so that the host's routes and firewall rule it and stay as they are. The host's loopback
/// is not reachable through either. Guests are one address to it: the namespace translates
/// (firewall.h). It outlives us and is adopted by its recorded identity; when it ends it is started
/// again, with growing pauses.

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <uv.h>

#include "base/process.h"
#include "base/result.h"
#include "network/namespace.h"
#include "network/state.h"

namespace network {

struct UplinkOptions {
  std::string programs;          ///< Folder of `container-slirp` and `container-launch`.
  std::optional<WayOut> forced;  ///< This one or none; absent: the best that runs.
  std::string log_file;          ///< The process's messages; empty: dropped.
  uint64_t restart_first_ms = 1'000;
  uint64_t restart_max_ms = 60'000;
};

class Uplink {
 public:
  /// Told whenever the process changed, to be remembered.
  using Changed = std::function<void(std::optional<UplinkState>)>;

  /// `keeper` outlives the uplink. Adopts `known` if it still runs, else starts one.
  Uplink(uv_loop_t* loop, const Keeper& keeper, UplinkOptions options, Changed changed);
  ~Uplink();
  Uplink(const Uplink&) = delete;
  Uplink& operator=(const Uplink&) = delete;

  /// Failing is no end: it is tried again later. The reason is for the log.
  base::Result<> start(const std::optional<UplinkState>& known);

  struct State;  ///< Private; named here for the callbacks.

 private:
  std::unique_ptr<State> state_;
};

/// The pasta on PATH; Unsupported, saying what to install, if there is none.
base::Result<std::string> find_pasta();

/// Ends the process for good.
void stop_uplink(const base::ProcessIdentity& identity);

}  // namespace network
