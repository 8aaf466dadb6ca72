#include "base/units.h"

#include <doctest/doctest.h>

using base::format_bytes;
using base::format_duration_ns;
using base::parse_bytes;
using base::parse_duration_ns;

TEST_CASE("amounts of bytes are powers of 1024 in every spelling") {
  CHECK(parse_bytes("1500").value() == 1500);
  CHECK(parse_bytes("256m").value() == 256u << 20);
  CHECK(parse_bytes("256MB").value() == 256u << 20);
  CHECK(parse_bytes("1GiB").value() == 1u << 30);
  CHECK(parse_bytes("1.5g").value() == 3u << 29);
  CHECK(parse_bytes("2 kb").value() == 2048);
}

TEST_CASE("what is no amount of bytes is an error that shows how to write one") {
  for (const char* text : {"", "m", "-1", "12x", "1gg", "1e99g", "ten"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_bytes(text));
  }
  CHECK(parse_bytes("12x").error().to_string().find("write for instance 512m") !=
        std::string::npos);
}

TEST_CASE("bytes print in the largest unit that divides them") {
  CHECK(format_bytes(0) == "0");
  CHECK(format_bytes(1500) == "1500");
  CHECK(format_bytes(256u << 20) == "256m");
  CHECK(format_bytes(1u << 30) == "1g");
}

TEST_CASE("durations add up their parts") {
  CHECK(parse_duration_ns("0").value() == 0);
  CHECK(parse_duration_ns("250ms").value() == 250'000'000);
  CHECK(parse_duration_ns("1m30s").value() == 90'000'000'000);
  CHECK(parse_duration_ns("1.5s").value() == 1'500'000'000);
  CHECK(parse_duration_ns("2d").value() == 172'800'000'000'000);
  CHECK(parse_duration_ns("-5s").value() == -5'000'000'000);
}

TEST_CASE("a number without a unit is no duration") {
  for (const char* text : {"", "10", "s", "5 s", "1x", "+"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_duration_ns(text));
  }
}

TEST_CASE("durations print so that they can be read back") {
  for (const int64_t value : {0L, 1L, 1'500'000'000L, 90'000'000'000L, 3'600'000'000'001L}) {
    CAPTURE(value);
    CHECK(parse_duration_ns(format_duration_ns(value)).value() == value);
  }
  CHECK(format_duration_ns(90'000'000'000) == "1m30s");
}
