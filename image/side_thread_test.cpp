#include "image/side_thread.h"

#include <string>

#include <doctest/doctest.h>

using base::ErrorCode;
using base::Result;
using image::SideThread;

TEST_CASE("every piece is used, in order, and has been once settle returns") {
  std::string seen;
  SideThread side([&](std::string_view piece) -> Result<> {
    seen += piece;
    return {};
  });
  std::string sent;
  for (int i = 0; i < 1000; ++i) {
    const std::string piece = std::to_string(i);
    side.begin(piece);
    sent += piece;
    REQUIRE(side.settle());
    REQUIRE(seen == sent);
  }
}

TEST_CASE("pieces that are begun one after the other wait for each other") {
  std::string seen;
  {
    SideThread side([&](std::string_view piece) -> Result<> {
      seen += piece;
      return {};
    });
    side.begin("one ");
    side.begin("");
    side.begin("two ");
    side.begin("three");
  }
  CHECK(seen == "one two three");
}

TEST_CASE("the first error stays, and nothing is used after it") {
  int uses = 0;
  SideThread side([&](std::string_view piece) -> Result<> {
    ++uses;
    if (piece == "bad") return base::fail(ErrorCode::NoSpace, "no room for it");
    return {};
  });
  side.begin("good");
  side.begin("bad");
  side.begin("good");
  const Result<> outcome = side.settle();
  REQUIRE(!outcome);
  CHECK(outcome.error().code() == ErrorCode::NoSpace);
  CHECK(uses == 2);
}
