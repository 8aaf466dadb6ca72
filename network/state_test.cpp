#include "network/state.h"

#include <cstdlib>
#include <string>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"

namespace {

using base::ErrorCode;
using reconciler::LeaseRequest;

dns::Ipv4Net net(const char* text) { return dns::parse_ipv4_net(text).value(); }

network::NetworkState small_network() {
  network::NetworkState state;
  state.name = "shop";
  state.subnet = net("192.168.64.0/29");
  return state;
}

LeaseRequest request_of(const std::string& container) {
  LeaseRequest request;
  request.container = container;
  return request;
}

struct Folder {
  std::string path = "/tmp/network-state-XXXXXX";
  Folder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Folder() { static_cast<void>(base::remove_tree(path)); }
  std::string file() const { return path + "/state.json"; }
};

network::NetworkState full_state() {
  network::NetworkState state = small_network();
  state.chosen_gateway = dns::Ipv4{0xC0A84006};
  state.internal = true;
  state.domain = "test";
  state.boot_id = "boot-1";
  state.keeper = base::ProcessIdentity{.pid = 41, .start_ticks = 4100, .boot_id = "boot-1"};
  state.uplink =
      network::UplinkState{.process = {.pid = 42, .start_ticks = 4200, .boot_id = "boot-1"},
                           .kind = network::WayOut::Libslirp,
                           .reason = "pasta is not installed"};
  network::Lease* lease = network::reserve(state, request_of("web")).value();
  lease->names = {"web", "service"};
  lease->announced = true;
  network::PublishedPort& port = lease->ports.emplace_back();
  port.port.host_ip = "0.0.0.0";
  port.port.published_last = 40'060;
  port.port.target = 53;
  port.port.protocol = spec::Protocol::Udp;
  port.host_port = 40053;
  port.address = "192.168.64.2";
  return state;
}

}  // namespace

TEST_CASE("the first free network of the pool is chosen, and none once all are taken") {
  const auto first = network::choose_subnet({});
  const auto third = network::choose_subnet({net("192.168.64.0/24"), net("192.168.65.128/25")});
  const auto none = network::choose_subnet({net("192.168.0.0/16")});

  REQUIRE(first);
  CHECK(*first == net("192.168.64.0/24"));
  REQUIRE(third);
  CHECK(*third == net("192.168.66.0/24"));
  REQUIRE(!none);
  CHECK(none.error().code() == ErrorCode::NoSpace);
}

TEST_CASE("a subnet asked for must be usable and overlap nothing") {
  CHECK(network::check_subnet("10.7.0.0/24", {net("10.8.0.0/16")}));
  for (const char* text : {"10.8.9.0/24", "127.0.0.0/24", "169.254.0.0/24", "224.0.0.0/8",
                           "0.0.0.0/8", "10.0.0.0/30", "10.0.0.0/7", "10.0.0.0", "shop"}) {
    CAPTURE(text);
    CHECK(!network::check_subnet(text, {net("10.8.0.0/16")}));
  }
}

TEST_CASE("containers get the addresses above the gateway in order, until there are none") {
  network::NetworkState state = small_network();  // .1 is the gateway, .7 the broadcast
  for (uint32_t last = 2; last <= 6; ++last) {
    const auto lease = network::reserve(state, request_of("c" + std::to_string(last)));
    REQUIRE(lease);
    CHECK((*lease)->address == dns::Ipv4{0xC0A84000 + last});
  }
  const auto none = network::reserve(state, request_of("one-too-many"));
  REQUIRE(!none);
  CHECK(none.error().code() == ErrorCode::NoSpace);
}

TEST_CASE("a gateway in the middle leaves the addresses on both sides of it to containers") {
  network::NetworkState state = small_network();
  state.chosen_gateway = network::check_gateway("192.168.64.3", state.subnet).value();
  std::vector<dns::Ipv4> given;
  while (const auto lease = network::reserve(state, request_of(fmt::format("c{}", given.size()))))
    given.push_back((*lease)->address);

  CHECK(given == std::vector<dns::Ipv4>{
                     {0xC0A84001}, {0xC0A84002}, {0xC0A84004}, {0xC0A84005}, {0xC0A84006}});
  for (const char* text : {"192.168.64.0", "192.168.64.7", "192.168.65.1", "web"}) {
    CAPTURE(text);
    CHECK(!network::check_gateway(text, state.subnet));
  }
}

TEST_CASE("a container keeps its address and MAC when it asks again, with new names") {
  network::NetworkState state = small_network();
  const network::Lease first = *network::reserve(state, request_of("web")).value();
  LeaseRequest again = request_of("web");
  again.names = {"frontend"};

  const auto lease = network::reserve(state, again);

  REQUIRE(lease);
  CHECK((*lease)->address == first.address);
  CHECK((*lease)->mac == first.mac);
  CHECK((*lease)->names == std::vector<std::string>{"frontend"});
  CHECK(state.leases.size() == 1);
}

TEST_CASE("a container made anew on an equal network gets the MAC its peers remember") {
  network::NetworkState one = small_network();
  network::NetworkState other = small_network();
  REQUIRE(network::reserve(other, request_of("db")));

  const auto first = network::reserve(one, request_of("web"));
  const auto second = network::reserve(other, request_of("web"));

  REQUIRE(first);
  REQUIRE(second);
  CHECK((*first)->mac == (*second)->mac);
  CHECK((*first)->mac.substr(0, 3) == "02:");
  CHECK((*second)->mac != other.leases.front().mac);
}

