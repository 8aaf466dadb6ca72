#pragma once
/// HTTP for registries: libcurl's multi interface on a libuv loop with a thread of its own, used
/// by straight-line code on other threads.
///
/// One exchange is one request and its answer. It follows no redirect and knows no credentials:
/// what a redirect may do, and who is told a secret, is decided in client.h. A body that nobody
/// reads is held back on the wire once its buffer is full. Proxies come with the request, never
/// from this process's environment.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/registry/limits.h"

namespace image::registry {

/// Where a request may connect to, judged by the address and not by the name.
struct Reach {
  bool loopback = true;
  bool link_local = true;
};

/// How one host is spoken to.
struct Transport {
  std::string proxy;  ///< URL of it, or empty: none.
  bool insecure = false;
  std::string ca;                  ///< PEM, besides the system's own authorities.
  std::string client_certificate;  ///< PEM.
  std::string client_key;          ///< PEM.
};

struct HttpRequest {
  std::string method = "GET";
  std::string url;
  std::vector<std::string> headers;  ///< `Name: value`
  Transport transport;
  Reach reach;
  std::string body;
  /// Instead of `body`: fills at most the span; called on the loop's thread, must not block long.
  std::function<base::Result<size_t>(std::span<char>)> upload;
  std::function<void()> rewind;  ///< Makes `upload` begin anew.
  uint64_t upload_bytes = 0;
  size_t buffer_bytes = limits::body_buffer_bytes;
};

struct HttpHead {
  int status = 0;
  std::map<std::string, std::string> headers;  ///< Names in lower case; the last one wins.
  std::vector<std::string> challenges;         ///< Every WWW-Authenticate.
  /// What the connection reached.
  Reach reached{.loopback = false, .link_local = false};

  std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
  }
};

/// Lets whoever waits for the network give up. Thread-safe.
class Cancel {
 public:
  Cancel();
  ~Cancel();
  Cancel(const Cancel&) = delete;
  Cancel& operator=(const Cancel&) = delete;
  void cancel();
  bool cancelled() const;
  /// Waits `milliseconds`, or until cancelled; then Cancelled.
  base::Result<> wait_ms(int64_t milliseconds) const;
  /// Calls `call` when cancelled, at once if that has been; until forget(token).
  uint64_t on_cancel(std::function<void()> call);
  void forget(uint64_t token);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// One request on its way. Its end ends the request too.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  /// Blocks until the answer's head is there. A connection that broke behind the head is read()'s
  /// to tell, after what came.
  virtual base::Result<HttpHead> head() = 0;
  /// Blocks until there are bytes of the body; 0 at its end, which is reached only if it was whole.
  virtual base::Result<size_t> read(std::span<char> buffer) = 0;
};

struct HttpOptions {
  int connect_timeout_ms = limits::connect_timeout_ms;
  /// A transfer slower than registry_bytes_per_s_min for that long is given up.
  int idle_timeout_s = limits::idle_timeout_s;
};

class HttpClient {
 public:
  virtual ~HttpClient() = default;
  static base::Result<std::shared_ptr<HttpClient>> create(HttpOptions options = {});
  /// `cancel`, if given, must outlive the exchange. The client must too.
  virtual base::Result<std::unique_ptr<HttpExchange>> start(HttpRequest request,
                                                            Cancel* cancel) = 0;
};

/// Reads a body to its end; InvalidArgument beyond `bytes_max`.
base::Result<std::string> read_all(HttpExchange& exchange, uint64_t bytes_max);

/// `scheme://host[:port]/path` of a URL, for messages: queries may hold secrets.
std::string without_query(std::string_view url);

}  // namespace image::registry
