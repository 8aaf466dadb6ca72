/// Networks for real: namespaces, bridges, TAPs, pasta; raw frames in place of guests.
///
/// Everything runs in a network namespace of the test's own, whose one interface plays the host's
/// network. The same tests run as root and, started again by the last one, as an ordinary user.

#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "base/file.h"
#include "base/process.h"
#include "base/text.h"
#include "dns/wire.h"
#include "network/driver.h"
#include "network/names.h"
#include "network/namespace.h"
#include "network/netlink.h"
#include "network/state.h"

namespace {

using base::ErrorCode;
using network::NetworkDriver;
using reconciler::NetworkLease;

constexpr int frame_timeout_ms = 5'000;
constexpr const char* host_address = "10.99.0.1";
constexpr uid_t ordinary_user = 65534;

template <class T>
T must(base::Result<T>&& result) {
  if (!result) FAIL(result.error().to_string());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

void run(const std::vector<std::string>& arguments) {
  const auto done = must(base::run_process(arguments, base::Deadline::in_ms(10'000)));
  INFO(done.output);
  REQUIRE(done.exit_code == 0);
}

/// At once; whether its parent has collected it yet does not matter.
bool has_ended(const base::ProcessIdentity& process) {
  const auto opened = base::open_process(process);
  return !opened || base::await_process(opened->get(), process.pid, base::Deadline::in_ms(0));
}

constexpr const char* own_host_variable = "NETWORK_TEST_OWN_HOST";

/// False, with the reason, where these tests would have no host of their own to play with.
bool can_have_own_host() {
  if (::getenv(own_host_variable) != nullptr) return true;  // Started by the root run below.
  const pid_t child = ::fork();
  if (child == 0) ::_exit(::geteuid() == 0 && ::unshare(CLONE_NEWNET) == 0 ? 0 : 1);
  int status = 1;
  if (child > 0 && ::waitpid(child, &status, 0) == child && status == 0) return true;
  std::fputs("skipped: network tests need root and the right to make network namespaces\n", stderr);
  return false;
}

/// A "host" with one address, a default route, and nothing of the real one. Root only.
void enter_own_host() {
  static bool entered = false;
  if (entered || ::geteuid() != 0) return;
  entered = true;
  REQUIRE(::unshare(CLONE_NEWNET) == 0);
  run({"/usr/sbin/ip", "link", "set", "lo", "up"});
  run({"/usr/sbin/ip", "link", "add", "h0", "type", "veth", "peer", "name", "h1"});
  run({"/usr/sbin/ip", "address", "add", "10.99.0.1/24", "dev", "h0"});
  run({"/usr/sbin/ip", "link", "set", "h1", "up"});
  run({"/usr/sbin/ip", "link", "set", "h0", "up"});
  run({"/usr/sbin/ip", "route", "add", "default", "via", "10.99.0.2"});
  run({"/usr/sbin/ip", "address", "add", "169.254.169.254/32", "dev", "lo"});
}

/// A driver on folders of its own; the networks made through it end with it.
struct System {
  std::string root;
  std::string way_out;
  std::string programs;
  std::unique_ptr<NetworkDriver> driver;
  std::vector<std::pair<std::string, std::string>> leases;

  explicit System(std::string forced_way_out = "",
                  std::string its_programs = CONTAINER_BINARY_DIR "/bin")
      : way_out(std::move(forced_way_out)), programs(std::move(its_programs)) {
    enter_own_host();
    std::string pattern = "/tmp/network-test-XXXXXX";
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    root = pattern;
    open();
  }
  ~System() {
    for (const auto& [network, container] : leases)
      static_cast<void>(driver->release(network, container));
    for (const auto& network :
         driver->list().value_or(std::vector<reconciler::NetworkObservation>{}))
      static_cast<void>(driver->remove(network.name));
    static_cast<void>(base::remove_tree(root));
  }
  void open() {
    driver = must(NetworkDriver::create({.run_root = root + "/run",
                                         .state_root = root + "/state",
                                         .programs = programs,
                                         .log_root = root + "/log",
                                         .way_out = way_out,
                                         .domain = "test"}));
  }
  NetworkLease lease(const std::string& network, const std::string& container) {
    leases.emplace_back(network, container);
    return must(driver->lease(
        {.network = network, .container = container, .names = {container, "service"}}));
  }
  std::string state_file(const std::string& network) const {
    return root + "/state/networks/" + network::folder_name(network) + "/state.json";
  }
  network::Keeper keeper(const std::string& network) const {
    return must(network::open_keeper(*must(network::load_state(state_file(network))).keeper));
  }
  /// The process that serves the network, found by its lock.
  int64_t server_pid(const std::string& network) const {
    const std::string folder = root + "/run/networks/" + network::folder_name(network);
    const auto found = must(base::run_process({"/usr/bin/pgrep", "-f", "--", "--run " + folder},
                                              base::Deadline::in_ms(5'000)));
    return std::atoll(found.output.c_str());
  }
};

/// PATH as a host would have it where pasta is not, or is a script of ours.
class OtherPath {
 public:
  explicit OtherPath(const std::string& folder) : before_(::getenv("PATH")) {
    ::setenv("PATH", folder.c_str(), 1);
  }
  ~OtherPath() { ::setenv("PATH", before_.c_str(), 1); }
  OtherPath(const OtherPath&) = delete;
  OtherPath& operator=(const OtherPath&) = delete;

 private:
  std::string before_;
};

void put_16(std::string& bytes, unsigned value) {
  bytes.push_back(static_cast<char>(value >> 8 & 255));
  bytes.push_back(static_cast<char>(value & 255));
}

std::string mac_bytes(const std::string& mac) {
  std::string bytes;
  for (const std::string& part : base::split(mac, ':'))
    bytes.push_back(static_cast<char>(std::stoi(part, nullptr, 16)));
  return bytes;
}

std::string address_bytes(const std::string& cidr) {
  const auto address = must(dns::parse_ipv4(cidr.substr(0, cidr.find('/'))));
  std::string bytes;
  put_16(bytes, address.value >> 16);
  put_16(bytes, address.value & 0xFFFF);
  return bytes;
}

unsigned internet_checksum(const std::string& bytes) {
  unsigned sum = 0;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2)
    sum += static_cast<unsigned>(static_cast<uint8_t>(bytes[i]) << 8 |
                                 static_cast<uint8_t>(bytes[i + 1]));
  while (sum > 0xFFFF) sum = (sum & 0xFFFF) + (sum >> 16);
  return ~sum & 0xFFFF;
}

/// Plays the guest at the other end of a TAP.
class Guest {
 public:
  explicit Guest(NetworkLease lease) : lease_(std::move(lease)) { REQUIRE(lease_.tap); }
  const NetworkLease& lease() const { return lease_; }

  void send(const std::string& frame) {
    const std::string bytes = std::string(12, '\0') + frame;  // vnet header: nothing offloaded
    REQUIRE(::write(lease_.tap->get(), bytes.data(), bytes.size()) ==
            static_cast<ssize_t>(bytes.size()));
  }
  /// The first frame that `wanted` likes; empty if none comes.
  template <class Wanted>
  std::string receive(const Wanted& wanted) {
    const auto deadline = base::Deadline::in_ms(frame_timeout_ms);
    for (;;) {
      pollfd waited{.fd = lease_.tap->get(), .events = POLLIN, .revents = 0};
      if (::poll(&waited, 1, deadline.remaining_ms()) <= 0) return "";
      char buffer[65536];
      const ssize_t count = ::read(lease_.tap->get(), buffer, sizeof buffer);
      if (count < 12 + 14) continue;
      const std::string frame(buffer + 12, static_cast<size_t>(count) - 12);
      if (wanted(frame)) return frame;
    }
  }
  std::string ethernet(const std::string& to, unsigned type) const {
    std::string frame = to + mac_bytes(lease_.mac);
    put_16(frame, type);
    return frame;
  }
  /// Asks by ARP who has `address`; its MAC's six bytes.
  std::string resolve(const std::string& address) {
    std::string frame = ethernet(std::string(6, '\xff'), 0x0806);
    for (const unsigned value : {0x0001U, 0x0800U, 0x0604U, 0x0001U}) put_16(frame, value);
    frame += mac_bytes(lease_.mac) + address_bytes(lease_.address) + std::string(6, '\0') +
             address_bytes(address);
    send(frame);
    const std::string reply = receive([&](const std::string& got) {
      return got.substr(12, 2) == std::string("\x08\x06", 2) && got[21] == 2 &&
             got.substr(28, 4) == address_bytes(address);
    });
    return reply.empty() ? "" : reply.substr(22, 6);
  }
  void send_udp(const std::string& from, const std::string& to, uint16_t port,
                const std::string& payload) {
    if (gateway_mac_.empty()) gateway_mac_ = resolve(lease_.dns_server);
    REQUIRE(gateway_mac_.size() == 6);
    std::string ip("\x45\0", 2);
    put_16(ip, static_cast<unsigned>(28 + payload.size()));
    put_16(ip, 1);
    ip += std::string("\0\0\x40\x11\0\0", 6) + address_bytes(from) + address_bytes(to);
    const unsigned sum = internet_checksum(ip);
    ip[10] = static_cast<char>(sum >> 8);
    ip[11] = static_cast<char>(sum & 255);
    put_16(ip, 4242);
    put_16(ip, port);
    put_16(ip, static_cast<unsigned>(8 + payload.size()));
    put_16(ip, 0);  // No checksum: allowed for UDP over IPv4.
    send(ethernet(gateway_mac_, 0x0800) + ip + payload);
  }
  /// The payload of the next UDP packet from `port`; empty if none comes.
  std::string receive_udp(uint16_t port) {
    std::string wanted_port;
    put_16(wanted_port, port);
    const std::string frame = receive([&](const std::string& got) {
      return got.size() >= 42 && got.substr(12, 2) == std::string("\x08\0", 2) && got[23] == 17 &&
             got.substr(34, 2) == wanted_port;
    });
    if (frame.empty()) return "";
    const size_t length =
        static_cast<size_t>(static_cast<uint8_t>(frame[38])) << 8 | static_cast<uint8_t>(frame[39]);
    return frame.substr(42, length - 8);
  }
  void ask(const std::string& name, uint16_t type, uint16_t id, const std::string& from) {
    const auto wire = dns::name_from_text(name);
    REQUIRE(wire);
    std::string question = wire->wire;
    put_16(question, type);
    put_16(question, 1);
    dns::Query query;
    query.question = question;
    send_udp(from, lease_.dns_server, 53, dns::build_query(query, id));
  }
  struct DnsAnswer {
    uint16_t id = 0;
    dns::Rcode rcode = dns::Rcode::ServerFailure;
    std::string last_address;  ///< Of the last A record.
    unsigned answers = 0;
  };
  DnsAnswer receive_answer() {
    const std::string packet = receive_udp(53);
    const auto response = dns::parse_response(packet);
    REQUIRE(response);
    DnsAnswer answer{.id = response->id, .rcode = response->rcode};
    answer.answers = static_cast<uint8_t>(packet[7]);
    const size_t records_end = response->opt_offset.value_or(packet.size());
    if (answer.answers > 0) answer.last_address = packet.substr(records_end - 4, 4);
    return answer;
  }
  DnsAnswer lookup(const std::string& name, uint16_t type = dns::type::a) {
    ask(name, type, ++next_id_, lease_.address);
    const DnsAnswer answer = receive_answer();
    CHECK(answer.id == next_id_);
    return answer;
  }

 private:
  NetworkLease lease_;
  std::string gateway_mac_;
  uint16_t next_id_ = 100;
};

base::UniqueFd bound_socket(int type, const char* address, uint16_t& port) {
  base::UniqueFd socket(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(port);
  ::inet_pton(AF_INET, address, &name.sin_addr);
  REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0);
  socklen_t length = sizeof name;
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&name), &length);
  port = ntohs(name.sin_port);
  return socket;
}

bool readable(int socket) {
  pollfd waited{.fd = socket, .events = POLLIN, .revents = 0};
  return ::poll(&waited, 1, frame_timeout_ms) > 0;
}

std::string read_to_end(int socket) {
  std::string all;
  char buffer[65536];
  while (readable(socket)) {
    const ssize_t count = ::recv(socket, buffer, sizeof buffer, 0);
    if (count <= 0) break;
    all.append(buffer, static_cast<size_t>(count));
  }
  return all;
}

/// As many bytes, or fewer if they stop coming.
std::string read_exactly(int socket, size_t count) {
  std::string all;
  char buffer[65536];
  while (all.size() < count && readable(socket)) {
    const ssize_t got = ::recv(socket, buffer, std::min(sizeof buffer, count - all.size()), 0);
    if (got <= 0) break;
    all.append(buffer, static_cast<size_t>(got));
  }
  return all;
}

/// Gives the namespace itself the container's address, so that ordinary sockets can play it.
void own_address(const System& system, const std::string& network, const NetworkLease& lease) {
  const auto address = must(dns::parse_ipv4(lease.address.substr(0, lease.address.find('/'))));
  must(network::run_inside(
      system.keeper(network), "own the address",
      [&]() -> base::Result<network::InsideResult> {
        auto netlink = TRY(network::Netlink::create());
        TRY(netlink.add_address("lo", address, 32));
        return network::InsideResult{};
      },
      base::Deadline::in_ms(5'000)));
}

base::UniqueFd listen_inside(const System& system, const std::string& network, int type,
                             const NetworkLease& lease, uint16_t port) {
  auto result = must(network::run_inside(
      system.keeper(network), "listen",
      [&]() -> base::Result<network::InsideResult> {
        uint16_t chosen = port;
        network::InsideResult made;
        made.descriptors.push_back(
            bound_socket(type, lease.address.substr(0, lease.address.find('/')).c_str(), chosen));
        if (type == SOCK_STREAM) ::listen(made.descriptors.back().get(), 8);
        return made;
      },
      base::Deadline::in_ms(5'000)));
  return std::move(result.descriptors.front());
}

/// A socket of the namespace itself on its way to `address`, past the guests' packet filter.
base::UniqueFd connect_out(const System& system, const std::string& network, int type,
                           const char* address, uint16_t port) {
  auto result = must(network::run_inside(
      system.keeper(network), "connect",
      [&]() -> base::Result<network::InsideResult> {
        network::InsideResult made;
        base::UniqueFd socket(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        sockaddr_in name{};
        name.sin_family = AF_INET;
        name.sin_port = htons(port);
        ::inet_pton(AF_INET, address, &name.sin_addr);
        if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 &&
            errno != EINPROGRESS)
          return base::fail_errno(errno, "connect");
        made.descriptors.push_back(std::move(socket));
        return made;
      },
      base::Deadline::in_ms(5'000)));
  must(base::set_nonblocking(result.descriptors.front().get(), false));
  return std::move(result.descriptors.front());
}

/// Sends and shuts this direction down; the other end may still speak.
void say_and_shut(int socket, const std::string& bytes) {
  static_cast<void>(base::write_all(socket, bytes));
  ::shutdown(socket, SHUT_WR);
}

/// `first` says all it has and shuts its direction down, then `second` answers as much: whether
/// both heard every byte once, and then the end.
bool talk_half_closed(int first, int second) {
  const std::string bytes = base::random_hex(2 << 20);
  const auto carried = [&](int from, int to) {
    std::thread saying([&] { say_and_shut(from, bytes); });
    const bool whole = read_to_end(to) == bytes;
    saying.join();
    char byte = 0;
    return whole && ::recv(to, &byte, 1, MSG_DONTWAIT) == 0;
  };
  return carried(first, second) && carried(second, first);
}

/// The guest's packet arrives outside, and the answer at the guest.
void check_that_it_reaches_out(Guest& guest, uint16_t port) {
  const auto outside = bound_socket(SOCK_DGRAM, host_address, port);
  guest.send_udp(guest.lease().address, host_address, port, "hello");
  REQUIRE(readable(outside.get()));
  char buffer[64];
  sockaddr_in from{};
  socklen_t length = sizeof from;
  const ssize_t count = ::recvfrom(outside.get(), buffer, sizeof buffer, 0,
                                   reinterpret_cast<sockaddr*>(&from), &length);
  CHECK(std::string(buffer, static_cast<size_t>(std::max<ssize_t>(count, 0))) == "hello");
  ::sendto(outside.get(), "back", 4, 0, reinterpret_cast<const sockaddr*>(&from), length);
  CHECK(guest.receive_udp(port) == "back");
}

network::UplinkState uplink_of(const System& system, const std::string& network) {
  const auto state = must(network::load_state(system.state_file(network)));
  REQUIRE(state.uplink);
  return *state.uplink;
}

base::UniqueFd connect_host(int type, uint16_t port) {
  base::UniqueFd socket(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(port);
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0);
  return socket;
}

}  // namespace

TEST_SUITE_BEGIN("network" * doctest::skip(!can_have_own_host()));

TEST_CASE("guests find the gateway and each other's names, and only announced ones") {
  System system;
  const auto made = must(system.driver->create({.name = "shop_default"}));
  CHECK(made.subnet == "192.168.64.0/24");
  CHECK(made.gateway == "192.168.64.1");
  CHECK(made.alive);
  Guest web(system.lease("shop_default", "web"));
  Guest db(system.lease("shop_default", "db"));
  CHECK(web.lease().address == "192.168.64.2/24");
  CHECK(db.lease().address == "192.168.64.3/24");
  CHECK(web.lease().mac != db.lease().mac);

  CHECK(web.resolve("192.168.64.1").size() == 6);
  CHECK(web.resolve("192.168.64.3") == mac_bytes(db.lease().mac));
  CHECK(web.lookup("db").rcode == dns::Rcode::NameError);
  must(system.driver->announce("shop_default", "db", true));
  CHECK(web.lookup("db").last_address == address_bytes("192.168.64.3"));
  CHECK(web.lookup("DB.test").last_address == address_bytes("192.168.64.3"));
  const auto no_data = web.lookup("db", dns::type::aaaa);
  CHECK(no_data.rcode == dns::Rcode::NoError);
  CHECK(no_data.answers == 0);
  must(system.driver->announce("shop_default", "web", true));
  CHECK(web.lookup("service").answers == 2);
  must(system.driver->announce("shop_default", "db", false));
  CHECK(web.lookup("db").rcode == dns::Rcode::NameError);
}

TEST_CASE("a guest cannot speak with another's address or MAC") {
  System system;
  must(system.driver->create({.name = "net"}));
  Guest honest(system.lease("net", "honest"));
  Guest liar(system.lease("net", "liar"));

  liar.ask("nothing", dns::type::a, 7, honest.lease().address);  // Must vanish …
  CHECK(liar.lookup("nothing").id != 7);                         // … so the next one is answered.

  const auto is_probe = [](const std::string& frame) {
    return frame.find("probe-") != std::string::npos;
  };
  const auto probe = [&](const std::string& source_mac, const std::string& text) {
    std::string frame = mac_bytes(honest.lease().mac) + source_mac;
    put_16(frame, 0x0800);
    std::string ip("\x45\0", 2);
    put_16(ip, static_cast<unsigned>(20 + text.size()));
    ip += std::string("\0\0\0\0\x40\xfd\0\0", 8) + address_bytes(liar.lease().address) +
          address_bytes(honest.lease().address);
    const unsigned sum = internet_checksum(ip);
    ip[10] = static_cast<char>(sum >> 8);
    ip[11] = static_cast<char>(sum & 255);
    liar.send(frame + ip + text);
  };
  probe(mac_bytes("02:11:22:33:44:55"), "probe-forged-mac");
  probe(mac_bytes(liar.lease().mac), "probe-honest-mac");
  CHECK(honest.receive(is_probe).find("probe-honest-mac") != std::string::npos);
}

TEST_CASE("the network outlives kill -9 of its process, and the next call takes it over") {
  System system;
  must(system.driver->create({.name = "net"}));
  Guest first(system.lease("net", "first"));
  Guest second(system.lease("net", "second"));
  must(system.driver->announce("net", "second", true));
  const int64_t before = system.server_pid("net");
  REQUIRE(before > 0);
  const auto identity = must(base::identify_process(before));
  const auto pidfd = must(base::open_process(identity));

  must(base::signal_process(pidfd.get(), SIGKILL));
  must(base::await_process(pidfd.get(), before, base::Deadline::in_ms(5'000)));
  CHECK(must(system.driver->list()).front().alive == false);
  CHECK(first.resolve(second.lease().address) == mac_bytes(second.lease().mac));

  system.open();  // The daemon too is a new one.
  const auto again = must(system.driver->lease({.network = "net", .container = "first"}));
  CHECK(again.address == first.lease().address);
  CHECK(again.mac == first.lease().mac);
  CHECK_MESSAGE(!again.tap, "a TAP in use must not be taken from its VM");
  CHECK(must(system.driver->list()).front().alive);
  CHECK(first.lookup("second").last_address == address_bytes(second.lease().address));
}

TEST_CASE("a killed keeper is replaced while the network lives") {
  System system;
  must(system.driver->create({.name = "net"}));
  Guest first(system.lease("net", "first"));
  const auto keeper = system.keeper("net");
  must(base::signal_process(keeper.pidfd.get(), SIGKILL));
  must(base::await_process(keeper.pidfd.get(), keeper.process.pid, base::Deadline::in_ms(5'000)));
  Guest second(system.lease("net", "second"));
  CHECK(first.resolve(second.lease().address) == mac_bytes(second.lease().mac));
  CHECK(system.keeper("net").process.pid != keeper.process.pid);
}

TEST_CASE("a published TCP port carries both directions, waits for the service, keeps half-close") {
  System system;
  must(system.driver->create({.name = "net"}));
  const auto lease = system.lease("net", "web");
  own_address(system, "net", lease);
  const uint16_t port = must(system.driver->publish(
      {.container = "web", .network = "net", .port = {.published = 0, .target = 8080}}));

  const auto client = connect_host(SOCK_STREAM, port);  // Before anybody listens inside.
  const auto listener = listen_inside(system, "net", SOCK_STREAM, lease, 8080);
  REQUIRE(readable(listener.get()));
  const base::UniqueFd server(::accept(listener.get(), nullptr, nullptr));
  CHECK_MESSAGE(talk_half_closed(client.get(), server.get()), "the client closes first");

  const auto other = connect_host(SOCK_STREAM, port);
  REQUIRE(readable(listener.get()));
  const base::UniqueFd answering(::accept(listener.get(), nullptr, nullptr));
  CHECK_MESSAGE(talk_half_closed(answering.get(), other.get()), "the service closes first");
}

TEST_CASE("a published UDP port answers each client from the port it asked") {
  System system;
  must(system.driver->create({.name = "net"}));
  const auto lease = system.lease("net", "game");
  own_address(system, "net", lease);
  const auto service = listen_inside(system, "net", SOCK_DGRAM, lease, 9000);
  const uint16_t port = must(system.driver->publish(
      {.container = "game",
       .network = "net",
       .port = {.published = 0, .target = 9000, .protocol = spec::Protocol::Udp}}));
  const auto one = connect_host(SOCK_DGRAM, port);
  const auto two = connect_host(SOCK_DGRAM, port);
  for (const auto* client : {&one, &two}) {
    const std::string text = client == &one ? "one" : "two";
    REQUIRE(::send(client->get(), text.data(), text.size(), 0) == 3);
    REQUIRE(readable(service.get()));
    char buffer[64];
    sockaddr_in from{};
    socklen_t length = sizeof from;
    const ssize_t count = ::recvfrom(service.get(), buffer, sizeof buffer, 0,
                                     reinterpret_cast<sockaddr*>(&from), &length);
    ::sendto(service.get(), buffer, static_cast<size_t>(count), 0,
             reinterpret_cast<const sockaddr*>(&from), length);
    REQUIRE(readable(client->get()));
    CHECK(::recv(client->get(), buffer, sizeof buffer, 0) == 3);
    CHECK(std::string(buffer, 3) == text);
  }
}

TEST_CASE("a taken port is Busy, a port of root's is Denied, and both say what to do") {
  System system;
  must(system.driver->create({.name = "net"}));
  system.lease("net", "web");
  uint16_t port = 0;
  const auto other = bound_socket(SOCK_STREAM, "127.0.0.1", port);
  REQUIRE(::listen(other.get(), 1) == 0);
  const auto busy = system.driver->publish(
      {.container = "web", .network = "net", .port = {.published = port, .target = 80}});
  REQUIRE(!busy);
  CHECK(busy.error().code() == ErrorCode::Busy);
  CHECK(busy.error().to_string().find(std::to_string(port)) != std::string::npos);
  if (::geteuid() == 0) return;
  const auto denied = system.driver->publish(
      {.container = "web", .network = "net", .port = {.published = 80, .target = 80}});
  REQUIRE(!denied);
  CHECK(denied.error().code() == ErrorCode::Denied);
  CHECK(denied.error().to_string().find(
            "Permission denied while binding to host port 80. Binding to ports below 1024 "
            "requires root privileges.") != std::string::npos);
}

TEST_CASE("of a range the first free port is taken; a range without one is Busy and named") {
  System system;
  must(system.driver->create({.name = "net"}));
  system.lease("net", "web");
  system.lease("net", "other");
  uint16_t first = 0;
  const auto taken = bound_socket(SOCK_STREAM, "127.0.0.1", first);
  REQUIRE(::listen(taken.get(), 1) == 0);
  const auto last = static_cast<uint16_t>(std::min(first + 20, 65'535));
  const spec::Port range{.published = first, .target = 80, .published_last = last};

  const uint16_t one =
      must(system.driver->publish({.container = "web", .network = "net", .port = range}));
  const uint16_t same =
      must(system.driver->publish({.container = "web", .network = "net", .port = range}));
  const auto none =
      system.driver->publish({.container = "other",
                              .network = "net",
                              .port = {.published = first, .target = 80, .published_last = first}});

  CHECK(one > first);
  CHECK(one <= last);
  CHECK(same == one);
  REQUIRE(!none);
  CHECK(none.error().code() == ErrorCode::Busy);
  CHECK(none.error().to_string().find(fmt::format("{0}-{0}", first)) != std::string::npos);
}

TEST_CASE("published ports come back after kill -9") {
  System system;
  must(system.driver->create({.name = "net"}));
  const auto lease = system.lease("net", "web");
  own_address(system, "net", lease);
  const auto listener = listen_inside(system, "net", SOCK_STREAM, lease, 8080);
  const uint16_t port = must(system.driver->publish(
      {.container = "web", .network = "net", .port = {.published = 0, .target = 8080}}));
  const int64_t pid = system.server_pid("net");
  const auto pidfd = must(base::open_process(must(base::identify_process(pid))));
  must(base::signal_process(pidfd.get(), SIGKILL));
  must(base::await_process(pidfd.get(), pid, base::Deadline::in_ms(5'000)));
  must(system.driver->create({.name = "net"}));
  const auto client = connect_host(SOCK_STREAM, port);
  CHECK(readable(listener.get()));
  must(system.driver->unpublish("net", "web"));
  uint16_t same = port;
  bound_socket(SOCK_DGRAM, "127.0.0.1", same);
  CHECK(read_to_end(client.get()).empty());
}

TEST_CASE("guests reach the host's network, never its loopback or the cloud's metadata") {
  std::string way_out;
  SUBCASE("through pasta") { way_out = "pasta"; }
  SUBCASE("through libslirp") { way_out = "libslirp"; }
  System system{way_out};
  must(system.driver->create({.name = "net"}));
  CHECK(network::name_of(uplink_of(system, "net").kind) == way_out);
  CHECK(system.driver->way_out().name == way_out);
  Guest guest(system.lease("net", "guest"));
  uint16_t port = 7000;
  const auto loopback = bound_socket(SOCK_DGRAM, "127.0.0.1", port);
  const auto metadata = bound_socket(SOCK_DGRAM, "169.254.169.254", port);
  for (const char* forbidden : {"198.18.0.1", "198.18.0.2", "127.0.0.1", "169.254.169.254"})
    guest.send_udp(guest.lease().address, forbidden, port, "forbidden");
  // Past the packet filter of the namespace, the way out itself is the wall.
  const auto inside = connect_out(system, "net", SOCK_DGRAM, "198.18.0.1", port);
  ::send(inside.get(), "forbidden", 9, 0);
  check_that_it_reaches_out(guest, port);
  char byte = 0;
  CHECK(::recv(loopback.get(), &byte, 1, MSG_DONTWAIT) < 0);
  CHECK(::recv(metadata.get(), &byte, 1, MSG_DONTWAIT) < 0);
}

TEST_CASE("the way out carries TCP both ways and whole") {
  std::string way_out;
  SUBCASE("through pasta") { way_out = "pasta"; }
  SUBCASE("through libslirp") { way_out = "libslirp"; }
  System system{way_out};
  must(system.driver->create({.name = "net"}));
  uint16_t port = 0;
  const auto listener = bound_socket(SOCK_STREAM, host_address, port);
  REQUIRE(::listen(listener.get(), 1) == 0);
  const auto client = connect_out(system, "net", SOCK_STREAM, host_address, port);
  REQUIRE(readable(listener.get()));
  base::UniqueFd server(::accept(listener.get(), nullptr, nullptr));
  const std::string bytes = base::random_hex(2 << 20);
  std::thread asking([&] { static_cast<void>(base::write_all(client.get(), bytes)); });
  const bool asked = read_exactly(server.get(), bytes.size()) == bytes;
  CHECK(asked);
  asking.join();
  std::thread answering([&] {
    static_cast<void>(base::write_all(server.get(), bytes));
    server.reset();
  });
  const bool answered = read_to_end(client.get()) == bytes;
  CHECK(answered);
  answering.join();
}

TEST_CASE("libslirp answers no names, hands out no addresses, and runs without any power") {
  System system{"libslirp"};
  must(system.driver->create({.name = "net"}));
  const auto process = uplink_of(system, "net").process;
  const std::string status =
      must(base::read_file(fmt::format("/proc/{}/status", process.pid), 65536));
  CHECK(status.find("CapEff:\t0000000000000000") != std::string::npos);
  CHECK(status.find("NoNewPrivs:\t1") != std::string::npos);
  CHECK(status.find("Seccomp:\t2") != std::string::npos);
  if (::geteuid() == 0) {
    CHECK(status.find("CapBnd:\t0000000000000000") != std::string::npos);
    CHECK(status.find(fmt::format("Uid:\t{0}\t{0}\t{0}\t{0}", network::uplink_uid)) !=
          std::string::npos);
  }
  // Its usual services: the resolver at .254 (or .3), the DHCP server and TFTP at the gateway.
  for (const auto& [address, port] : {std::pair<const char*, uint16_t>{"198.18.0.254", 53},
                                      {"198.18.0.3", 53},
                                      {"198.18.0.1", 67},
                                      {"198.18.0.1", 69}}) {
    const auto socket = connect_out(system, "net", SOCK_DGRAM, address, port);
    dns::Query query;
    query.question = dns::name_from_text("localhost")->wire + std::string("\0\1\0\1", 4);
    const std::string packet = dns::build_query(query, 7);
    ::send(socket.get(), packet.data(), packet.size(), 0);
    pollfd waited{.fd = socket.get(), .events = POLLIN, .revents = 0};
    ::poll(&waited, 1, 200);
    char byte = 0;
    CHECK(::recv(socket.get(), &byte, 1, MSG_DONTWAIT) < 0);
  }
}

TEST_CASE("where libslirp does not run, pasta is the way out and the reason is told") {
  const std::string folder = "/tmp/network-test-programs-" + base::random_hex(6);
  must(base::make_directories(folder));
  ::chmod(folder.c_str(), 0755);
  for (const char* program : {"container-network", "container-launch"})
    run({"/bin/cp", fmt::format("{}/bin/{}", CONTAINER_BINARY_DIR, program), folder});
  SUBCASE("missing") {}
  SUBCASE("broken") { run({"/bin/cp", "/bin/false", folder + "/container-slirp"}); }
  {
    System system{"", folder};
    must(system.driver->create({.name = "net"}));
    const auto uplink = uplink_of(system, "net");
    CHECK(uplink.kind == network::WayOut::Pasta);
    CHECK(uplink.reason.find("container-slirp") != std::string::npos);
    CHECK(system.driver->way_out().name == "pasta");
    CHECK(system.driver->way_out().reason == uplink.reason);
    Guest guest(system.lease("net", "guest"));
    check_that_it_reaches_out(guest, 7002);
  }
  must(base::remove_tree(folder));
}

TEST_CASE("on the way out a half-closed connection loses nothing, whoever closes first") {
  System system;
  must(system.driver->create({.name = "net"}));
  CHECK(uplink_of(system, "net").kind == network::WayOut::Libslirp);
  uint16_t port = 0;
  const auto listener = bound_socket(SOCK_STREAM, host_address, port);
  REQUIRE(::listen(listener.get(), 1) == 0);
  for (const bool guest_first : {true, false}) {
    const auto guest = connect_out(system, "net", SOCK_STREAM, host_address, port);
    REQUIRE(readable(listener.get()));
    const base::UniqueFd world(::accept(listener.get(), nullptr, nullptr));
    CHECK_MESSAGE(talk_half_closed(guest_first ? guest.get() : world.get(),
                                   guest_first ? world.get() : guest.get()),
                  (guest_first ? "the guest closes first" : "the world closes first"));
  }
}

TEST_CASE("a way out that was asked for is the only one that is tried") {
  const OtherPath path("/nonexistent");
  System system{"pasta"};
  must(system.driver->create({.name = "net"}));
  CHECK(!must(network::load_state(system.state_file("net"))).uplink);
  Guest guest(system.lease("net", "guest"));
  CHECK(guest.resolve("192.168.64.1").size() == 6);
  const auto refused = NetworkDriver::create({.run_root = system.root + "/run",
                                              .state_root = system.root + "/state",
                                              .programs = CONTAINER_BINARY_DIR "/bin",
                                              .way_out = "pigeon"});
  REQUIRE(!refused);
  CHECK(refused.error().to_string().find("pasta or libslirp") != std::string::npos);
}

TEST_CASE(
    "the way out outlives its network's process, and is made again when it is killed itself") {
  std::string way_out;
  SUBCASE("pasta") { way_out = "pasta"; }
  SUBCASE("libslirp") { way_out = "libslirp"; }
  System system{way_out};
  must(system.driver->create({.name = "net"}));
  Guest guest(system.lease("net", "guest"));
  const auto before = uplink_of(system, "net").process;
  const int64_t server = system.server_pid("net");
  const auto pidfd = must(base::open_process(must(base::identify_process(server))));
  must(base::signal_process(pidfd.get(), SIGKILL));
  must(base::await_process(pidfd.get(), server, base::Deadline::in_ms(5'000)));
  check_that_it_reaches_out(guest, 7003);
  must(system.driver->create({.name = "net"}));
  CHECK(uplink_of(system, "net").process.pid == before.pid);

  must(base::signal_process(must(base::open_process(before)).get(), SIGKILL));
  const auto deadline = base::Deadline::in_ms(15'000);
  const auto made_again = [&] {
    const auto state = must(network::load_state(system.state_file("net")));
    return state.uplink && state.uplink->process.pid != before.pid;
  };
  while (!made_again() && !deadline.passed()) ::poll(nullptr, 0, 50);
  REQUIRE(made_again());
  // Noted before it is of use: packets may be lost for a moment.
  uint16_t port = 7004;
  const auto outside = bound_socket(SOCK_DGRAM, host_address, port);
  pollfd waited{.fd = outside.get(), .events = POLLIN, .revents = 0};
  while (!deadline.passed() && waited.revents == 0) {
    guest.send_udp(guest.lease().address, host_address, port, "again");
    ::poll(&waited, 1, 100);
  }
  CHECK(waited.revents != 0);
}

TEST_CASE("an internal network has no way out, by address or by name") {
  System system;
  must(system.driver->create({.name = "inner", .internal = true}));
  Guest guest(system.lease("inner", "guest"));
  CHECK(guest.lease().gateway.empty());
  uint16_t port = 7001;
  const auto outside = bound_socket(SOCK_DGRAM, host_address, port);
  guest.send_udp(guest.lease().address, host_address, port, "smuggled");
  CHECK(guest.lookup("x.evil.example").rcode == dns::Rcode::NameError);
  char byte = 0;
  CHECK(::recv(outside.get(), &byte, 1, MSG_DONTWAIT) < 0);
  CHECK(must(network::load_state(system.state_file("inner"))).uplink.has_value() == false);
}

TEST_CASE("a network in use stays; an unused one leaves nothing behind") {
  System system;
  must(system.driver->create({.name = "net"}));
  system.lease("net", "web");
  const auto refused = system.driver->remove("net");
  REQUIRE(!refused);
  CHECK(refused.error().code() == ErrorCode::Busy);
  CHECK(refused.error().to_string().find("web") != std::string::npos);
  const auto state = must(network::load_state(system.state_file("net")));
  must(system.driver->release("net", "web"));
  must(system.driver->release("net", "web"));
  must(system.driver->remove("net"));
  must(system.driver->remove("net"));
  CHECK(must(system.driver->list()).empty());
  REQUIRE(state.keeper);
  const auto keeper = base::open_process(*state.keeper);
  if (keeper)
    must(base::await_process(keeper->get(), state.keeper->pid, base::Deadline::in_ms(5'000)));
  REQUIRE(state.uplink);
  CHECK(!base::open_process(state.uplink->process));
}

TEST_CASE("an address is free for the next as soon as it is released, whoever holds its TAP") {
  System system;
  must(system.driver->create({.name = "net"}));
  const NetworkLease first = system.lease("net", "first");
  REQUIRE(first.tap);
  must(system.driver->release("net", "first"));
  const NetworkLease second = system.lease("net", "second");
  CHECK(second.address == first.address);
  REQUIRE(second.tap);
  // The one that was cut off can neither hear nor speak.
  const char frame[64] = {};
  CHECK(::write(first.tap->get(), frame, sizeof frame) < 0);
  CHECK(errno == EBADFD);
}

TEST_CASE("at rest a network nobody is on ends, and the next lease starts it as it was") {
  System system;
  must(system.driver->create({.name = "idle", .subnet = "10.7.0.0/24"}));
  must(system.driver->create({.name = "used"}));
  must(system.driver->create({.name = "orphan"}));
  Guest guest(system.lease("used", "guest"));
  const auto idle = must(network::load_state(system.state_file("idle")));
  const auto used = must(network::load_state(system.state_file("used")));
  const auto orphan = must(network::load_state(system.state_file("orphan")));
  const int64_t killed = system.server_pid("orphan");
  const auto pidfd = must(base::open_process(must(base::identify_process(killed))));
  must(base::signal_process(pidfd.get(), SIGKILL));
  must(base::await_process(pidfd.get(), killed, base::Deadline::in_ms(5'000)));

  must(system.driver->rest());

  for (const auto* ended : {&idle, &orphan}) {
    CHECK(has_ended(*ended->keeper));
    CHECK(has_ended(ended->uplink->process));
    CHECK(system.server_pid(ended->name) == 0);
    CHECK(!base::path_exists(system.root + "/run/networks/" + network::folder_name(ended->name)));
  }
  CHECK(base::open_process(*used.keeper));
  CHECK(guest.resolve(guest.lease().dns_server).size() == 6);
  for (const auto& network : must(system.driver->list())) CHECK(network.alive);

  Guest again(system.lease("idle", "again"));
  CHECK(again.lease().address == "10.7.0.2/24");
  CHECK(again.resolve("10.7.0.1").size() == 6);
}

TEST_CASE("networks get subnets of their own, and the same one again when asked again") {
  System system;
  CHECK(must(system.driver->create({.name = "a"})).subnet == "192.168.64.0/24");
  CHECK(must(system.driver->create({.name = "b"})).subnet == "192.168.65.0/24");
  CHECK(must(system.driver->create({.name = "a"})).subnet == "192.168.64.0/24");
  CHECK(!system.driver->create({.name = "c", .subnet = "192.168.65.128/25"}));
  CHECK(!system.driver->create({.name = "d", .subnet = "10.99.0.0/16"}));
  CHECK(must(system.driver->create({.name = "e", .subnet = "10.7.0.1/24"})).gateway == "10.7.0.1");
}

TEST_CASE("a gateway that was asked for is the one that answers") {
  System system;
  const reconciler::NetworkSetup setup{
      .name = "n", .subnet = "10.7.0.0/24", .gateway = "10.7.0.200"};
  CHECK(must(system.driver->create(setup)).gateway == "10.7.0.200");
  CHECK(must(system.driver->create(setup)).gateway == "10.7.0.200");
  CHECK(!system.driver->create({.name = "n", .gateway = "10.7.0.201"}));
  CHECK(!system.driver->create({.name = "m", .subnet = "10.8.0.0/24", .gateway = "10.8.0.255"}));
  Guest guest(system.lease("n", "web"));
  CHECK(guest.lease().address == "10.7.0.1/24");
  CHECK(guest.lease().gateway == "10.7.0.200");
  CHECK(guest.resolve("10.7.0.200").size() == 6);
}

TEST_CASE("all of this works for an ordinary user") {
  if (::geteuid() != 0) return;  // This is that run.
  enter_own_host();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    // A private /dev/net with the node as ordinary distributions have it.
    const bool ready = ::unshare(CLONE_NEWNS) == 0 &&
                       ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                       ::mount("none", "/dev/net", "tmpfs", 0, nullptr) == 0 &&
                       ::mknod("/dev/net/tun", S_IFCHR | 0666, ::makedev(10, 200)) == 0 &&
                       ::chmod("/dev/net/tun", 0666) == 0 && ::setgroups(0, nullptr) == 0 &&
                       ::setresgid(ordinary_user, ordinary_user, ordinary_user) == 0 &&
                       ::setresuid(ordinary_user, ordinary_user, ordinary_user) == 0;
    ::setenv(own_host_variable, "1", 1);
    if (ready) ::execl("/proc/self/exe", "network_integration_test", nullptr);
    ::_exit(125);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("without user namespaces or a TAP device the error says what to allow") {
  if (::geteuid() == 0) return;
  // An ordinary user who may not open the device: simulated by hiding it in a namespace of ours.
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (::unshare(CLONE_NEWUSER) != 0) ::_exit(1);
    const auto limit = base::open_file("/proc/sys/user/max_user_namespaces", O_WRONLY);
    if (!limit || !base::write_all(limit->get(), "0")) ::_exit(2);
    // The maker of a user namespace has every power in it; the ordinary user of a host has none.
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    __user_cap_data_struct none[2] = {};
    if (::syscall(SYS_capset, &header, none) != 0) ::_exit(5);
    const auto keeper = network::make_keeper();
    if (keeper) ::_exit(3);
    const std::string text = keeper.error().to_string();
    ::_exit(keeper.error().code() == ErrorCode::Denied &&
                    text.find("user.max_user_namespaces") != std::string::npos
                ? 0
                : 4);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_SUITE_END();
