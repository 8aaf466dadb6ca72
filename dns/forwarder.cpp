#include "dns/forwarder.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <unordered_map>

#include <sys/random.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/uv.h"
#include "dns/answer.h"

namespace dns {
namespace {

constexpr int port_picks_max = 8;

uint16_t random_16() {
  uint16_t value = 0;
  while (::getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value)) {
  }
  return value;
}

/// Identity and time of a file: different means it may say something else now.
struct FileStamp {
  uint64_t inode = 0;
  int64_t seconds = 0;
  int64_t nanoseconds = 0;
  int64_t size = -1;
  bool operator==(const FileStamp&) const = default;
};

FileStamp stamp_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return {};
  return {status.st_ino, status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_size};
}

sockaddr_storage any_address(int family, uint16_t port) {
  sockaddr_storage address{};
  address.ss_family = static_cast<sa_family_t>(family);
  if (family == AF_INET6)
    reinterpret_cast<sockaddr_in6*>(&address)->sin6_port = htons(port);
  else
    reinterpret_cast<sockaddr_in*>(&address)->sin_port = htons(port);
  return address;
}

/// The kernel's own choice is among 28 thousand ports; this is among 64 thousand.
base::Result<base::UvHandle<uv_udp_t>> open_random_port(uv_loop_t* loop, const Upstream& upstream) {
  for (int pick = 0;; ++pick) {
    auto socket = TRY(
        base::make_handle<uv_udp_t>([&](uv_udp_t* handle) { return uv_udp_init(loop, handle); }));
    const bool last = pick == port_picks_max;
    const uint16_t port = last ? uint16_t{0} : std::max<uint16_t>(random_16(), 1024);
    const sockaddr_storage local = any_address(upstream.family(), port);
    int status = uv_udp_bind(socket.get(), reinterpret_cast<const sockaddr*>(&local), 0);
    if (status == UV_EADDRINUSE && !last) continue;
    if (status == 0) status = uv_udp_connect(socket.get(), upstream.raw());
    if (status != 0)
      return base::fail(base::ErrorCode::Io, "reach '{}': {}", format_upstream(upstream),
                        uv_strerror(status));
    return socket;
  }
}

/// True for an answer that another server may improve on.
bool worth_another_server(Rcode rcode) {
  return rcode == Rcode::ServerFailure || rcode == Rcode::Refused ||
         rcode == Rcode::NotImplemented || rcode == Rcode::FormatError;
}

/// uv_write's request together with the bytes it sends.
struct WriteRequest {
  uv_write_t request{};
  std::string bytes;
};

}  // namespace

/// One question under way: a walk over the servers, `rounds` times. The handles' `data` points
/// here; closing a handle clears it, so a late callback finds nobody.
struct Exchange {
  Forwarder::State* owner = nullptr;
  uint64_t key = 0;
  Forwarder::Done done;
  Query query;
  std::vector<Upstream> upstreams;  ///< As they were when the question came.
  size_t attempts = 0;
  uint16_t id = 0;
  std::string failure;  ///< The best failing answer so far.
  base::UvHandle<uv_udp_t> udp;
  base::UvHandle<uv_tcp_t> tcp;
  base::UvHandle<uv_timer_t> timer;
  std::string inbox;  ///< Of the TCP stream.

  const Upstream& upstream() const { return upstreams[(attempts - 1) % upstreams.size()]; }
};

struct Forwarder::State {
  uv_loop_t* loop = nullptr;
  ForwarderOptions options;
  FileStamp stamp;
  std::unordered_map<uint64_t, std::unique_ptr<Exchange>> exchanges;
  uint64_t next_key = 1;
  std::array<char, message_bytes_max> buffer{};

  void refresh_upstreams();
  void try_next(Exchange& exchange);
  base::Result<> start_udp(Exchange& exchange);
  base::Result<> start_tcp(Exchange& exchange);
  void on_message(Exchange& exchange, std::string packet, Transport transport);
  void on_stream(Exchange& exchange, std::string_view bytes);
  void finish(Exchange& exchange, std::string reply);
};

