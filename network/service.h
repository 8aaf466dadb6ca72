#pragma once
/// One network at work: its namespace, its DNS, its leases and published ports, its control socket.
///
/// The heart of the program `container-network`. Whatever it changes is written to the state file
/// before it is answered, so that the next process of this program carries on where this one was
/// killed. Calls, each a line of JSON (message.h):
///
///   describe                                             {"subnet", "gateway", "internal", "pid"}
///   lease     container, names, ipv4_address?, mac_address?   {"address", "gateway", "dns_server",
///                                                        "mac", "mtu"} and the TAP's descriptor,
///                                                        which is missing if a VM holds it already
///   release   container
///   announce  container, on
///   publish   container, port                            {"host_port"}
///   unpublish container
///   shutdown                                             ends the namespace; Busy with leases left

#include <memory>
#include <string>

#include <uv.h>

#include "base/result.h"
#include "network/names.h"
#include "network/state.h"

namespace network {

struct ServiceOptions {
  Folders folders;
  std::string programs;           ///< Folder of the programs a way out needs.
  std::optional<WayOut> way_out;  ///< The only one to take; absent: the best that runs.
  std::string log_file;           ///< Empty: that of the way out goes to the folder `run`.
};

class Service {
 public:
  /// Takes the network of `options.folders` over: finds or makes its namespace, restores what the
  /// state file says, and listens. Busy if another process serves it.
  static base::Result<std::unique_ptr<Service>> create(uv_loop_t* loop,
                                                       const ServiceOptions& options);
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  /// True once `shutdown` was called: the namespace is to end with us.
  bool ended() const;

  struct State;  ///< Private; named here for the callbacks.

 private:
  explicit Service(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace network
