#include "cli/http_client.h"

#include <cerrno>
#include <cstdint>
#include <optional>

#include <http_parser.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;

/// One exchange: what the parser has told us so far.
struct Exchange {
  const BodySink* sink = nullptr;
  base::Result<> outcome;  ///< The first error of the sink.
  std::string error_body;  ///< Of a response that is no success.
  bool head_complete = false;
  bool complete = false;
  unsigned status = 0;
};

Exchange& exchange_of(http_parser* parser) { return *static_cast<Exchange*>(parser->data); }

int on_head(http_parser* parser) {
  Exchange& exchange = exchange_of(parser);
  exchange.head_complete = true;
  exchange.status = parser->status_code;
  return 0;
}

int on_body(http_parser* parser, const char* bytes, size_t length) {
  Exchange& exchange = exchange_of(parser);
  const std::string_view piece(bytes, length);
  if (exchange.status / 100 != 2) {
    if (exchange.error_body.size() + length <= base::limits::api_request_bytes_max)
      exchange.error_body += piece;
    return 0;
  }
  exchange.outcome = (*exchange.sink)(piece);
  return exchange.outcome ? 0 : 1;
}

int on_complete(http_parser* parser) {
  exchange_of(parser).complete = true;
  return 0;
}

/// Bytes from the place where a file stands to its end; nullopt for pipes and the like.
std::optional<uint64_t> bytes_left(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  const off_t position = ::lseek(fd, 0, SEEK_CUR);
  if (position < 0 || position > status.st_size) return std::nullopt;
  return static_cast<uint64_t>(status.st_size - position);
}

std::string head_of(const Request& request, std::optional<uint64_t> upload_bytes) {
  std::string head =
      fmt::format("{} {} HTTP/1.1\r\nHost: container\r\n", request.method, request.target);
  if (request.upgrade.empty())
    head += "Connection: close\r\n";
  else
    head += fmt::format("Connection: Upgrade\r\nUpgrade: {}\r\n", request.upgrade);
  if (request.body_fd >= 0) {
    head += "Content-Type: application/octet-stream\r\n";
    head += upload_bytes
                ? fmt::format("Content-Length: {}\r\n", request.body.size() + *upload_bytes)
                : std::string("Transfer-Encoding: chunked\r\n");
    return head + "\r\n";
  }
  if (!request.body.empty()) head += "Content-Type: application/json\r\n";
  if (!request.body.empty() || request.method != "GET")
    head += fmt::format("Content-Length: {}\r\n", request.body.size());
  return head + "\r\n";
}

