#pragma once
/// The network port as the daemon sees it: one `container-network` process per network, started
/// when needed, found again after either side was restarted.
///
/// Thread-safe and blocking; every call has a deadline. Calls about one network are carried out
/// one after the other, calls about different networks side by side.

#include <memory>
#include <string>

#include "base/result.h"
#include "reconciler/ports/network.h"

namespace network {

struct NetworkDriverOptions {
  std::string run_root;    ///< Sockets; gone after a reboot.
  std::string state_root;  ///< Subnets and leases; durable.
  std::string programs;    ///< Folder of `container-network`.
  std::string log_root;    ///< Empty: `run_root`.
  std::string system;      ///< App root: in the environment of its processes, for who lists them.
  std::string way_out;     ///< `pasta` or `libslirp`: this or none. Empty: the best that runs.
  std::string domain;      ///< `test`: containers answer to `name.test` too. Empty: none.
};

/// How networks reach the world, for people: `name` is `pasta` or `libslirp`.
struct WayOutReport {
  std::string name;
  std::string reason;
};

class NetworkDriver : public reconciler::NetworkPort {
 public:
  static base::Result<std::unique_ptr<NetworkDriver>> create(NetworkDriverOptions options);
  ~NetworkDriver() override;

  base::Result<reconciler::NetworkObservation> create(
      const reconciler::NetworkSetup& setup) override;
  base::Result<> remove(const std::string& name) override;
  base::Result<std::vector<reconciler::NetworkObservation>> list() override;
  /// The TAP is null if a running VM of this container holds it already.
  base::Result<reconciler::NetworkLease> lease(const reconciler::LeaseRequest& request) override;
  base::Result<> release(const std::string& network, const std::string& container) override;
  base::Result<> announce(const std::string& network, const std::string& container,
                          bool on) override;
  base::Result<uint16_t> publish(const reconciler::PublishRequest& request) override;
  base::Result<> unpublish(const std::string& network, const std::string& container) override;

  /// Ends the processes and the namespace of every network that no container has a place on. What
  /// it is stays written down: the next `lease` starts it again, and `list` calls it alive. Tries
  /// all, returns the first failure.
  base::Result<> rest();

  /// The way out in use (if several, the second best), or the one that the next network is going to
  /// try first. Reads files only, asks no process.
  WayOutReport way_out() const;

 private:
  struct State;
  explicit NetworkDriver(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace network
