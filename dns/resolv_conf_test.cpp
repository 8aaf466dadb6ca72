#include "dns/resolv_conf.h"

#include <doctest/doctest.h>

TEST_CASE("name servers are read in their order, odd lines are skipped") {
  const auto found = dns::parse_resolv_conf(
      "# comment\nsearch test\nnameserver 10.0.0.1\nnameserver nonsense\n"
      "nameserver\tfd00::1\nnameserver");
  REQUIRE(found.size() == 2);
  CHECK(dns::format_upstream(found[0]).find("10.0.0.1") != std::string::npos);
  CHECK(found[1].family() == AF_INET6);
}

TEST_CASE("the number of servers is bounded") {
  std::string text;
  for (int i = 1; i <= 50; ++i) text += fmt::format("nameserver 10.0.0.{}\n", i);
  CHECK(dns::parse_resolv_conf(text).size() == dns::upstreams_max);
}