TEST_CASE("an address or MAC of another container is Busy and names its owner") {
  network::NetworkState state = small_network();
  LeaseRequest owner = request_of("owner");
  owner.ipv4_address = "192.168.64.5";
  owner.mac_address = "02:00:00:00:00:0A";
  REQUIRE(network::reserve(state, owner));
  LeaseRequest same_address = request_of("thief");
  same_address.ipv4_address = "192.168.64.5";
  LeaseRequest same_mac = request_of("thief");
  same_mac.mac_address = "02:00:00:00:00:0a";

  const auto address = network::reserve(state, same_address);
  const auto mac = network::reserve(state, same_mac);

  REQUIRE(!address);
  CHECK(address.error().code() == ErrorCode::Busy);
  CHECK(address.error().to_string().find("'owner'") != std::string::npos);
  REQUIRE(!mac);
  CHECK(mac.error().code() == ErrorCode::Busy);
  CHECK(state.leases.size() == 1);
}

TEST_CASE("the gateway, the broadcast address and strangers cannot be asked for") {
  network::NetworkState state = small_network();
  for (const char* text : {"192.168.64.0", "192.168.64.1", "192.168.64.7", "192.168.65.2", "web"}) {
    CAPTURE(text);
    LeaseRequest request = request_of("web");
    request.ipv4_address = text;
    CHECK(!network::reserve(state, request));
  }
  CHECK(state.leases.empty());
}

TEST_CASE("a MAC address is six groups of a unicast address, in lower case") {
  const auto good = network::check_mac("02:AB:00:ff:00:01");
  REQUIRE(good);
  CHECK(*good == "02:ab:00:ff:00:01");
  for (const char* text : {"", "02:ab:00:ff:00", "03:00:00:00:00:01", "ff:ff:ff:ff:ff:ff",
                           "00:00:00:00:00:00", "02-ab-00-ff-00-01", "02:ab:00:ff:00:0g"}) {
    CAPTURE(text);
    CHECK(!network::check_mac(text));
  }
}

TEST_CASE("everything a restart needs is in the file") {
  const Folder folder;
  REQUIRE(network::save_state(folder.file(), full_state()));

  const auto loaded = network::load_state(folder.file());

  REQUIRE(loaded);
  CHECK(loaded->name == "shop");
  CHECK(loaded->subnet == net("192.168.64.0/29"));
  CHECK(loaded->gateway() == dns::Ipv4{0xC0A84006});
  CHECK(loaded->internal);
  CHECK(loaded->domain == "test");
  REQUIRE(loaded->keeper);
  CHECK(loaded->keeper->pid == 41);
  CHECK(loaded->keeper->start_ticks == 4100);
  REQUIRE(loaded->uplink);
  CHECK(loaded->uplink->process.pid == 42);
  CHECK(loaded->uplink->process.start_ticks == 4200);
  CHECK(loaded->uplink->kind == network::WayOut::Libslirp);
  CHECK(loaded->uplink->reason == "pasta is not installed");
  REQUIRE(loaded->leases.size() == 1);
  const network::Lease& lease = loaded->leases.front();
  CHECK(lease.names == std::vector<std::string>{"web", "service"});
  CHECK(lease.announced);
  REQUIRE(lease.ports.size() == 1);
  CHECK(lease.ports.front().port.host_ip == "0.0.0.0");
  CHECK(lease.ports.front().port.protocol == spec::Protocol::Udp);
  CHECK(lease.ports.front().host_port == 40053);
  CHECK(lease.ports.front().port.published_last == 40'060);
}

TEST_CASE("a reboot ends processes, ports and announcements, never leases") {
  network::NetworkState state = full_state();
  network::forget_running(state);
  CHECK(!state.keeper);
  CHECK(!state.uplink);
  REQUIRE(state.leases.size() == 1);
  CHECK(!state.leases.front().announced);
  CHECK(state.leases.front().ports.empty());
  CHECK(state.leases.front().address == dns::Ipv4{0xC0A84001});
}

TEST_CASE("a way out is named by one of two words, or left to us") {
  CHECK(!network::parse_way_out("").value());
  CHECK(network::parse_way_out("pasta").value() == network::WayOut::Pasta);
  CHECK(network::parse_way_out("libslirp").value() == network::WayOut::Libslirp);
  const auto wrong = network::parse_way_out("Pasta");
  REQUIRE(!wrong);
  CHECK(wrong.error().code() == ErrorCode::InvalidArgument);
}

TEST_CASE("a missing state file is NotFound; a broken one is named and left alone") {
  const Folder folder;
  const auto missing = network::load_state(folder.file());
  REQUIRE(!missing);
  CHECK(missing.error().code() == ErrorCode::NotFound);
  for (const char* text : {"", "[]", "{}", "{\"name\":\"x\",\"subnet\":\"no\"}",
                           "{\"name\":\"x\",\"subnet\":\"10.0.0.0/24\",\"leases\":[7]}"}) {
    CAPTURE(text);
    REQUIRE(base::write_file_atomically(folder.file(), text));
    const auto broken = network::load_state(folder.file());
    REQUIRE(!broken);
    CHECK(broken.error().code() == ErrorCode::InvalidState);
    CHECK(broken.error().to_string().find(folder.file()) != std::string::npos);
    CHECK(base::read_file(folder.file(), 1024).value() == text);
  }
}
