#include "dns/ipv4.h"

#include <doctest/doctest.h>

TEST_CASE("addresses are four decimal numbers and nothing else") {
  CHECK(dns::parse_ipv4("192.168.64.1").value().value == 0xC0A84001);
  for (const char* text :
       {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", " 1.2.3.4", "1.2.3.4 ", "a.b.c.d"}) {
    CAPTURE(text);
    CHECK_FALSE(dns::parse_ipv4(text));
  }
  CHECK(dns::format_ipv4({0xC0A84001}) == "192.168.64.1");
}

TEST_CASE("a network contains its addresses, and networks that share one overlap") {
  const dns::Ipv4Net net = dns::parse_ipv4_net("192.168.64.1/24").value();
  CHECK(dns::format_ipv4_net(net) == "192.168.64.0/24");
  CHECK(net.contains(dns::parse_ipv4("192.168.64.255").value()));
  CHECK_FALSE(net.contains(dns::parse_ipv4("192.168.65.0").value()));
  CHECK(net.overlaps(dns::parse_ipv4_net("192.168.0.0/16").value()));
  CHECK_FALSE(net.overlaps(dns::parse_ipv4_net("192.168.65.0/24").value()));
  CHECK_FALSE(dns::parse_ipv4_net("192.168.64.0/33"));
}
