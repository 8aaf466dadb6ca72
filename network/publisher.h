#pragma once
/// Published ports: listens in the host's network namespace, connects inside the container
/// network's. TCP is moved by splice(), so no byte passes through user space; half-closes are
/// kept; a client that comes before the service listens is held for some seconds. UDP keeps one
/// socket per client and forgets the longest silent.
///
/// The process lives in the host's namespace; sockets of the container network come from the
/// `sockets` function, in batches. Not thread-safe: one loop.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <uv.h>

#include "base/fd.h"
#include "base/result.h"
#include "dns/ipv4.h"
#include "spec/stack.h"

namespace network {

struct PublisherOptions {
  size_t tcp_connections_max = 1024;      ///< Of all ports together.
  uint64_t connect_patience_ms = 10'000;  ///< How long a service may take to start listening.
  uint64_t connect_retry_ms = 50;
  size_t udp_clients_max = 256;  ///< Per port.
  uint64_t udp_idle_ms = 60'000;
};

/// Non-blocking, unconnected sockets inside the network.
using SocketSource =
    std::function<base::Result<std::vector<base::UniqueFd>>(int type, size_t count)>;

class Publisher {
 public:
  Publisher(uv_loop_t* loop, SocketSource sockets, PublisherOptions options = {});
  ~Publisher();
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  /// Returns the host port. Loopback and "all" listen on IPv4 and IPv6, where the host has it.
  base::Result<uint16_t> publish(const std::string& container, const spec::Port& port,
                                 dns::Ipv4 target);
  /// Closes the container's ports and the connections through them.
  void unpublish(const std::string& container);
  size_t connections() const;

  struct State;  ///< Private; named here for the callbacks.

 private:
  std::unique_ptr<State> state_;
};

}  // namespace network
