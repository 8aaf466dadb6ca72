#include "dns/wire.h"

#include <random>
#include <string>

#include <doctest/doctest.h>

namespace {

/// Header with one question and the given bytes behind it.
std::string packet(const std::string& rest, unsigned flags = 0x0100, unsigned questions = 1) {
  std::string bytes = {'\x12',
                       '\x34',
                       static_cast<char>(flags >> 8),
                       static_cast<char>(flags),
                       static_cast<char>(questions >> 8),
                       static_cast<char>(questions)};
  bytes.resize(dns::header_bytes, '\0');
  return bytes + rest;
}

std::string question(const std::string& wire_name) {
  return wire_name + std::string("\0\1\0\1", 4);
}

const std::string web("\3web\0", 5);

}  // namespace

TEST_CASE("a plain question is read, letter case folded for the name and kept for the echo") {
  const auto parsed = dns::parse_query(packet(question(std::string("\3WeB\0", 5))));
  const auto* query = std::get_if<dns::Query>(&parsed);
  REQUIRE(query);
  CHECK(query->id == 0x1234);
  CHECK(dns::name_to_text(query->name) == "web");
  CHECK(query->question.substr(1, 3) == "WeB");
  CHECK(query->type == dns::type::a);
}

TEST_CASE("responses are never answered, whatever they hold") {
  CHECK(std::holds_alternative<dns::NotAQuery>(dns::parse_query(packet(question(web), 0x8100))));
  CHECK(std::holds_alternative<dns::NotAQuery>(dns::parse_query("short")));
}

TEST_CASE("odd questions are told so") {
  const auto code = [](const std::string& bytes) {
    const auto parsed = dns::parse_query(bytes);
    const auto* bad = std::get_if<dns::BadQuery>(&parsed);
    REQUIRE(bad);
    return bad->rcode;
  };
  CHECK(code(packet("", 0x0100, 0)) == dns::Rcode::FormatError);
  CHECK(code(packet(question(web) + question(web), 0x0100, 2)) == dns::Rcode::FormatError);
  CHECK(code(packet(question(web), 0x7900)) == dns::Rcode::NotImplemented);
  CHECK(code(packet("\3we")) == dns::Rcode::FormatError);
}

TEST_CASE("compression pointers may only point backwards") {
  const std::string to_itself = packet(std::string("\xc0\x0c", 2));
  const std::string forwards = packet(std::string("\xc0\x20", 2) + std::string(40, '\0'));
  const std::string past_the_end = packet(std::string("\xff\xff", 2));
  for (const std::string& bytes : {to_itself, forwards, past_the_end})
    CHECK_FALSE(dns::read_name(bytes, dns::header_bytes));

  const std::string good = packet(web + std::string("\xc0\x0c", 2));
  const auto read = dns::read_name(good, dns::header_bytes + web.size());
  REQUIRE(read);
  CHECK(dns::name_to_text(read->name) == "web");
  CHECK(read->end == good.size());
}

TEST_CASE("names longer than 255 octets are refused, also when pointers make them so") {
  std::string chain = packet("");
  size_t previous = 0;
  for (int i = 0; i < 8; ++i) {
    const size_t here = chain.size();
    chain += '\x3f' + std::string(63, 'a');
    chain +=
        i == 0 ? std::string(1, '\0')
               : std::string{static_cast<char>(0xC0 | previous >> 8), static_cast<char>(previous)};
    previous = here;
  }
  CHECK_FALSE(dns::read_name(chain, previous));
}

TEST_CASE("reverse names lead to the address and back") {
  const dns::Ipv4 address{0xC0A84002};
  CHECK(dns::name_to_text(dns::reverse_name(address)) == "2.64.168.192.in-addr.arpa");
  CHECK(dns::address_from_reverse(dns::reverse_name(address)) == address);
  CHECK_FALSE(dns::address_from_reverse(dns::name_from_text("web").value()));
}

TEST_CASE("no packet crashes the readers") {
  std::mt19937 random(20'261'124);
  const std::string good = packet(question(web) + std::string("\0\0\x29\x04\xd0\0\0\0\0\0\0", 11));
  for (int round = 0; round < 50'000; ++round) {
    std::string bytes = good;
    for (int change = 0; change < 4; ++change)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    bytes.resize(random() % (bytes.size() + 1));
    dns::parse_query(bytes);
    dns::parse_response(bytes);
  }
  CHECK(std::holds_alternative<dns::Query>(dns::parse_query(packet(question(web)))));
}