namespace {

template <class T>
Exchange* exchange_of(const T* handle) {
  return static_cast<Exchange*>(handle->data);
}

void give_buffer(uv_handle_t* handle, size_t, uv_buf_t* buffer) {
  Exchange* exchange = exchange_of(handle);
  *buffer = exchange ? uv_buf_init(exchange->owner->buffer.data(),
                                   static_cast<unsigned>(exchange->owner->buffer.size()))
                     : uv_buf_init(nullptr, 0);
}

void on_udp(uv_udp_t* handle, ssize_t count, const uv_buf_t* buffer, const sockaddr* from,
            unsigned) {
  Exchange* exchange = exchange_of(handle);
  if (!exchange) return;
  if (count < 0)  // Nobody listens there: the next server need not wait for a timeout.
    exchange->owner->try_next(*exchange);
  else if (from)
    exchange->owner->on_message(*exchange, std::string(buffer->base, static_cast<size_t>(count)),
                                Transport::Udp);
}

void on_tcp(uv_stream_t* handle, ssize_t count, const uv_buf_t* buffer) {
  Exchange* exchange = exchange_of(handle);
  if (!exchange || count == 0) return;
  if (count < 0)
    exchange->owner->try_next(*exchange);
  else
    exchange->owner->on_stream(*exchange, {buffer->base, static_cast<size_t>(count)});
}

void on_connected(uv_connect_t* request, int status) {
  Exchange* exchange = exchange_of(request->handle);
  if (!exchange) return;
  auto* stream = reinterpret_cast<uv_stream_t*>(exchange->tcp.get());
  auto write = std::make_unique<WriteRequest>();
  const std::string message = build_query(exchange->query, exchange->id);
  write->bytes = {static_cast<char>(message.size() >> 8), static_cast<char>(message.size() & 255)};
  write->bytes += message;
  const uv_buf_t bytes =
      uv_buf_init(write->bytes.data(), static_cast<unsigned>(write->bytes.size()));
  const bool sent = status == 0 && uv_read_start(stream, give_buffer, on_tcp) == 0 &&
                    uv_write(&write->request, stream, &bytes, 1, [](uv_write_t* done, int) {
                      delete reinterpret_cast<WriteRequest*>(done);
                    }) == 0;
  if (!sent) return exchange->owner->try_next(*exchange);
  static_cast<void>(write.release());  // libuv's until the callback.
}

void on_timeout(uv_timer_t* timer) {
  if (Exchange* exchange = exchange_of(timer)) exchange->owner->try_next(*exchange);
}

}  // namespace

void Forwarder::State::refresh_upstreams() {
  if (options.resolv_conf.empty()) return;
  const FileStamp now = stamp_of(options.resolv_conf);
  if (now == stamp) return;
  stamp = now;
  const auto text = base::read_file(options.resolv_conf, resolv_conf_bytes_max);
  options.upstreams = text ? parse_resolv_conf(*text) : std::vector<Upstream>{};
}

void Forwarder::State::try_next(Exchange& exchange) {
  exchange.udp.reset();
  exchange.tcp.reset();
  exchange.inbox.clear();
  while (exchange.attempts < exchange.upstreams.size() * options.rounds) {
    ++exchange.attempts;
    if (start_udp(exchange)) return;
  }
  finish(exchange,
         exchange.failure.empty() ? server_failure(exchange.query) : std::move(exchange.failure));
}

base::Result<> Forwarder::State::start_udp(Exchange& exchange) {
  exchange.udp = TRY(open_random_port(loop, exchange.upstream()));
  exchange.udp->data = &exchange;
  exchange.id = random_16();
  std::string request = build_query(exchange.query, exchange.id);
  const uv_buf_t bytes = uv_buf_init(request.data(), static_cast<unsigned>(request.size()));
  if (uv_udp_recv_start(exchange.udp.get(), give_buffer, on_udp) != 0 ||
      uv_udp_try_send(exchange.udp.get(), &bytes, 1, nullptr) < 0)
    return base::fail(base::ErrorCode::Io, "cannot send");
  uv_timer_start(exchange.timer.get(), on_timeout, options.timeout_ms, 0);
  return {};
}

