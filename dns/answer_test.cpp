#include "dns/answer.h"

#include <string>

#include <doctest/doctest.h>

namespace {

constexpr unsigned rcode_mask = 0x0F;

std::string ask(const std::string& text, uint16_t type) {
  std::string bytes("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", 12);
  bytes += dns::name_from_text(text).value().wire;
  return bytes + std::string{static_cast<char>(type >> 8), static_cast<char>(type), '\0', '\1'};
}

struct Network {
  Network() { REQUIRE(zone.add("web", dns::Ipv4{0xC0A84002})); }
  dns::Outcome answer(const std::string& text, uint16_t type) {
    return dns::answer(ask(text, type), zone, options, dns::Transport::Udp);
  }
  dns::Zone zone;
  dns::AnswerOptions options{
      .forward = true, .domain = "test", .subnet = dns::parse_ipv4_net("192.168.64.0/24").value()};
};

struct Answer {
  unsigned rcode = 0;
  unsigned records = 0;
  std::string bytes;
};

Answer replied(const dns::Outcome& outcome) {
  const auto* reply = std::get_if<dns::Reply>(&outcome);
  REQUIRE(reply);
  REQUIRE(reply->bytes.size() >= dns::header_bytes);
  CHECK(reply->bytes.substr(0, 2) == "\x12\x34");
  return {.rcode = static_cast<unsigned char>(reply->bytes[3]) & rcode_mask,
          .records = static_cast<unsigned char>(reply->bytes[7]),
          .bytes = reply->bytes};
}

bool asks_upstream(const dns::Outcome& outcome) {
  return std::holds_alternative<dns::AskUpstream>(outcome);
}

}  // namespace

TEST_CASE("a bare name and the same below the domain give the address, for five seconds") {
  Network network;
  const std::string record("\0\0\0\5\0\4\xc0\xa8\x40\x02", 10);  // TTL, length, address
  for (const char* name : {"web", "WEB", "web.test"}) {
    CAPTURE(name);
    const Answer answer = replied(network.answer(name, dns::type::a));
    CHECK(answer.rcode == 0);
    CHECK(answer.records == 1);
    CHECK(answer.bytes.find(record) != std::string::npos);
  }
}

TEST_CASE("an existing name without that type has no data, an unknown one does not exist") {
  Network network;
  const Answer no_data = replied(network.answer("web", dns::type::aaaa));
  CHECK(no_data.rcode == 0);
  CHECK(no_data.records == 0);
  constexpr unsigned name_error = 3;
  CHECK(replied(network.answer("nobody", dns::type::a)).rcode == name_error);
  CHECK(replied(network.answer("nobody.test", dns::type::a)).rcode == name_error);
}

TEST_CASE("only real domain names go upstream, and from an internal network none") {
  Network network;
  CHECK(asks_upstream(network.answer("example.org", dns::type::a)));
  CHECK_FALSE(asks_upstream(network.answer("single", dns::type::a)));
  CHECK_FALSE(asks_upstream(network.answer("9.64.168.192.in-addr.arpa", dns::type::ptr)));

  network.options.forward = false;

  CHECK_FALSE(asks_upstream(network.answer("example.org", dns::type::a)));
}

TEST_CASE("an address of ours leads back to its name") {
  Network network;
  const Answer answer = replied(network.answer("2.64.168.192.in-addr.arpa", dns::type::ptr));
  CHECK(answer.records == 1);
  CHECK(answer.bytes.find(std::string("\3web", 4)) != std::string::npos);
}

TEST_CASE("a response is ignored, so that two servers cannot talk for ever") {
  Network network;
  std::string response = ask("web", dns::type::a);
  response[2] = static_cast<char>(0x81);
  CHECK(std::holds_alternative<dns::Ignore>(
      dns::answer(response, network.zone, network.options, dns::Transport::Udp)));
}

TEST_CASE("what does not fit a UDP reply says so, and is whole by TCP") {
  Network network;
  for (uint32_t i = 0; i < 200; ++i) network.zone.add("many", dns::Ipv4{0xC0A84003 + i});
  const auto size = [&](dns::Transport transport) {
    const dns::Outcome outcome =
        dns::answer(ask("many", dns::type::a), network.zone, network.options, transport);
    return replied(outcome).bytes;
  };
  constexpr int truncated_bit = 0x02;
  const std::string by_udp = size(dns::Transport::Udp);
  CHECK(by_udp.size() <= dns::udp_reply_bytes_without_edns);
  CHECK((by_udp[2] & truncated_bit) != 0);
  CHECK(size(dns::Transport::Tcp).size() > dns::udp_reply_bytes_max);
}
