/// Server and forwarder over real sockets of the loopback interface; the test plays the clients
/// and the upstream servers, all in one thread.

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/deadline.h"
#include "base/file.h"
#include "dns/forwarder.h"
#include "dns/server.h"

namespace {

constexpr int wait_ms_max = 5'000;
const std::string record("\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x0a\1\2\3",
                         16);  // A 10.1.2.3 of the question

/// A loop that runs until something can be seen from outside of it.
class Loop {
 public:
  Loop() { REQUIRE(uv_loop_init(&loop_) == 0); }
  ~Loop() {
    uv_run(&loop_, UV_RUN_DEFAULT);  // Close callbacks; everything else is gone by now.
    CHECK(uv_loop_close(&loop_) == 0);
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  uv_loop_t* get() { return &loop_; }

  bool run_until_readable(int fd) {
    return run(fd, [fd] {
      pollfd waited{.fd = fd, .events = POLLIN, .revents = 0};
      return ::poll(&waited, 1, 0) > 0;
    });
  }
  bool run_until(const std::function<bool()>& done) { return run(-1, done); }

 private:
  bool run(int fd, const std::function<bool()>& done) {
    const auto deadline = base::Deadline::in_ms(wait_ms_max);
    while (!done()) {
      const int left = deadline.remaining_ms();
      if (left == 0) return false;
      const int timer = uv_backend_timeout(&loop_);
      pollfd waited[] = {{.fd = uv_backend_fd(&loop_), .events = POLLIN, .revents = 0},
                         {.fd = fd, .events = POLLIN, .revents = 0}};
      ::poll(waited, 2, timer < 0 ? left : std::min(timer, left));
      uv_run(&loop_, UV_RUN_NOWAIT);
    }
    return true;
  }
  uv_loop_t loop_{};
};

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

uint16_t port_of(int socket) {
  sockaddr_in address{};
  socklen_t length = sizeof address;
  REQUIRE(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  return ntohs(address.sin_port);
}

base::UniqueFd bound(int type, uint16_t port = 0) {
  base::UniqueFd socket(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_in address = loopback(port);
  REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  if (type == SOCK_STREAM) REQUIRE(::listen(socket.get(), 8) == 0);
  return socket;
}

base::UniqueFd connected(int type, uint16_t port) {
  base::UniqueFd socket(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback(port);
  REQUIRE(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
          0);
  return socket;
}

void send_all(int socket, const std::string& bytes) {
  REQUIRE(::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(bytes.size()));
}

/// What is there now; empty at the end of the stream.
std::string receive(int socket) {
  std::string bytes(65536, '\0');
  const ssize_t count = ::recv(socket, bytes.data(), bytes.size(), MSG_DONTWAIT);
  REQUIRE(count >= 0);
  bytes.resize(static_cast<size_t>(count));
  return bytes;
}

std::string query_bytes(const std::string& name, char id) {
  std::string bytes("\0\0\1\0\0\1\0\0\0\0\0\0", 12);
  bytes[1] = id;
  return bytes + dns::name_from_text(name).value().wire + std::string("\0\1\0\1", 4);
}

dns::Query query(const std::string& name, char id = 7) {
  return std::get<dns::Query>(dns::parse_query(query_bytes(name, id)));
}

std::string framed(const std::string& message) {
  return std::string{static_cast<char>(message.size() >> 8),
                     static_cast<char>(message.size() & 255)} +
         message;
}

/// An upstream's answer to a query as it came, with `records` times the same address.
std::string answer_to(const std::string& asked, size_t records = 1) {
  const auto read = dns::read_name(asked, dns::header_bytes);
  REQUIRE(read);
  std::string bytes = asked.substr(0, read->end + 4);
  bytes[2] = '\x81';
  bytes[3] = '\x80';
  bytes[7] = static_cast<char>(records);
  bytes[11] = 0;
  for (size_t i = 0; i < records; ++i) bytes += record;
  return bytes;
}

unsigned rcode_of(const std::string& message) {
  REQUIRE(message.size() >= dns::header_bytes);
  return static_cast<uint8_t>(message[3]) & 15;
}

bool truncated(const std::string& message) { return (message.at(2) & 2) != 0; }

/// A name server that answers what the test tells it to.
struct FakeUpstream {
  base::UniqueFd udp = bound(SOCK_DGRAM);
  uint16_t port = port_of(udp.get());
  sockaddr_in asker{};

  std::string next_query(Loop& loop) {
    REQUIRE(loop.run_until_readable(udp.get()));
    std::string bytes(2048, '\0');
    socklen_t length = sizeof asker;
    const ssize_t count = ::recvfrom(udp.get(), bytes.data(), bytes.size(), 0,
                                     reinterpret_cast<sockaddr*>(&asker), &length);
    REQUIRE(count > 0);
    bytes.resize(static_cast<size_t>(count));
    return bytes;
  }
  void reply(const std::string& bytes) const {
    REQUIRE(::sendto(udp.get(), bytes.data(), bytes.size(), 0,
                     reinterpret_cast<const sockaddr*>(&asker),
                     sizeof asker) == static_cast<ssize_t>(bytes.size()));
  }
  dns::Upstream address() const { return dns::parse_upstream("127.0.0.1", port).value(); }
};

struct Asking {
  Loop loop;
  FakeUpstream first;
  FakeUpstream second;
  std::string reply;
  int replies = 0;

  dns::Forwarder::Done keep() {
    return [this](std::string bytes) {
      reply = std::move(bytes);
      ++replies;
    };
  }
  dns::ForwarderOptions options(std::vector<dns::Upstream> upstreams) const {
    dns::ForwarderOptions made;
    made.resolv_conf.clear();
    made.upstreams = std::move(upstreams);
    return made;
  }
  bool answered() {
    return loop.run_until([this] { return replies > 0; });
  }
};

struct Serving {
  Loop loop;
  FakeUpstream upstream;
  dns::Zone zone;
  std::unique_ptr<dns::Forwarder> forwarder;
  std::unique_ptr<dns::Server> server;
  uint16_t udp_port = 0;
  uint16_t tcp_port = 0;

  explicit Serving(dns::ServerOptions options = {}) {
    REQUIRE(zone.add("web", dns::Ipv4{0x0A010203}));
    dns::ForwarderOptions forward;
    forward.resolv_conf.clear();
    forward.upstreams = {upstream.address()};
    forwarder = std::make_unique<dns::Forwarder>(loop.get(), forward);
    auto udp = bound(SOCK_DGRAM);
    auto tcp = bound(SOCK_STREAM);
    udp_port = port_of(udp.get());
    tcp_port = port_of(tcp.get());
    auto made = dns::Server::create(loop.get(), std::move(udp), std::move(tcp), zone,
                                    forwarder.get(), std::move(options));
    REQUIRE(made);
    server = std::move(*made);
  }
  /// A client whose connection the server has taken.
  base::UniqueFd client(size_t connections_after) {
    auto socket = connected(SOCK_STREAM, tcp_port);
    send_all(socket.get(), framed(query_bytes("web", 1)));
    REQUIRE(loop.run_until_readable(socket.get()));
    CHECK(rcode_of(receive(socket.get()).substr(2)) == 0);
    CHECK(server->tcp_connections() == connections_after);
    return socket;
  }
};

}  // namespace

TEST_CASE("only an answer with the right id and question counts") {
  Asking test;
  dns::Forwarder forwarder(test.loop.get(), test.options({test.first.address()}));
  forwarder.ask(query("a.example"), test.keep());
  const std::string asked = test.first.next_query(test.loop);
  std::string other_id = answer_to(asked);
  other_id[0] = static_cast<char>(other_id[0] ^ 1);
  std::string other_name = answer_to(asked);
  other_name[dns::header_bytes + 1] = 'b';
  const std::string last_marked = answer_to(asked, 2);

  for (const std::string& packet : {other_id, other_name, std::string("x"), last_marked})
    test.first.reply(packet);

  REQUIRE(test.answered());
  CHECK(test.replies == 1);
  CHECK(test.reply.substr(0, 2) == std::string("\0\7", 2));  // The asker's id, not ours.
  CHECK(test.reply[7] == 2);
  CHECK(forwarder.outstanding() == 0);
}

TEST_CASE("each query leaves from a port of its own") {
  Asking test;
  dns::Forwarder forwarder(test.loop.get(), test.options({test.first.address()}));
  forwarder.ask(query("a.example"), test.keep());
  forwarder.ask(query("b.example"), test.keep());
  test.first.next_query(test.loop);
  const uint16_t port = test.first.asker.sin_port;
  test.first.next_query(test.loop);
  CHECK(test.first.asker.sin_port != port);
}

TEST_CASE("a silent server is given up after its time, and the next one is asked") {
  Asking test;
  auto options = test.options({test.first.address(), test.second.address()});
  options.timeout_ms = 30;
  dns::Forwarder forwarder(test.loop.get(), options);
  forwarder.ask(query("a.example"), test.keep());
  test.first.next_query(test.loop);
  test.second.reply(answer_to(test.second.next_query(test.loop)));
  REQUIRE(test.answered());
  CHECK(rcode_of(test.reply) == 0);
}

TEST_CASE("where every server is silent the asker hears SERVFAIL") {
  Asking test;
  auto options = test.options({test.first.address()});
  options.timeout_ms = 10;
  dns::Forwarder forwarder(test.loop.get(), options);
  forwarder.ask(query("a.example"), test.keep());
  REQUIRE(test.answered());
  CHECK(rcode_of(test.reply) == 2);
}

TEST_CASE("another server may improve on a SERVFAIL, but not on an NXDOMAIN") {
  Asking test;
  dns::Forwarder forwarder(test.loop.get(),
                           test.options({test.first.address(), test.second.address()}));
  forwarder.ask(query("a.example"), test.keep());
  std::string failed = answer_to(test.first.next_query(test.loop), 0);
  failed[3] = '\x82';
  test.first.reply(failed);
  std::string missing = answer_to(test.second.next_query(test.loop), 0);
  missing[3] = '\x83';
  test.second.reply(missing);
  REQUIRE(test.answered());
  CHECK(rcode_of(test.reply) == 3);
}

TEST_CASE("a truncated answer is fetched by TCP, also when it comes byte by byte") {
  Asking test;
  const auto listener = bound(SOCK_STREAM, test.first.port);
  dns::Forwarder forwarder(test.loop.get(), test.options({test.first.address()}));
  forwarder.ask(query("a.example"), test.keep());
  std::string cut = answer_to(test.first.next_query(test.loop), 0);
  cut[2] = static_cast<char>(cut[2] | 2);
  test.first.reply(cut);
  REQUIRE(test.loop.run_until_readable(listener.get()));
  const base::UniqueFd stream(::accept(listener.get(), nullptr, nullptr));
  REQUIRE(test.loop.run_until_readable(stream.get()));
  const std::string reply = framed(answer_to(receive(stream.get()).substr(2), 100));
  send_all(stream.get(), reply.substr(0, 1));
  uv_run(test.loop.get(), UV_RUN_NOWAIT);
  send_all(stream.get(), reply.substr(1));
  REQUIRE(test.answered());
  CHECK(test.reply.size() + 2 == reply.size());
  CHECK(!truncated(test.reply));
}

TEST_CASE("questions beyond the bound fail at once instead of piling up") {
  Asking test;
  auto options = test.options({test.first.address()});
  options.outstanding_max = 2;
  dns::Forwarder forwarder(test.loop.get(), options);
  forwarder.ask(query("a.example"), test.keep());
  forwarder.ask(query("b.example"), test.keep());
  CHECK(test.replies == 0);
  forwarder.ask(query("c.example"), test.keep());
  CHECK(test.replies == 1);
  CHECK(rcode_of(test.reply) == 2);
  CHECK(forwarder.outstanding() == 2);
}

TEST_CASE("a changed resolv.conf is read before the next question") {
  Asking test;
  std::string folder = "/tmp/dns-test-XXXXXX";
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  dns::ForwarderOptions options;
  options.resolv_conf = folder + "/resolv.conf";
  REQUIRE(base::write_file_atomically(options.resolv_conf, "# nobody yet\n"));
  dns::Forwarder forwarder(test.loop.get(), options);
  forwarder.ask(query("a.example"), test.keep());
  CHECK(test.replies == 1);
  REQUIRE(base::write_file_atomically(options.resolv_conf, "nameserver 127.77.0.53\n"));
  forwarder.ask(query("a.example"), test.keep());
  CHECK(test.replies == 1);
  CHECK(forwarder.outstanding() == 1);
  static_cast<void>(base::remove_tree(folder));
}

TEST_CASE("packets that are no queries vanish, and the next query is answered") {
  Serving test;
  const auto client = connected(SOCK_DGRAM, test.udp_port);
  std::string response = query_bytes("web", 2);
  response[2] = static_cast<char>(response[2] | 0x80);
  for (const std::string& packet : {std::string("\1"), response, query_bytes("web", 3)})
    send_all(client.get(), packet);
  REQUIRE(test.loop.run_until_readable(client.get()));
  const std::string reply = receive(client.get());
  CHECK(reply[1] == 3);
  CHECK(reply.find(std::string("\x0a\1\2\3", 4)) != std::string::npos);
}

TEST_CASE("a large upstream answer is cut for UDP and whole by TCP") {
  Serving test;
  const auto udp = connected(SOCK_DGRAM, test.udp_port);
  send_all(udp.get(), query_bytes("a.example", 4));
  test.upstream.reply(answer_to(test.upstream.next_query(test.loop), 40));
  REQUIRE(test.loop.run_until_readable(udp.get()));
  const std::string cut = receive(udp.get());
  const auto tcp = connected(SOCK_STREAM, test.tcp_port);
  send_all(tcp.get(), framed(query_bytes("a.example", 5)));
  test.upstream.reply(answer_to(test.upstream.next_query(test.loop), 40));
  REQUIRE(test.loop.run_until_readable(tcp.get()));
  const std::string whole = receive(tcp.get()).substr(2);

  CHECK(truncated(cut));
  CHECK(cut.size() <= dns::udp_reply_bytes_without_edns);
  CHECK(!truncated(whole));
  CHECK(whole.size() > 40 * record.size());
}

TEST_CASE("queries in one stream are answered in order, wherever their bytes were split") {
  Serving test;
  const auto client = test.client(1);
  const std::string bytes = framed(query_bytes("web", 5)) + framed(query_bytes("none", 6));
  send_all(client.get(), bytes.substr(0, 1));
  uv_run(test.loop.get(), UV_RUN_NOWAIT);
  send_all(client.get(), bytes.substr(1));
  std::string replies;
  const bool complete = test.loop.run_until([&] {
    char buffer[512];
    const ssize_t count = ::recv(client.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (count > 0) replies.append(buffer, static_cast<size_t>(count));
    return replies.size() >= 2 * (2 + dns::header_bytes + 9) + 16;
  });
  REQUIRE(complete);
  const size_t second = 2 + static_cast<uint8_t>(replies[1]);
  CHECK(replies[3] == 5);
  CHECK(replies.at(second + 3) == 6);
  CHECK(rcode_of(replies.substr(second + 2)) == 3);
}

TEST_CASE("a connection without a whole query is closed after its time") {
  dns::ServerOptions options;
  options.tcp_idle_ms = 30;
  Serving test(options);
  const auto client = test.client(1);
  send_all(client.get(), "\1");  // A length that never becomes a query.
  REQUIRE(test.loop.run_until_readable(client.get()));
  CHECK(receive(client.get()).empty());
  CHECK(test.server->tcp_connections() == 0);
}

TEST_CASE("when all places are taken the longest silent connection makes room") {
  dns::ServerOptions options;
  options.tcp_connections_max = 2;
  Serving test(options);
  const auto first = test.client(1);
  const auto second = test.client(2);
  const auto third = test.client(2);
  REQUIRE(test.loop.run_until_readable(first.get()));
  CHECK(receive(first.get()).empty());
}

TEST_CASE("a stream that carries no query is closed") {
  Serving test;
  const auto client = test.client(1);
  std::string response = query_bytes("web", 2);
  response[2] = static_cast<char>(response[2] | 0x80);
  send_all(client.get(), framed(response));
  REQUIRE(test.loop.run_until_readable(client.get()));
  CHECK(receive(client.get()).empty());
  CHECK(test.server->tcp_connections() == 0);
}
