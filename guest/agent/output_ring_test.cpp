#include "guest/agent/output_ring.h"

#include <doctest/doctest.h>

#include "base/limits.h"

using namespace agent;

namespace {

std::string frames(const OutputRing& ring, uint64_t offset, OutputFilter filter) {
  std::string wire;
  ring.copy_frames(offset, filter, 1u << 30, wire);
  guest::OutputFrameDecoder decoder;
  std::string log;
  const auto decoded = decoder.feed(wire, [&](const guest::OutputFrame& frame) -> base::Result<> {
    log += fmt::format("{}@{}:{} ", frame.stream, frame.offset, frame.payload);
    return {};
  });
  return decoded ? log : decoded.error().to_string();
}

}  // namespace

TEST_CASE("output is given again from any offset that is not acknowledged") {
  OutputRing ring;
  ring.append(1, "hello ");
  ring.append(2, "oops");
  ring.append(1, "world");

  CHECK(frames(ring, 0, OutputFilter::All) == "1@0:hello  2@6:oops 1@10:world ");
  CHECK(frames(ring, 8, OutputFilter::All) == "2@8:ps 1@10:world ");
  CHECK(frames(ring, 0, OutputFilter::Err) == "2@6:oops ");
  CHECK(frames(ring, 0, OutputFilter::Out) == "1@0:hello  1@10:world ");
}

TEST_CASE("acknowledged output is gone, the rest keeps its offsets") {
  OutputRing ring;
  ring.append(1, "hello ");
  ring.append(2, "oops");

  REQUIRE(ring.acknowledge(8));

  CHECK(ring.begin() == 8);
  CHECK(frames(ring, 0, OutputFilter::All) == "2@8:ps ");
  REQUIRE(ring.acknowledge(3));
  CHECK(ring.begin() == 8);
}

TEST_CASE("output that was never produced cannot be acknowledged") {
  OutputRing ring;
  ring.append(1, "abc");

  CHECK_FALSE(ring.acknowledge(4));
  CHECK(ring.begin() == 0);
}

TEST_CASE("a full ring has no room until something is acknowledged") {
  OutputRing ring;
  const size_t room = ring.room();
  REQUIRE(room > base::limits::agent_output_unacknowledged_bytes_max / 2);
  ring.append(1, std::string(room, 'x'));

  CHECK(ring.room() < room / 64);
  REQUIRE(ring.acknowledge(room / 2));
  CHECK(ring.room() > room / 4);
}

TEST_CASE("many tiny pieces fill the ring by what they cost") {
  OutputRing ring;
  size_t pieces = 0;
  for (; ring.room() > 0; ++pieces) ring.append(pieces % 2 ? 1 : 2, "x");

  CHECK(pieces < base::limits::agent_output_unacknowledged_bytes_max / 64);
}

TEST_CASE("frames are cut off near the wanted size and continue where they ended") {
  OutputRing ring;
  ring.append(1, std::string(100'000, 'a'));
  uint64_t offset = 0;
  std::string first;

  REQUIRE(ring.copy_frames(offset, OutputFilter::All, 1000, first));

  CHECK(first.size() < 20'000);
  CHECK(offset == first.size() - 13);
}
