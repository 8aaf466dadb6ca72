#include "reconciler/operations.h"

#include <doctest/doctest.h>

#include <csignal>

#include "reconciler/policy.h"

using reconciler::NetworkLease;
using reconciler::parse_signal;

namespace {

NetworkLease lease() {
  NetworkLease given;
  given.network = "n";
  given.address = "10.1.0.5/24";
  given.gateway = given.dns_server = "10.1.0.1";
  return given;
}

}  // namespace

TEST_CASE("the hosts file names the container and resolves host-gateway") {
  planner::ContainerRecord record;
  record.id = "web";
  record.applied.domainname = "example.org";
  record.applied.extra_hosts = {"api=10.9.9.9", "host.docker.internal=host-gateway"};

  CHECK(reconciler::hosts_text(record, {lease()}) ==
        "127.0.0.1 localhost\n"
        "::1 localhost ip6-localhost ip6-loopback\n"
        "10.1.0.5 web.example.org web\n"
        "10.9.9.9 api\n"
        "10.1.0.1 host.docker.internal\n");
}

TEST_CASE("resolv.conf keeps our server first in a stack and obeys --dns outside of one") {
  planner::ContainerRecord record;
  record.id = "web";
  record.applied.dns = {"9.9.9.9"};
  record.applied.dns_search = {"a.example", "b.example"};
  record.applied.dns_options = {"ndots:2"};
  const std::string alone = reconciler::resolv_conf_text(record, {lease()});
  record.project = "shop";
  const std::string in_stack = reconciler::resolv_conf_text(record, {lease()});

  CHECK(alone == "nameserver 9.9.9.9\nsearch a.example b.example\noptions ndots:2\n");
  CHECK(in_stack ==
        "nameserver 10.1.0.1\nnameserver 9.9.9.9\nsearch a.example b.example\noptions ndots:2\n");
}

TEST_CASE("networks attach by priority, then by name") {
  spec::Service service;
  service.networks["a"] = {};
  service.networks["b"].priority = 10;
  service.networks["c"] = {};

  CHECK(reconciler::networks_in_order(service) == std::vector<std::string>{"b", "a", "c"});
}

TEST_CASE("signals are read by name, with and without SIG, by number and by distance") {
  CHECK(parse_signal("TERM") == SIGTERM);
  CHECK(parse_signal("sigkill") == SIGKILL);
  CHECK(parse_signal("15") == SIGTERM);
  CHECK(parse_signal("RTMIN+3") == 37);
  CHECK_FALSE(parse_signal("0"));
  CHECK_FALSE(parse_signal("SIGNONSENSE"));
  CHECK_FALSE(parse_signal("99"));
  CHECK_FALSE(parse_signal(""));
}

TEST_CASE("the restart delay doubles up to its bound") {
  CHECK(reconciler::restart_delay_ms(0) == 100);
  CHECK(reconciler::restart_delay_ms(3) == 800);
  CHECK(reconciler::restart_delay_ms(4'000'000'000u) == 60'000);
}
