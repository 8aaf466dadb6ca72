#pragma once
/// The command's end of api/wire.h: HTTP/1.1 over the daemon's unix socket.
///
/// One request per connection, blocking, without libcurl, whose start-up alone would be a large
/// part of `container ls`. Responses are parsed by http-parser.

#include <functional>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/limits.h"
#include "base/result.h"

namespace cli {

struct Request {
  std::string method = "GET";
  std::string target;   ///< `/v1/containers?all=1`, already percent-encoded.
  std::string body;     ///< JSON; sent with its length, or in front of `body_fd`.
  std::string upgrade;  ///< Protocol to switch to; empty: an ordinary request.
  int body_fd = -1;     ///< Read to its end and sent behind `body`.
  int cancel_fd = -1;   ///< Once it is readable, the exchange ends with Cancelled.
  /// How long the daemon may be silent; -1: as long as it likes.
  int silence_ms_max = base::limits::cli_answer_timeout_ms;
};

/// Bytes of a response's body as they arrive. Returning an error ends the exchange with it.
using BodySink = std::function<base::Result<>(std::string_view bytes)>;

/// A connection that has been switched to another protocol.
struct Upgraded {
  base::UniqueFd socket;
  std::string first_bytes;  ///< Arrived together with the response's head.
};

class HttpClient {
 public:
  /// `socket_path` is api::Paths::api_socket().
  explicit HttpClient(std::string socket_path) : socket_path_(std::move(socket_path)) {}

  /// The whole body of a 2xx response. Other statuses become the error the daemon sent. Nobody at
  /// the socket is NotFound, and says how to start the system. At most cli_answer_bytes_max bytes.
  base::Result<std::string> call(const Request& request) const;

  /// As `call`, for bodies without an end in sight.
  base::Result<> stream(const Request& request, const BodySink& sink) const;

  /// Expects 101 Switching Protocols.
  base::Result<Upgraded> upgrade(const Request& request) const;

 private:
  std::string socket_path_;
};

/// `a b/c` as `a%20b%2Fc`: everything but the unreserved characters of RFC 3986.
std::string percent_encode(std::string_view text);

}  // namespace cli
