#pragma once
/// Serves one zone by UDP and TCP on sockets somebody else made (in the network's namespace).
///
/// UDP packets from port 53 are ignored: only another server sends from there, and two servers
/// answering each other's errors never stop. TCP connections are few, short-lived and bounded: one
/// that has not sent a whole query for five seconds is closed, and when all places are taken the
/// longest silent one makes room. Not thread-safe: one loop.

#include <cstdint>
#include <memory>

#include <uv.h>

#include "base/fd.h"
#include "base/result.h"
#include "dns/answer.h"
#include "dns/forwarder.h"
#include "dns/zone.h"

namespace dns {

struct ServerOptions {
  AnswerOptions answers;
  uint64_t tcp_idle_ms = 5'000;
  size_t tcp_connections_max = 64;
  size_t tcp_pending_max = 16;               ///< Queries of one connection waiting for upstream.
  size_t tcp_unsent_bytes_max = 256 * 1024;  ///< A client that does not read is closed.
};

class Server {
 public:
  /// `udp` is bound, `tcp` bound and listening. `zone` and `forwarder` outlive the server;
  /// `forwarder` may be null where nothing is forwarded.
  static base::Result<std::unique_ptr<Server>> create(uv_loop_t* loop, base::UniqueFd udp,
                                                      base::UniqueFd tcp, Zone& zone,
                                                      Forwarder* forwarder, ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  size_t tcp_connections() const;

  struct State;  ///< Private; named here for the callbacks.

 private:
  explicit Server(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace dns
