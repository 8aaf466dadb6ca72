#include "dns/server.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include <netinet/in.h>

#include "base/overloaded.h"
#include "base/uv.h"

namespace dns {
namespace {

constexpr uint16_t dns_port = 53;
constexpr int listen_backlog = 64;

struct WriteRequest {
  uv_write_t request{};
  std::string bytes;
};

}  // namespace

/// One client's stream. Kept alive by the table, and by nothing else: upstream answers hold it
/// weakly, so a client that left costs nothing.
struct Connection {
  Server::State* server = nullptr;
  base::UvHandle<uv_tcp_t> stream;
  base::UvHandle<uv_timer_t> timer;
  std::string inbox;
  size_t pending = 0;
  uint64_t last_query_ms = 0;
};

struct Server::State : std::enable_shared_from_this<Server::State> {
  uv_loop_t* loop = nullptr;
  ServerOptions options;
  Zone* zone = nullptr;
  Forwarder* forwarder = nullptr;
  base::UvHandle<uv_udp_t> udp;
  base::UvHandle<uv_tcp_t> listener;
  std::vector<std::shared_ptr<Connection>> connections;
  std::array<char, message_bytes_max> buffer{};

  void on_packet(std::string_view packet, const sockaddr_in& from);
  void send_packet(std::string reply, const sockaddr_in& to);
  void accept_one();
  void close(Connection& connection);
  void on_bytes(Connection& connection, std::string_view bytes);
  void on_query(const std::shared_ptr<Connection>& connection, std::string_view packet);
  void send(Connection& connection, std::string_view reply);
  std::shared_ptr<Connection> find(const Connection& connection) const;
};

namespace {

void give_udp_buffer(uv_handle_t* handle, size_t, uv_buf_t* buffer) {
  auto* state = static_cast<Server::State*>(handle->data);
  *buffer = state ? uv_buf_init(state->buffer.data(), static_cast<unsigned>(state->buffer.size()))
                  : uv_buf_init(nullptr, 0);
}

void give_tcp_buffer(uv_handle_t* handle, size_t, uv_buf_t* buffer) {
  auto* connection = static_cast<Connection*>(handle->data);
  if (!connection) {
    *buffer = uv_buf_init(nullptr, 0);
    return;
  }
  auto& bytes = connection->server->buffer;
  *buffer = uv_buf_init(bytes.data(), static_cast<unsigned>(bytes.size()));
}

void on_udp(uv_udp_t* handle, ssize_t count, const uv_buf_t* buffer, const sockaddr* from,
            unsigned flags) {
  auto* state = static_cast<Server::State*>(handle->data);
  const bool whole = count > 0 && from && from->sa_family == AF_INET && !(flags & UV_UDP_PARTIAL);
  if (!state || !whole) return;
  sockaddr_in address{};
  std::memcpy(&address, from, sizeof address);
  state->on_packet({buffer->base, static_cast<size_t>(count)}, address);
}

void on_client(uv_stream_t* listener, int status) {
  auto* state = static_cast<Server::State*>(listener->data);
  if (state && status == 0) state->accept_one();
}

void on_read(uv_stream_t* stream, ssize_t count, const uv_buf_t* buffer) {
  auto* connection = static_cast<Connection*>(stream->data);
  if (!connection || count == 0) return;
  if (count < 0)
    connection->server->close(*connection);
  else
    connection->server->on_bytes(*connection, {buffer->base, static_cast<size_t>(count)});
}

void on_idle(uv_timer_t* timer) {
  auto* connection = static_cast<Connection*>(timer->data);
  if (!connection) return;
  // An answer still under way has a deadline of its own in the forwarder.
  if (connection->pending > 0)
    uv_timer_again(timer);
  else
    connection->server->close(*connection);
}

}  // namespace

void Server::State::on_packet(std::string_view packet, const sockaddr_in& from) {
  if (from.sin_port == htons(dns_port) || from.sin_port == 0) return;
  Outcome outcome = answer(packet, *zone, options.answers, Transport::Udp);
  std::visit(base::overloaded{
                 [](const Ignore&) {},
                 [&](Reply& reply) { send_packet(std::move(reply.bytes), from); },
                 [&](AskUpstream& question) {
                   if (!forwarder) return send_packet(server_failure(question.query), from);
                   auto reply_to = [weak = weak_from_this(), from,
                                    query = question.query](std::string reply) {
                     if (const auto state = weak.lock())
                       state->send_packet(fit_reply(std::move(reply), query, Transport::Udp), from);
                   };
                   forwarder->ask(std::move(question.query), std::move(reply_to));
                 },
             },
             outcome);
}

void Server::State::send_packet(std::string reply, const sockaddr_in& to) {
  const uv_buf_t bytes = uv_buf_init(reply.data(), static_cast<unsigned>(reply.size()));
  // A full socket buffer drops the reply, as UDP may; the asker asks again. Nothing piles up.
  uv_udp_try_send(udp.get(), &bytes, 1, reinterpret_cast<const sockaddr*>(&to));
}

void Server::State::accept_one() {
  auto connection = std::make_shared<Connection>();
  auto stream =
      base::make_handle<uv_tcp_t>([&](uv_tcp_t* handle) { return uv_tcp_init(loop, handle); });
  auto timer = base::make_handle<uv_timer_t>(
      [&](uv_timer_t* handle) { return uv_timer_init(loop, handle); });
  if (!stream || !timer) return;
  auto* raw = reinterpret_cast<uv_stream_t*>(stream->get());
  if (uv_accept(reinterpret_cast<uv_stream_t*>(listener.get()), raw) != 0) return;
  if (connections.size() >= options.tcp_connections_max)
    close(**std::min_element(
        connections.begin(), connections.end(),
        [](const auto& a, const auto& b) { return a->last_query_ms < b->last_query_ms; }));
  connection->server = this;
  connection->stream = std::move(*stream);
  connection->timer = std::move(*timer);
  connection->stream->data = connection->timer->data = connection.get();
  connection->last_query_ms = uv_now(loop);
  uv_timer_start(connection->timer.get(), on_idle, options.tcp_idle_ms, options.tcp_idle_ms);
  connections.push_back(connection);
  if (uv_read_start(raw, give_tcp_buffer, on_read) != 0) close(*connection);
}

std::shared_ptr<Connection> Server::State::find(const Connection& connection) const {
  const auto found =
      std::find_if(connections.begin(), connections.end(),
                   [&](const auto& candidate) { return candidate.get() == &connection; });
  return found == connections.end() ? nullptr : *found;
}

void Server::State::close(Connection& connection) {
  const auto keep = find(connection);
  std::erase(connections, keep);
  connection.stream.reset();
  connection.timer.reset();
}

void Server::State::on_bytes(Connection& connection, std::string_view bytes) {
  const auto keep = find(connection);
  connection.inbox += bytes;
  while (connection.stream && connection.inbox.size() >= 2) {
    const size_t length = static_cast<size_t>(static_cast<uint8_t>(connection.inbox[0])) << 8 |
                          static_cast<uint8_t>(connection.inbox[1]);
    if (connection.inbox.size() - 2 < length) return;
    const std::string packet = connection.inbox.substr(2, length);
    connection.inbox.erase(0, length + 2);
    connection.last_query_ms = uv_now(loop);
    uv_timer_again(connection.timer.get());
    on_query(keep, packet);
  }
}

void Server::State::on_query(const std::shared_ptr<Connection>& connection,
                             std::string_view packet) {
  Outcome outcome = answer(packet, *zone, options.answers, Transport::Tcp);
  if (const auto* reply = std::get_if<Reply>(&outcome)) return send(*connection, reply->bytes);
  auto* question = std::get_if<AskUpstream>(&outcome);
  if (!question) return close(*connection);  // Not a query: this is no DNS client.
  if (!forwarder || connection->pending >= options.tcp_pending_max)
    return send(*connection, server_failure(question->query));
  ++connection->pending;
  auto reply_to = [weak = std::weak_ptr(connection), query = question->query](std::string reply) {
    const auto client = weak.lock();
    if (!client || !client->stream) return;
    --client->pending;
    client->server->send(*client, fit_reply(std::move(reply), query, Transport::Tcp));
  };
  forwarder->ask(std::move(question->query), std::move(reply_to));
}

void Server::State::send(Connection& connection, std::string_view reply) {
  auto* stream = reinterpret_cast<uv_stream_t*>(connection.stream.get());
  auto write = std::make_unique<WriteRequest>();
  write->bytes = {static_cast<char>(reply.size() >> 8), static_cast<char>(reply.size() & 255)};
  write->bytes += reply;
  const uv_buf_t bytes =
      uv_buf_init(write->bytes.data(), static_cast<unsigned>(write->bytes.size()));
  const bool room = uv_stream_get_write_queue_size(stream) < options.tcp_unsent_bytes_max;
  const int status =
      room ? uv_write(&write->request, stream, &bytes, 1,
                      [](uv_write_t* done, int) { delete reinterpret_cast<WriteRequest*>(done); })
           : UV_ENOBUFS;
  if (status != 0) return close(connection);
  static_cast<void>(write.release());  // libuv's until the callback.
}

Server::Server(std::shared_ptr<State> state) : state_(std::move(state)) {}
Server::~Server() = default;

size_t Server::tcp_connections() const { return state_->connections.size(); }

base::Result<std::unique_ptr<Server>> Server::create(uv_loop_t* loop, base::UniqueFd udp,
                                                     base::UniqueFd tcp, Zone& zone,
                                                     Forwarder* forwarder, ServerOptions options) {
  auto state = std::make_shared<State>();
  state->loop = loop;
  state->options = std::move(options);
  state->zone = &zone;
  state->forwarder = forwarder;
  state->udp =
      TRY(base::make_handle<uv_udp_t>([&](uv_udp_t* handle) { return uv_udp_init(loop, handle); }));
  state->listener =
      TRY(base::make_handle<uv_tcp_t>([&](uv_tcp_t* handle) { return uv_tcp_init(loop, handle); }));
  state->udp->data = state->listener->data = state.get();
  int status = uv_udp_open(state->udp.get(), udp.get());
  if (status == 0) {
    udp.release();
    status = uv_udp_recv_start(state->udp.get(), give_udp_buffer, on_udp);
  }
  if (status == 0) status = uv_tcp_open(state->listener.get(), tcp.get());
  if (status == 0) {
    tcp.release();
    status =
        uv_listen(reinterpret_cast<uv_stream_t*>(state->listener.get()), listen_backlog, on_client);
  }
  if (status != 0) return base::fail(base::ErrorCode::Io, "serve DNS: {}", uv_strerror(status));
  return std::unique_ptr<Server>(new Server(std::move(state)));
}

}  // namespace dns
