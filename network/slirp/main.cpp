/// container-slirp: the way out of one network on hosts without pasta.
///
/// Started by container-network, which it outlives, behind container-launch: without privileges,
/// without paths. Descriptor 3 is the TAP in the network's namespace; the process itself stays in
/// the host's, whose sockets it uses. On descriptor 4 it says that it is ready, as message.h has
/// it.

#include <signal.h>
#include <unistd.h>

#include <string>

#include <fmt/format.h>

#include "base/fd.h"
#include "network/message.h"
#include "network/slirp/seccomp.h"
#include "network/slirp/stack.h"

namespace {

constexpr int tap_descriptor = 3;
constexpr int ready_descriptor = 4;

base::Result<std::unique_ptr<network::slirp::Stack>> start() {
  base::UniqueFd tap(tap_descriptor);
  TRY_DURING(base::set_nonblocking(tap.get(), true), "use the TAP given as descriptor 3");
  auto stack = TRY(network::slirp::Stack::create(std::move(tap)));
  const auto confined = network::slirp::confine_to_sockets();
  if (!confined && confined.error().code() == base::ErrorCode::Unsupported)
    fmt::print(stderr, "container-slirp: {}, ignoring\n", confined.error().to_string());
  else if (!confined)
    return tl::unexpected(confined.error());
  return stack;
}

}  // namespace

int main() {
  ::signal(SIGPIPE, SIG_IGN);
  auto stack = start();
  const std::string line =
      stack ? network::encode_success("ready") : network::encode_failure(stack.error());
  static_cast<void>(base::write_all(ready_descriptor, line + "\n"));
  ::close(ready_descriptor);
  const auto ran = stack ? (*stack)->run() : base::Result<>(tl::unexpected(stack.error()));
  if (ran) return 0;
  fmt::print(stderr, "container-slirp: {}\n", ran.error().to_string());
  return 1;
}
