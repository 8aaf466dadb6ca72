#include "network/slirp/frame.h"

#include <string>

#include <doctest/doctest.h>

#include "dns/ipv4.h"

namespace {

using network::slirp::may_leave;

std::string frame(unsigned type, const std::string& payload) {
  std::string bytes(12, '\x02');
  bytes.push_back(static_cast<char>(type >> 8));
  bytes.push_back(static_cast<char>(type & 255));
  return bytes + payload;
}

std::string packet_to(const char* destination, char first_byte = '\x45') {
  std::string packet(20, '\0');
  packet[0] = first_byte;
  const uint32_t address = dns::parse_ipv4(destination).value().value;
  for (unsigned i = 0; i < 4; ++i)
    packet[16 + i] = static_cast<char>(address >> (24 - 8 * i) & 255);
  return frame(0x0800, packet);
}

}  // namespace

TEST_CASE("packets to the world may leave, and ARP to find the way") {
  CHECK(may_leave(packet_to("10.99.0.1")));
  CHECK(may_leave(packet_to("1.1.1.1")));
  CHECK(may_leave(packet_to("198.18.1.1")));
  CHECK(may_leave(frame(0x0806, std::string(28, '\0'))));
}

TEST_CASE("nothing leaves to the host itself, to metadata, or to libslirp's own services") {
  CHECK(!may_leave(packet_to("0.0.0.0")));
  CHECK(!may_leave(packet_to("127.0.0.1")));
  CHECK(!may_leave(packet_to("127.255.255.255")));
  CHECK(!may_leave(packet_to("169.254.169.254")));
  CHECK(!may_leave(packet_to("198.18.0.1")));
  CHECK(!may_leave(packet_to("198.18.0.254")));
  CHECK(!may_leave(packet_to("224.0.0.1")));
  CHECK(!may_leave(packet_to("255.255.255.255")));
}

TEST_CASE("what is no whole IPv4 packet does not leave") {
  CHECK(!may_leave(""));
  CHECK(!may_leave(std::string(13, '\x02')));
  CHECK(!may_leave(packet_to("1.1.1.1").substr(0, 33)));
  CHECK(!may_leave(packet_to("1.1.1.1", '\x65')));
  CHECK(!may_leave(frame(0x86DD, std::string(40, '\x60'))));
}
