#pragma once
/// The way out of a network: a pasta process between the namespace and the host's sockets.
///
/// pasta makes the interface `out0` in the namespace and turns what comes out of it into ordinary
/// connections of this user, so that the host's routes and firewall rule it and stay as they are.
/// The host's loopback is not reachable through it. Its guests are one address to it: the
/// namespace translates (firewall.h). It outlives us and is adopted by its recorded identity; when
/// it ends it is started again, with growing pauses.

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <uv.h>

#include "base/process.h"
#include "base/result.h"
#include "network/namespace.h"

namespace network {

struct UplinkOptions {
  std::string log_file;  ///< pasta's messages; empty: dropped.
  uint64_t restart_first_ms = 1'000;
  uint64_t restart_max_ms = 60'000;
};

class Uplink {
 public:
  /// Told whenever the process changed, to be remembered.
  using Changed = std::function<void(std::optional<base::ProcessIdentity>)>;

  /// `keeper` outlives the uplink. Adopts `known` if it still runs, else starts one.
  Uplink(uv_loop_t* loop, const Keeper& keeper, UplinkOptions options, Changed changed);
  ~Uplink();
  Uplink(const Uplink&) = delete;
  Uplink& operator=(const Uplink&) = delete;

  /// Failing is no end: it is tried again later. The reason is for the log.
  base::Result<> start(const std::optional<base::ProcessIdentity>& known);

  struct State;  ///< Private; named here for the callbacks.

 private:
  std::unique_ptr<State> state_;
};

/// Ends the process for good.
void stop_uplink(const base::ProcessIdentity& identity);

}  // namespace network
