#pragma once
/// libslirp between a TAP and the host's sockets: TCP, UDP and echo over IPv4, outward only.
///
/// Its conveniences are off: no names (guests ask the network's own DNS), no addresses by DHCP, no
/// files by TFTP, no way to the host's loopback, no IPv6.

#include <memory>

#include "base/fd.h"
#include "base/result.h"

namespace network::slirp {

class Stack {
 public:
  /// `tap` carries plain Ethernet frames and does not block.
  static base::Result<std::unique_ptr<Stack>> create(base::UniqueFd tap);
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  /// Until the TAP's namespace ends; then success.
  base::Result<> run();

  struct State;  ///< Private; named here for the callbacks.

 private:
  explicit Stack(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace network::slirp