/// A daemon that takes nothing any more must not hold us for ever either.
void bound_sending(int socket) {
  const timeval limit{.tv_sec = base::limits::cli_answer_timeout_ms / 1000, .tv_usec = 0};
  (void)::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

Result<base::UniqueFd> connect(const std::string& socket_path) {
  Result<base::UniqueFd> socket = base::connect_unix(socket_path);
  if (socket) return socket;
  return base::fail(ErrorCode::NotFound,
                    "the container system is not running ({}). Ensure container system service "
                    "has been started with `container system start`.",
                    socket.error().to_string());
}

/// The daemon's own error, or one about a response that holds none.
base::Error error_of(const Exchange& exchange) {
  const Result<nlohmann::json> body = base::parse_json(exchange.error_body);
  const std::string message = body ? base::json_string_or(*body, "message", "") : "";
  if (message.empty())
    return {ErrorCode::Internal,
            fmt::format("the daemon answered with status {} and no reason", exchange.status)};
  return {base::error_code_from_name(base::json_string_or(*body, "code", "")), message};
}

struct Conversation {
  base::UniqueFd socket;
  std::string unparsed;  ///< Bytes behind the head of an upgraded response.
  Exchange exchange;
};

/// Until `socket` can do one of `events`; which.
Result<short> wait_for(int socket, short events, const Request& request) {
  pollfd waiting[] = {{.fd = socket, .events = events, .revents = 0},
                      {.fd = request.cancel_fd, .events = POLLIN, .revents = 0}};
  for (;;) {
    const int ready = ::poll(waiting, 2, request.silence_ms_max);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return base::fail_errno(errno, "wait for the daemon");
    if (ready == 0)
      return base::fail(ErrorCode::Timeout, "the daemon has not answered {} {} for {} s",
                        request.method, request.target, request.silence_ms_max / 1000);
    if (waiting[1].revents != 0)
      return base::fail(ErrorCode::Cancelled, "given up: {} {}", request.method, request.target);
    return waiting[0].revents;
  }
}

/// Sends `body_fd` to its end. A daemon that answers before the end, or hangs up, has made up its
/// mind: its answer says more than a failed write would.
Result<> upload(int socket, const Request& request, bool chunked) {
  std::string buffer(256 * 1024, '\0');
  for (;;) {
    if ((TRY(wait_for(socket, POLLIN | POLLOUT, request)) & POLLIN) != 0) return {};
    const size_t count = TRY_DURING(base::read_some(request.body_fd, buffer), "read what to send");
    const std::string_view piece = std::string_view(buffer).substr(0, count);
    std::string bytes;
    if (chunked) bytes = fmt::format("{:x}\r\n", count);
    bytes.append(piece);
    if (chunked) bytes += "\r\n";
    if (!base::write_all(socket, bytes) || count == 0) return {};
  }
}

Result<> ask(int socket, const Request& request) {
  bound_sending(socket);
  const std::optional<uint64_t> upload_bytes =
      request.body_fd >= 0 ? bytes_left(request.body_fd) : std::nullopt;
  std::string begin = head_of(request, upload_bytes);
  const bool chunked = request.body_fd >= 0 && !upload_bytes;
  if (chunked && !request.body.empty())
    begin += fmt::format("{:x}\r\n{}\r\n", request.body.size(), request.body);
  else
    begin += request.body;
  TRY_DURING(base::write_all(socket, begin), "ask the daemon");
  if (request.body_fd >= 0) TRY(upload(socket, request, chunked));
  return {};
}

http_parser_settings parser_settings() {
  http_parser_settings settings;
  http_parser_settings_init(&settings);
  settings.on_headers_complete = on_head;
  settings.on_body = on_body;
  settings.on_message_complete = on_complete;
  return settings;
}

/// Sends the request and parses the response to its end, or to the switch of protocols.
Result<Conversation> converse(const std::string& socket_path, const Request& request,
                              const BodySink& sink) {
  Conversation talk;
  talk.socket = TRY(connect(socket_path));
  talk.exchange.sink = &sink;
  TRY(ask(talk.socket.get(), request));

  http_parser parser;
  http_parser_init(&parser, HTTP_RESPONSE);
  parser.data = &talk.exchange;
  const http_parser_settings settings = parser_settings();

  char buffer[64 * 1024];
  while (!talk.exchange.complete) {
    TRY(wait_for(talk.socket.get(), POLLIN, request));
    const size_t count = TRY_DURING(base::read_some(talk.socket.get(), buffer), "hear the daemon");
    const size_t parsed = http_parser_execute(&parser, &settings, buffer, count);
    if (!talk.exchange.outcome) return tl::unexpected<base::Error>(talk.exchange.outcome.error());
    if (parser.upgrade) {
      talk.unparsed.assign(buffer + parsed, count - parsed);
      return talk;
    }
    if (talk.exchange.complete) break;
    if (count == 0)
      return base::fail(ErrorCode::Io,
                        "the daemon went away while answering; `container system status` tells "
                        "whether it runs, `container system logs` why it ended");
    if (parsed != count)
      return base::fail(ErrorCode::Internal, "the daemon's answer is no HTTP: {}",
                        http_errno_description(HTTP_PARSER_ERRNO(&parser)));
  }
  return talk;
}

}  // namespace

Result<> HttpClient::stream(const Request& request, const BodySink& sink) const {
  const Conversation talk = TRY(converse(socket_path_, request, sink));
  if (talk.exchange.status / 100 != 2) return tl::unexpected<base::Error>(error_of(talk.exchange));
  return {};
}

Result<std::string> HttpClient::call(const Request& request) const {
  std::string body;
  TRY(stream(request, [&](std::string_view piece) -> Result<> {
    if (body.size() + piece.size() > base::limits::cli_answer_bytes_max)
      return base::fail(ErrorCode::InvalidState, "the answer to {} is larger than {} bytes",
                        request.target, base::limits::cli_answer_bytes_max);
    body += piece;
    return {};
  }));
  return body;
}

Result<Upgraded> HttpClient::upgrade(const Request& request) const {
  Conversation talk = TRY(converse(socket_path_, request, [](std::string_view) -> Result<> {
    return base::fail(ErrorCode::Internal, "the daemon answered instead of switching protocols");
  }));
  constexpr unsigned switching_protocols = 101;
  if (talk.exchange.status != switching_protocols)
    return tl::unexpected<base::Error>(error_of(talk.exchange));
  return Upgraded{.socket = std::move(talk.socket), .first_bytes = std::move(talk.unparsed)};
}

std::string percent_encode(std::string_view text) {
  constexpr std::string_view unreserved =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  std::string encoded;
  for (const char c : text) {
    if (unreserved.find(c) != std::string_view::npos)
      encoded += c;
    else
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return encoded;
}

}  // namespace cli
