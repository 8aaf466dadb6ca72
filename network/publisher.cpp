#include "network/publisher.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <list>
#include <map>
#include <optional>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/uv.h"

namespace network {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;

constexpr size_t splice_bytes = 64 * 1024;
constexpr int turns_per_event_max = 16;  ///< Then others have their turn.
constexpr int packets_per_event_max = 64;
constexpr int listen_backlog = 512;
constexpr size_t socket_batch = 16;
constexpr size_t datagram_bytes_max = 65535;

struct HostAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  sockaddr* raw() { return reinterpret_cast<sockaddr*>(&storage); }
  void set_port(uint16_t port) {
    if (storage.ss_family == AF_INET6)
      reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port = htons(port);
    else
      reinterpret_cast<sockaddr_in*>(&storage)->sin_port = htons(port);
  }
};

base::Result<HostAddress> host_address(const std::string& text, uint16_t port) {
  HostAddress address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (::inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    address.length = sizeof *v4;
  } else if (::inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    address.length = sizeof *v6;
  } else {
    return fail(ErrorCode::InvalidArgument, "'{}' is not a host address to publish on", text);
  }
  address.set_port(port);
  return address;
}

/// What a bind failure means to the one who asked for the port.
tl::unexpected<base::Error> explain_bind(int error, const std::string& host, uint16_t port,
                                         std::string_view protocol) {
  if (error == EADDRINUSE)
    return fail(ErrorCode::Busy,
                "port {}/{} on {} is already in use; publish another host port, or stop what "
                "listens there (`ss -lnp 'sport = :{}'` names it)",
                port, protocol, host, port);
  if (error == EACCES || error == EPERM)
    return fail(ErrorCode::Denied,
                "Permission denied while binding to host port {}. Binding to ports below 1024 "
                "requires root privileges.",
                port);
  if (error == EADDRNOTAVAIL)
    return fail(ErrorCode::InvalidArgument, "this host has no address {} to publish port {} on",
                host, port);
  return fail_errno(error, fmt::format("listen on {}:{}", host, port));
}

base::Result<base::UniqueFd> bind_host_socket(const spec::Port& port, const std::string& host,
                                              uint16_t number) {
  const bool tcp = port.protocol == spec::Protocol::Tcp;
  HostAddress address = TRY(host_address(host, number));
  base::UniqueFd socket(::socket(address.storage.ss_family,
                                 (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK,
                                 0));
  const std::string_view protocol = tcp ? "tcp" : "udp";
  if (!socket) return explain_bind(errno, host, number, protocol);
  const int on = 1;
  if (tcp) ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.storage.ss_family == AF_INET6)
    ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (::bind(socket.get(), address.raw(), address.length) != 0 ||
      (tcp && ::listen(socket.get(), listen_backlog) != 0))
    return explain_bind(errno, host, number, protocol);
  return socket;
}

base::Result<uint16_t> port_of(int socket) {
  HostAddress address;
  address.length = sizeof address.storage;
  if (::getsockname(socket, address.raw(), &address.length) != 0)
    return fail_errno(errno, "getsockname");
  if (address.storage.ss_family == AF_INET6)
    return ntohs(reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_port);
  return ntohs(reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port);
}

/// `localhost` may mean either family to a client, and "all addresses" means all.
std::string twin_address(const std::string& host) {
  if (host == "127.0.0.1") return "::1";
  if (host == "0.0.0.0") return "::";
  return "";
}

/// The host's socket for a port, and its IPv6 twin where the host has IPv6.
base::Result<std::vector<base::UniqueFd>> bind_host_sockets(const spec::Port& port,
                                                            uint16_t number) {
  std::vector<base::UniqueFd> sockets;
  sockets.push_back(TRY(bind_host_socket(port, port.host_ip, number)));
  const std::string twin = twin_address(port.host_ip);
  if (twin.empty()) return sockets;
  auto second = bind_host_socket(port, twin, TRY(port_of(sockets.front().get())));
  if (second)
    sockets.push_back(std::move(*second));
  else if (second.error().code() == ErrorCode::Busy && number != 0)
    return tl::unexpected(std::move(second.error()));
  return sockets;
}

