#include "api/http_server.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/text.h"

namespace api {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
namespace limits = base::limits;

constexpr size_t stream_block_bytes = 64u << 10;
constexpr size_t upload_queue_bytes = 1u << 20;

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::InvalidArgument: return 400;
    case ErrorCode::Denied: return 403;
    case ErrorCode::NotFound: return 404;
    case ErrorCode::Exists:
    case ErrorCode::InvalidState:
    case ErrorCode::Busy:
    case ErrorCode::Cancelled: return 409;
    case ErrorCode::Unsupported: return 501;
    case ErrorCode::Timeout: return 504;
    case ErrorCode::NoSpace: return 507;
    case ErrorCode::Io:
    case ErrorCode::Internal: return 500;
  }
  return 500;
}

bool matches(const std::vector<std::string>& pattern, const std::vector<std::string>& path,
             std::vector<std::string>& segments) {
  if (pattern.size() != path.size()) return false;
  segments.clear();
  for (size_t i = 0; i < path.size(); ++i) {
    if (pattern[i] == "*")
      segments.push_back(path[i]);
    else if (pattern[i] != path[i])
      return false;
  }
  return true;
}

/// Only our own user and root may tell us what to do.
bool is_trusted(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == 0 || peer.uid == ::geteuid();
}

class Server;

/// One request on its way.
struct Exchange {
  Server* server = nullptr;
  HttpRequest request;
  const Route* route = nullptr;
  std::optional<HttpReply> reply;
  std::shared_ptr<ByteStream> body;  ///< Uploads only.
  std::thread uploading;
  int client = -1;

  ~Exchange() {
    if (body) body->close();
    if (uploading.joinable()) uploading.join();
  }
};

class Server final : public HttpServer {
 public:
  Server(std::vector<Route> routes, HttpOptions options)
      : routes_(std::move(routes)), options_(std::move(options)) {
    for (const Route& route : routes_) patterns_.push_back(base::split(route.pattern, '/'));
  }
  ~Server() override { stop(); }

  Result<> listen(base::UniqueFd listener);
  void stop();

  void begin(Exchange& exchange, MHD_Connection* connection, const char* url, const char* method);
  MHD_Result receive(Exchange& exchange, const char* bytes, size_t* count);
  MHD_Result answer(Exchange& exchange, MHD_Connection* connection);
  void await_request(MHD_Connection* connection);
  void serve_upgrade(const std::function<void(int, std::string)>& upgrade, int socket,
                     std::string first_bytes);

 private:
  void find_route(Exchange& exchange, const std::string& path);
  MHD_Response* response_of(Exchange& exchange, MHD_Connection* connection);

  const std::vector<Route> routes_;
  std::vector<std::vector<std::string>> patterns_;
  const HttpOptions options_;
  MHD_Daemon* daemon_ = nullptr;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::set<int> upgraded_;
  std::set<std::weak_ptr<ByteStream>, std::owner_less<>> streams_;
};

// ---- callbacks ---------------------------------------------------------------------------------

MHD_Result take_parameter(void* self, MHD_ValueKind, const char* key, const char* value) {
  (*static_cast<std::map<std::string, std::string>*>(self))[key] = value == nullptr ? "" : value;
  return MHD_YES;
}

MHD_Result on_request(void* self, MHD_Connection* connection, const char* url, const char* method,
                      const char*, const char* upload, size_t* upload_size, void** state) {
  auto* server = static_cast<Server*>(self);
  if (*state == nullptr) {
    auto exchange = std::make_unique<Exchange>();
    exchange->server = server;
    server->begin(*exchange, connection, url, method);
    *state = exchange.release();
    return MHD_YES;
  }
  auto& exchange = *static_cast<Exchange*>(*state);
  if (*upload_size > 0) return server->receive(exchange, upload, upload_size);
  return server->answer(exchange, connection);
}

void on_completed(void* self, MHD_Connection* connection, void** state,
                  MHD_RequestTerminationCode) {
  delete static_cast<Exchange*>(*state);
  *state = nullptr;
  static_cast<Server*>(self)->await_request(connection);
}

/// A stream and the connection that reads it, for as long as the response lives.
struct StreamReader {
  std::shared_ptr<ByteStream> stream;
  int client = -1;
};