base::Result<> Forwarder::State::start_tcp(Exchange& exchange) {
  exchange.udp.reset();
  exchange.tcp =
      TRY(base::make_handle<uv_tcp_t>([&](uv_tcp_t* handle) { return uv_tcp_init(loop, handle); }));
  exchange.tcp->data = &exchange;
  exchange.id = random_16();
  // The request lives in the heap for itself: libuv reports a cancelled connect after the close.
  auto request = std::make_unique<uv_connect_t>();
  const int status = uv_tcp_connect(request.get(), exchange.tcp.get(), exchange.upstream().raw(),
                                    [](uv_connect_t* connect, int outcome) {
                                      on_connected(connect, outcome);
                                      delete connect;
                                    });
  if (status != 0) return base::fail(base::ErrorCode::Io, "connect: {}", uv_strerror(status));
  static_cast<void>(request.release());
  uv_timer_start(exchange.timer.get(), on_timeout, options.timeout_ms, 0);
  return {};
}

void Forwarder::State::on_message(Exchange& exchange, std::string packet, Transport transport) {
  const auto response = parse_response(packet);
  const bool matches =
      response && response->id == exchange.id && response->name == exchange.query.name &&
      response->type == exchange.query.type && response->klass == exchange.query.klass;
  if (!matches) return;  // Forged or stray: keep waiting for the real one.
  if (response->truncated && transport == Transport::Udp) {
    if (!start_tcp(exchange)) try_next(exchange);
    return;
  }
  const Rcode rcode = response->rcode;
  std::string reply = adapt_response(std::move(packet), *response, exchange.query);
  if (!worth_another_server(rcode)) return finish(exchange, std::move(reply));
  exchange.failure = std::move(reply);
  try_next(exchange);
}

void Forwarder::State::on_stream(Exchange& exchange, std::string_view bytes) {
  exchange.inbox += bytes;
  if (exchange.inbox.size() < 2) return;
  if (exchange.inbox.size() > message_bytes_max + 2) return try_next(exchange);
  const size_t length = static_cast<size_t>(static_cast<uint8_t>(exchange.inbox[0])) << 8 |
                        static_cast<uint8_t>(exchange.inbox[1]);
  if (exchange.inbox.size() - 2 < length) return;
  on_message(exchange, exchange.inbox.substr(2, length), Transport::Tcp);
}

void Forwarder::State::finish(Exchange& exchange, std::string reply) {
  // Out of the table first: `done` may ask the next question.
  const auto found = exchanges.find(exchange.key);
  const std::unique_ptr<Exchange> finished = std::move(found->second);
  exchanges.erase(found);
  finished->done(std::move(reply));
}

Forwarder::Forwarder(uv_loop_t* loop, ForwarderOptions options)
    : state_(std::make_unique<State>()) {
  state_->loop = loop;
  state_->options = std::move(options);
}

Forwarder::~Forwarder() = default;

size_t Forwarder::outstanding() const { return state_->exchanges.size(); }

void Forwarder::ask(Query query, Done done) {
  state_->refresh_upstreams();
  auto timer = base::make_handle<uv_timer_t>(
      [&](uv_timer_t* handle) { return uv_timer_init(state_->loop, handle); });
  const bool full = state_->exchanges.size() >= state_->options.outstanding_max;
  if (full || state_->options.upstreams.empty() || !timer) return done(server_failure(query));
  auto exchange = std::make_unique<Exchange>();
  exchange->owner = state_.get();
  exchange->key = state_->next_key++;
  exchange->done = std::move(done);
  exchange->query = std::move(query);
  exchange->upstreams = state_->options.upstreams;
  exchange->timer = std::move(*timer);
  exchange->timer->data = exchange.get();
  Exchange& started = *exchange;
  state_->exchanges.emplace(started.key, std::move(exchange));
  state_->try_next(started);
}

}  // namespace dns
