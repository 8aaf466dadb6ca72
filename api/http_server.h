#pragma once
/// HTTP/1.1 over a unix socket: a table of routes, a thread for each connection, everything
/// bounded. Knows nothing of containers, so that another API can sit beside ours.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "api/byte_stream.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/result.h"

namespace api {

struct HttpRequest {
  std::string method;
  std::vector<std::string> segments;  ///< What the pattern's `*` matched, in order.
  std::string body;
  std::map<std::string, std::string> query;

  std::string parameter(const std::string& name) const {
    const auto found = query.find(name);
    return found == query.end() ? "" : found->second;
  }
  bool flag(const std::string& name) const {
    const std::string value = parameter(name);
    return value == "1" || value == "true";
  }
};

/// One of three: a body, a stream, or a connection that becomes something else.
struct HttpReply {
  int status = 200;
  std::string body;
  std::shared_ptr<ByteStream> stream;
  /// Called on a thread of its own, with a blocking socket and what the client sent already.
  std::function<void(int socket, std::string first_bytes)> upgrade;
};

HttpReply json_reply(const nlohmann::json& body);
HttpReply error_reply(const base::Error& error);

using HttpHandler = std::function<base::Result<HttpReply>(const HttpRequest&)>;
/// Takes the body while it arrives: reads it from the stream it is given.
using UploadHandler = std::function<base::Result<HttpReply>(const HttpRequest&, ByteStream& body)>;

struct Route {
  std::string method;
  std::string pattern;  ///< `/v1/containers/*/logs`
  HttpHandler handler;
  UploadHandler upload;  ///< Instead of `handler`.
};

struct HttpOptions {
  std::string protocol;  ///< Name in the Upgrade header.
  /// Between two bytes of a request. Its answer may take as long as it takes, and be as silent.
  unsigned idle_timeout_s = base::limits::api_idle_timeout_s;
};

class HttpServer {
 public:
  virtual ~HttpServer() = default;  ///< Stops: streams and upgrades end, threads are joined.
  /// Serves `listener` (a listening unix socket) to our own user and root only.
  static base::Result<std::unique_ptr<HttpServer>> start(base::UniqueFd listener,
                                                         std::vector<Route> routes,
                                                         HttpOptions options);
};

}  // namespace api
