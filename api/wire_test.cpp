#include "api/wire.h"

#include <doctest/doctest.h>

namespace {

using api::Frame;
using api::FrameDecoder;
using api::FrameKind;

TEST_CASE("frames come back as they were sent, however the bytes are cut") {
  std::string bytes;
  api::append_frame(bytes, FrameKind::Stdin, "hello");
  api::append_frame(bytes, FrameKind::StdinEnd, "");
  FrameDecoder decoder;
  std::vector<Frame> frames;

  for (const char byte : bytes) {
    decoder.feed(std::string_view(&byte, 1));
    auto next = decoder.next();
    REQUIRE(next);
    if (*next) frames.push_back(**next);
  }

  REQUIRE(frames.size() == 2);
  CHECK(frames[0].kind == FrameKind::Stdin);
  CHECK(frames[0].payload == "hello");
  CHECK(frames[1].kind == FrameKind::StdinEnd);
  CHECK(frames[1].payload.empty());
  CHECK(!decoder.partial());
}

TEST_CASE("a payload larger than a frame becomes several frames") {
  std::string bytes;
  api::append_frame(bytes, FrameKind::Stdout, std::string(api::frame_bytes_max + 1, 'x'));
  FrameDecoder decoder;
  decoder.feed(bytes);

  CHECK(decoder.next().value()->payload.size() == api::frame_bytes_max);
  CHECK(decoder.next().value()->payload == "x");
  CHECK(!decoder.next().value());
}

TEST_CASE("a frame longer than allowed is refused before its bytes are waited for") {
  FrameDecoder decoder;
  decoder.feed(std::string_view("\x0a\x7f\xff\xff\xff", 5));

  CHECK(decoder.next().error().to_string() == "frame of 2147483647 bytes, 65536 are allowed");
}

TEST_CASE("an unknown kind of frame is refused at its first byte") {
  FrameDecoder decoder;
  decoder.feed("G");

  CHECK(decoder.next().error().to_string() == "unknown frame kind 71");
}

TEST_CASE("a cut frame is told from an end between frames") {
  FrameDecoder decoder;
  decoder.feed(std::string_view("\x0a\0\0\0\x05hel", 8));

  CHECK(!decoder.next().value());
  CHECK(decoder.partial());
}

}  // namespace
