#include "dns/zone.h"

#include <doctest/doctest.h>

namespace {

const dns::Ipv4 first{0xC0A84002};
const dns::Ipv4 second{0xC0A84003};

dns::Name name(const char* text) { return dns::name_from_text(text).value(); }

}  // namespace

TEST_CASE("replicas of a name take turns at the front") {
  dns::Zone zone;
  REQUIRE(zone.add("web", first));
  REQUIRE(zone.add("web", second));

  const auto one = zone.find(name("web")).value();
  const auto two = zone.find(name("WEB")).value();

  CHECK(one.size() == 2);
  CHECK(two.size() == 2);
  CHECK(one.front() != two.front());
}

TEST_CASE("removing an address takes its names, and only its own") {
  dns::Zone zone;
  zone.add("web", first);
  zone.add("web", second);
  zone.add("web-1", first);

  zone.remove(first);

  CHECK(zone.find(name("web")).value() == std::vector<dns::Ipv4>{second});
  CHECK_FALSE(zone.contains(name("web-1")));
  CHECK_FALSE(zone.name_of(first));
  CHECK(zone.name_of(second).value() == name("web"));
}

TEST_CASE("what cannot be a DNS name is refused") {
  dns::Zone zone;
  CHECK_FALSE(zone.add("", first));
  CHECK_FALSE(zone.add("a..b", first));
  CHECK_FALSE(zone.add(std::string(64, 'a'), first));
  CHECK(zone.size() == 0);
}