/// The lowest port of a choice that is free and may be had.
base::Result<std::vector<base::UniqueFd>> bind_chosen_sockets(const spec::Port& port) {
  if (port.published_last == 0) return bind_host_sockets(port, port.published);
  std::optional<base::Error> denied;
  for (uint32_t number = port.published; number <= port.published_last; ++number) {
    auto sockets = bind_host_sockets(port, static_cast<uint16_t>(number));
    if (sockets) return sockets;
    if (sockets.error().code() == ErrorCode::Denied)
      denied = std::move(sockets.error());
    else if (sockets.error().code() != ErrorCode::Busy)
      return sockets;
  }
  if (denied) return tl::unexpected(std::move(*denied));
  return fail(ErrorCode::Busy,
              "none of the ports {}-{}/{} on {} is free; publish a longer range, or stop what "
              "listens there (`ss -lnp` names it)",
              port.published, port.published_last,
              port.protocol == spec::Protocol::Tcp ? "tcp" : "udp", port.host_ip);
}

sockaddr_in target_address(dns::Ipv4 address, uint16_t port) {
  sockaddr_in target{};
  target.sin_family = AF_INET;
  target.sin_port = htons(port);
  target.sin_addr.s_addr = htonl(address.value);
  return target;
}

/// One direction of a TCP connection: source → pipe → sink.
struct Direction {
  base::Pipe pipe;
  size_t buffered = 0;
  bool ended = false;     ///< The source has sent its end.
  bool finished = false;  ///< … and the sink was told.

  bool wants_read() const { return !ended && buffered == 0; }
  bool wants_write() const { return buffered > 0; }