ssize_t read_stream(void* self, uint64_t, char* buffer, size_t size) {
  auto* reader = static_cast<StreamReader*>(self);
  const size_t count = reader->stream->read({buffer, size}, reader->client);
  if (count > 0) return static_cast<ssize_t>(count);
  return reader->stream->closed() ? MHD_CONTENT_READER_END_WITH_ERROR
                                  : MHD_CONTENT_READER_END_OF_STREAM;
}

void free_stream(void* self) {
  auto* reader = static_cast<StreamReader*>(self);
  reader->stream->close();
  delete reader;
}

struct Upgrade {
  Server* server = nullptr;
  std::function<void(int, std::string)> serve;
};

void on_upgrade(void* self, MHD_Connection*, void*, const char* extra, size_t extra_size,
                MHD_socket socket, MHD_UpgradeResponseHandle* handle) {
  const std::unique_ptr<Upgrade> upgrade(static_cast<Upgrade*>(self));
  (void)base::set_nonblocking(socket, false);
  upgrade->server->serve_upgrade(upgrade->serve, socket, std::string(extra, extra_size));
  ::MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
}

// ---- one exchange ------------------------------------------------------------------------------

void Server::begin(Exchange& exchange, MHD_Connection* connection, const char* url,
                   const char* method) {
  const MHD_ConnectionInfo* info =
      ::MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  exchange.client = info != nullptr ? info->connect_fd : -1;
  exchange.request.method = method;
  ::MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, take_parameter,
                              &exchange.request.query);
  if (!is_trusted(exchange.client)) {
    exchange.reply = error_reply(
        base::Error(ErrorCode::Denied, "this system belongs to another user of this machine"));
    return;
  }
  find_route(exchange, url);
  if (exchange.route == nullptr || !exchange.route->upload) return;
  Result<std::shared_ptr<ByteStream>> body = ByteStream::create(upload_queue_bytes);
  if (!body) {
    exchange.reply = error_reply(body.error());
    return;
  }
  exchange.body = std::move(*body);
  exchange.uploading = std::thread([&exchange] {
    Result<HttpReply> made = exchange.route->upload(exchange.request, *exchange.body);
    exchange.body->close();  // what still comes is not wanted
    exchange.reply = made ? std::move(*made) : error_reply(made.error());
  });
}

void Server::find_route(Exchange& exchange, const std::string& path) {
  const std::vector<std::string> pieces = base::split(path, '/');
  bool known = false;
  for (size_t i = 0; i < routes_.size(); ++i) {
    std::vector<std::string> segments;
    if (!matches(patterns_[i], pieces, segments)) continue;
    known = true;
    if (routes_[i].method != exchange.request.method) continue;
    exchange.route = &routes_[i];
    exchange.request.segments = std::move(segments);
    return;
  }
  exchange.reply = error_reply(
      known ? base::Error(ErrorCode::InvalidArgument,
                          fmt::format("'{}' does not take {}", base::escape_controls(path),
                                      base::escape_controls(exchange.request.method)))
            : base::Error(ErrorCode::NotFound,
                          fmt::format("there is no '{}'", base::escape_controls(path))));
}

MHD_Result Server::receive(Exchange& exchange, const char* bytes, size_t* count) {
  const std::string_view piece(bytes, *count);
  *count = 0;
  if (exchange.body) {
    (void)exchange.body->write(piece);
    return MHD_YES;
  }
  if (exchange.reply) return MHD_YES;  // the answer is known; the rest is only taken off the wire
  if (exchange.request.body.size() + piece.size() > limits::api_request_bytes_max) {
    exchange.reply = error_reply(
        base::Error(ErrorCode::InvalidArgument,
                    fmt::format("a request of more than {} bytes", limits::api_request_bytes_max)));
    exchange.request.body.clear();
    return MHD_YES;
  }
  exchange.request.body += piece;
  return MHD_YES;
}