  /// Moves what can be moved now. False if the connection is broken.
  bool pump(int source, int sink) {
    for (int turn = 0; turn < turns_per_event_max; ++turn) {
      if (wants_read()) {
        const ssize_t count = ::splice(source, nullptr, pipe.writer.get(), nullptr, splice_bytes,
                                       SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (count < 0 && errno != EAGAIN && errno != EINTR) return false;
        if (count < 0) return true;
        if (count == 0) ended = true;
        buffered += static_cast<size_t>(count);
      }
      while (buffered > 0) {
        const ssize_t count = ::splice(pipe.reader.get(), nullptr, sink, nullptr, buffered,
                                       SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (count < 0 && errno != EAGAIN && errno != EINTR) return false;
        if (count < 0) return true;
        buffered -= static_cast<size_t>(count);
      }
      if (!ended) continue;
      if (!finished) ::shutdown(sink, SHUT_WR);
      finished = true;
      return true;
    }
    return true;
  }
};

/// Closing with unsent pretence of an orderly end would look like a complete answer.
void reset_on_close(int socket) {
  const linger hard{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
}

void prepare_stream(int socket) {
  const int on = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);  // Vanished peers end.
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

struct Forward;

struct TcpConnection {
  Forward* forward = nullptr;
  std::list<TcpConnection>::iterator self;
  base::UniqueFd client;
  base::UniqueFd backend;
  base::UvHandle<uv_poll_t> client_poll;  // After the descriptors: closed before them.
  base::UvHandle<uv_poll_t> backend_poll;
  base::UvHandle<uv_timer_t> retry;
  Direction up;    ///< client → container
  Direction down;  ///< container → client
  uint64_t give_up_ms = 0;
  bool connected = false;
};

struct UdpClient {
  Forward* forward = nullptr;
  HostAddress from;
  int host_socket = -1;
  base::UniqueFd backend;
  base::UvHandle<uv_poll_t> poll;
  uint64_t last_used_ms = 0;
};

struct HostSocket {
  Forward* forward = nullptr;
  base::UniqueFd socket;
  base::UvHandle<uv_poll_t> poll;
};

/// One published port.
struct Forward {
  Publisher::State* owner = nullptr;
  std::string container;
  spec::Port port;
  sockaddr_in target{};
  std::list<HostSocket> sockets;
  std::list<TcpConnection> connections;
  std::map<std::string, UdpClient> clients;  ///< By the client's socket address.
  base::UvHandle<uv_timer_t> sweeper;        ///< UDP only.
};

}  // namespace

struct Publisher::State {
  uv_loop_t* loop = nullptr;
  SocketSource source;
  PublisherOptions options;
  std::list<Forward> forwards;
  std::vector<base::UniqueFd> streams;  ///< Ready for the next connections.
  size_t connections = 0;
  std::array<char, datagram_bytes_max> datagram{};

  base::Result<base::UniqueFd> take_stream();
  base::Result<base::UvHandle<uv_poll_t>> watch(int socket, void* data);
  void accept_from(HostSocket& listener);
  void start_connecting(TcpConnection& connection);
  void retry_or_give_up(TcpConnection& connection, int error);
  void on_connecting(TcpConnection& connection);
  void run(TcpConnection& connection);
  void close(TcpConnection& connection, bool broken);
  void receive_from(HostSocket& socket);
  UdpClient* client_for(HostSocket& socket, const HostAddress& from);
  void answer_from(UdpClient& client);
};

namespace {

void on_listener(uv_poll_t* poll, int, int) {
  auto* socket = static_cast<HostSocket*>(poll->data);
  if (!socket) return;
  if (socket->forward->port.protocol == spec::Protocol::Tcp)
    socket->forward->owner->accept_from(*socket);
  else
    socket->forward->owner->receive_from(*socket);
}

void on_stream(uv_poll_t* poll, int, int) {
  auto* connection = static_cast<TcpConnection*>(poll->data);
  if (!connection) return;
  Publisher::State& state = *connection->forward->owner;
  if (connection->connected)
    state.run(*connection);
  else  // Only the backend is watched yet: a client may send its end early and still want answers.
    state.on_connecting(*connection);
}

void on_retry(uv_timer_t* timer) {
  auto* connection = static_cast<TcpConnection*>(timer->data);
  if (connection) connection->forward->owner->start_connecting(*connection);
}

void on_answer(uv_poll_t* poll, int, int) {
  if (auto* client = static_cast<UdpClient*>(poll->data))
    client->forward->owner->answer_from(*client);
}

void on_sweep(uv_timer_t* timer) {
  auto* forward = static_cast<Forward*>(timer->data);
  if (!forward) return;
  const uint64_t now = uv_now(timer->loop);
  const uint64_t idle_ms = forward->owner->options.udp_idle_ms;
  std::erase_if(forward->clients,
                [&](const auto& entry) { return now - entry.second.last_used_ms > idle_ms; });
}

}  // namespace

base::Result<base::UvHandle<uv_poll_t>> Publisher::State::watch(int socket, void* data) {
  auto poll = TRY(base::make_handle<uv_poll_t>(
      [&](uv_poll_t* handle) { return uv_poll_init(loop, handle, socket); }));
  poll->data = data;
  return poll;
}

base::Result<base::UniqueFd> Publisher::State::take_stream() {
  if (streams.empty()) streams = TRY(source(SOCK_STREAM, socket_batch));
  if (streams.empty()) return fail(ErrorCode::Internal, "no socket inside the network");
  base::UniqueFd socket = std::move(streams.back());
  streams.pop_back();
  return socket;
}

void Publisher::State::accept_from(HostSocket& listener) {
  for (int turn = 0; turn < turns_per_event_max; ++turn) {
    base::UniqueFd client(
        ::accept4(listener.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) return;
    Forward& forward = *listener.forward;
    auto up = base::make_pipe();
    auto down = base::make_pipe();
    if (connections >= options.tcp_connections_max || !up || !down) {
      reset_on_close(client.get());
      continue;
    }
    prepare_stream(client.get());
    TcpConnection& connection = forward.connections.emplace_back();
    ++connections;
    connection.self = std::prev(forward.connections.end());
    connection.forward = &forward;
    connection.up.pipe = std::move(*up);
    connection.down.pipe = std::move(*down);
    connection.client = std::move(client);
    connection.give_up_ms = uv_now(loop) + options.connect_patience_ms;
    auto poll = watch(connection.client.get(), &connection);
    auto timer = base::make_handle<uv_timer_t>(
        [&](uv_timer_t* handle) { return uv_timer_init(loop, handle); });
    if (!poll || !timer) {
      close(connection, true);
      continue;
    }
    connection.client_poll = std::move(*poll);
    connection.retry = std::move(*timer);
    connection.retry->data = &connection;
    start_connecting(connection);
  }
}

void Publisher::State::start_connecting(TcpConnection& connection) {
  auto socket = take_stream();
  if (!socket) return retry_or_give_up(connection, EAGAIN);
  connection.backend_poll.reset();
  connection.backend = std::move(*socket);
  prepare_stream(connection.backend.get());
  const auto* target = reinterpret_cast<const sockaddr*>(&connection.forward->target);
  const int status = ::connect(connection.backend.get(), target, sizeof connection.forward->target);
  if (status != 0 && errno != EINPROGRESS) return retry_or_give_up(connection, errno);
  auto poll = watch(connection.backend.get(), &connection);
  if (!poll) return close(connection, true);
  connection.backend_poll = std::move(*poll);
  uv_poll_start(connection.backend_poll.get(), UV_WRITABLE, on_stream);
}

void Publisher::State::retry_or_give_up(TcpConnection& connection, int error) {
  connection.backend_poll.reset();
  connection.backend.reset();
  const bool may_come = error == ECONNREFUSED || error == EHOSTUNREACH || error == EAGAIN ||
                        error == ETIMEDOUT || error == ECONNRESET;
  if (!may_come || uv_now(loop) >= connection.give_up_ms) return close(connection, true);
  uv_timer_start(connection.retry.get(), on_retry, options.connect_retry_ms, 0);
}

void Publisher::State::on_connecting(TcpConnection& connection) {
  int error = 0;
  socklen_t length = sizeof error;
  ::getsockopt(connection.backend.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) return retry_or_give_up(connection, error);
  connection.connected = true;
  connection.retry.reset();
  run(connection);
}

void Publisher::State::run(TcpConnection& connection) {
  const int client = connection.client.get();
  const int backend = connection.backend.get();
  Direction& up = connection.up;
  Direction& down = connection.down;
  if (!up.pump(client, backend) || !down.pump(backend, client)) return close(connection, true);
  if (up.finished && down.finished) return close(connection, false);
  const auto events = [](const Direction& from, const Direction& to) {
    return (from.wants_read() ? UV_READABLE : 0) | (to.wants_write() ? UV_WRITABLE : 0);
  };
  // With nothing wanted a half-closed side is not watched at all: its hang-up would spin the loop.
  const auto rewatch = [](uv_poll_t* poll, int wanted) {
    if (wanted == 0)
      uv_poll_stop(poll);
    else
      uv_poll_start(poll, wanted, on_stream);
  };
  rewatch(connection.client_poll.get(), events(up, down));
  rewatch(connection.backend_poll.get(), events(down, up));
}

void Publisher::State::close(TcpConnection& connection, bool broken) {
  if (broken) reset_on_close(connection.client.get());
  if (broken && connection.backend) reset_on_close(connection.backend.get());
  --connections;
  connection.forward->connections.erase(connection.self);
}

UdpClient* Publisher::State::client_for(HostSocket& socket, const HostAddress& from) {
  Forward& forward = *socket.forward;
  const std::string key = fmt::format("{}/", socket.socket.get()) +
                          std::string(reinterpret_cast<const char*>(&from.storage), from.length);
  if (const auto known = forward.clients.find(key); known != forward.clients.end())
    return &known->second;
  auto backends = source(SOCK_DGRAM, 1);
  if (!backends || backends->empty()) return nullptr;
  if (::connect(backends->front().get(), reinterpret_cast<const sockaddr*>(&forward.target),
                sizeof forward.target) != 0)
    return nullptr;
  if (forward.clients.size() >= options.udp_clients_max)
    forward.clients.erase(std::min_element(forward.clients.begin(), forward.clients.end(),
                                           [](const auto& a, const auto& b) {
                                             return a.second.last_used_ms < b.second.last_used_ms;
                                           }));
  UdpClient& client = forward.clients[key];
  client.forward = &forward;
  client.from = from;
  client.host_socket = socket.socket.get();
  client.backend = std::move(backends->front());
  auto poll = watch(client.backend.get(), &client);
  if (!poll) {
    forward.clients.erase(key);
    return nullptr;
  }
  client.poll = std::move(*poll);
  uv_poll_start(client.poll.get(), UV_READABLE, on_answer);
  return &client;
}

void Publisher::State::receive_from(HostSocket& socket) {
  for (int turn = 0; turn < packets_per_event_max; ++turn) {
    HostAddress from;
    from.length = sizeof from.storage;
    const ssize_t count = ::recvfrom(socket.socket.get(), datagram.data(), datagram.size(), 0,
                                     from.raw(), &from.length);
    if (count < 0) return;
    UdpClient* client = client_for(socket, from);
    if (!client) continue;
    client->last_used_ms = uv_now(loop);
    ::send(client->backend.get(), datagram.data(), static_cast<size_t>(count), MSG_NOSIGNAL);
  }
}

void Publisher::State::answer_from(UdpClient& client) {
  for (int turn = 0; turn < packets_per_event_max; ++turn) {
    const ssize_t count = ::recv(client.backend.get(), datagram.data(), datagram.size(), 0);
    // ECONNREFUSED only says that nobody listens yet; reading it has cleared it.
    if (count < 0) return;
    client.last_used_ms = uv_now(loop);
    ::sendto(client.host_socket, datagram.data(), static_cast<size_t>(count), MSG_NOSIGNAL,
             client.from.raw(), client.from.length);
  }
}

Publisher::Publisher(uv_loop_t* loop, SocketSource sockets, PublisherOptions options)
    : state_(std::make_unique<State>()) {
  state_->loop = loop;
  state_->source = std::move(sockets);
  state_->options = options;
}

Publisher::~Publisher() = default;

size_t Publisher::connections() const { return state_->connections; }

base::Result<uint16_t> Publisher::publish(const std::string& container, const spec::Port& port,
                                          dns::Ipv4 target) {
  std::vector<base::UniqueFd> sockets = TRY(bind_chosen_sockets(port));
  const uint16_t chosen = TRY(port_of(sockets.front().get()));
  std::list<Forward> made(1);  // Spliced in when complete: a list's elements never move.
  Forward& forward = made.front();
  forward.owner = state_.get();
  forward.container = container;
  forward.port = port;
  forward.target = target_address(target, port.target);
  for (base::UniqueFd& socket : sockets) {
    HostSocket& host = forward.sockets.emplace_back();
    host.forward = &forward;
    host.socket = std::move(socket);
    host.poll = TRY(state_->watch(host.socket.get(), &host));
    uv_poll_start(host.poll.get(), UV_READABLE, on_listener);
  }
  if (port.protocol == spec::Protocol::Udp) {
    forward.sweeper = TRY(base::make_handle<uv_timer_t>(
        [&](uv_timer_t* handle) { return uv_timer_init(state_->loop, handle); }));
    forward.sweeper->data = &forward;
    uv_timer_start(forward.sweeper.get(), on_sweep, state_->options.udp_idle_ms,
                   state_->options.udp_idle_ms);
  }
  state_->forwards.splice(state_->forwards.end(), made);
  return chosen;
}

void Publisher::unpublish(const std::string& container) {
  for (Forward& forward : state_->forwards)
    if (forward.container == container) state_->connections -= forward.connections.size();
  state_->forwards.remove_if(
      [&](const Forward& forward) { return forward.container == container; });
}

}  // namespace network