MHD_Response* Server::response_of(Exchange& exchange, MHD_Connection*) {
  HttpReply& reply = *exchange.reply;
  if (reply.upgrade) {
    auto upgrade = std::make_unique<Upgrade>(Upgrade{this, std::move(reply.upgrade)});
    MHD_Response* response = ::MHD_create_response_for_upgrade(on_upgrade, upgrade.get());
    if (response == nullptr) return nullptr;
    upgrade.release();
    ::MHD_add_response_header(response, MHD_HTTP_HEADER_UPGRADE, options_.protocol.c_str());
    reply.status = MHD_HTTP_SWITCHING_PROTOCOLS;
    return response;
  }
  if (reply.stream) {
    {
      const std::lock_guard lock(mutex_);
      std::erase_if(streams_, [](const auto& stream) { return stream.expired(); });
      streams_.insert(reply.stream);
      if (stopping_) reply.stream->close();
    }
    return ::MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, stream_block_bytes, read_stream,
        new StreamReader{std::move(reply.stream), exchange.client}, free_stream);
  }
  return ::MHD_create_response_from_buffer(reply.body.size(), reply.body.data(),
                                           MHD_RESPMEM_MUST_COPY);
}

/// The next request on this connection has to come in time again.
void Server::await_request(MHD_Connection* connection) {
  ::MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, options_.idle_timeout_s);
}

MHD_Result Server::answer(Exchange& exchange, MHD_Connection* connection) {
  // The request is whole. An answer that takes long, or a stream with nothing to say, is no silence
  // of the client's.
  ::MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
  if (exchange.uploading.joinable()) {
    exchange.body->finish();
    exchange.uploading.join();
  }
  if (!exchange.reply) {
    Result<HttpReply> made = exchange.route->handler(exchange.request);
    exchange.reply = made ? std::move(*made) : error_reply(made.error());
  }
  MHD_Response* response = response_of(exchange, connection);
  if (response == nullptr) return MHD_NO;
  const bool upgrade = exchange.reply->status == MHD_HTTP_SWITCHING_PROTOCOLS;
  if (!upgrade)
    ::MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
  const MHD_Result queued =
      ::MHD_queue_response(connection, static_cast<unsigned>(exchange.reply->status), response);
  ::MHD_destroy_response(response);
  return queued;
}

void Server::serve_upgrade(const std::function<void(int, std::string)>& upgrade, int socket,
                           std::string first_bytes) {
  {
    const std::lock_guard lock(mutex_);
    upgraded_.insert(socket);
    if (stopping_) ::shutdown(socket, SHUT_RDWR);
  }
  upgrade(socket, std::move(first_bytes));
  const std::lock_guard lock(mutex_);
  upgraded_.erase(socket);
  changed_.notify_all();
}

// ---- starting and stopping ---------------------------------------------------------------------

Result<> Server::listen(base::UniqueFd listener) {
  daemon_ = ::MHD_start_daemon(
      MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
          MHD_ALLOW_UPGRADE | MHD_USE_ITC,
      0, nullptr, nullptr, on_request, this, MHD_OPTION_LISTEN_SOCKET, listener.get(),
      MHD_OPTION_CONNECTION_LIMIT, limits::api_connections_max, MHD_OPTION_CONNECTION_TIMEOUT,
      options_.idle_timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
      static_cast<size_t>(limits::api_connection_bytes_max), MHD_OPTION_THREAD_STACK_SIZE,
      static_cast<size_t>(limits::api_thread_stack_bytes), MHD_OPTION_NOTIFY_COMPLETED,
      on_completed, this, MHD_OPTION_END);
  if (daemon_ == nullptr) return fail(ErrorCode::Io, "cannot serve the API's socket");
  (void)listener.release();  // closed by MHD_stop_daemon
  return {};
}

void Server::stop() {
  if (daemon_ == nullptr) return;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    for (const auto& weak : streams_)
      if (const auto stream = weak.lock()) stream->close();
    for (const int socket : upgraded_) ::shutdown(socket, SHUT_RDWR);
    changed_.wait(lock, [this] { return upgraded_.empty(); });
  }
  ::MHD_stop_daemon(daemon_);
  daemon_ = nullptr;
}

}  // namespace

HttpReply json_reply(const nlohmann::json& body) {
  return {.status = 200, .body = base::dump_json(body) + "\n", .stream = {}, .upgrade = {}};
}

HttpReply error_reply(const base::Error& error) {
  HttpReply reply = json_reply(
      {{"code", std::string(base::error_code_name(error.code()))}, {"message", error.to_string()}});
  reply.status = status_of(error.code());
  return reply;
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(base::UniqueFd listener,
                                                      std::vector<Route> routes,
                                                      HttpOptions options) {
  auto server = std::make_unique<Server>(std::move(routes), std::move(options));
  TRY(server->listen(std::move(listener)));
  return server;
}

}  // namespace api
