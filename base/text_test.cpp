#include "base/text.h"

#include <doctest/doctest.h>

TEST_CASE("a word two edits from a candidate is taken for it, a farther one is not") {
  const std::vector<std::string> known = {"image", "command", "up"};
  CHECK(base::did_you_mean("imgae", known) == "image");
  CHECK(base::did_you_mean("comand", known) == "command");
  CHECK(base::did_you_mean("IMAGE", known) == "image");
  CHECK_FALSE(base::did_you_mean("volumes", known));
  CHECK_FALSE(base::did_you_mean("xy", known));
}

TEST_CASE("control bytes are shown, not sent") {
  CHECK(base::escape_controls("a\x1b[31mb\r\n") == "a\\x1b[31mb\\x0d\\x0a");
  CHECK(base::escape_controls("\xc2\x9b") == "\\xc2\\x9b");
  CHECK(base::escape_controls("gr\xc3\xbc\xc3\x9f") == "gr\xc3\xbc\xc3\x9f");
  CHECK(base::escape_controls("\xff") == "\\xff");
}

TEST_CASE("UTF-8 is judged by RFC 3629") {
  CHECK(base::is_utf8("gr\xc3\xbc\xc3\x9f \xf0\x9f\x90\x8b"));
  CHECK_FALSE(base::is_utf8("\xc0\xaf"));          // overlong
  CHECK_FALSE(base::is_utf8("\xed\xa0\x80"));      // surrogate
  CHECK_FALSE(base::is_utf8("\xf5\x80\x80\x80"));  // beyond U+10FFFF
  CHECK_FALSE(base::is_utf8("\xe2\x82"));          // cut short
}

TEST_CASE("splitting and joining undo each other") {
  CHECK(base::split("a::b", ':') == std::vector<std::string>{"a", "", "b"});
  CHECK(base::split("", ':') == std::vector<std::string>{""});
  CHECK(base::join(base::split("a:b:c", ':'), ":") == "a:b:c");
}

TEST_CASE("UUIDs are version 4, variant 1, and differ") {
  const std::string uuid = base::random_uuid();
  REQUIRE(uuid.size() == 36);
  CHECK(uuid[14] == '4');
  CHECK(std::string("89ab").find(uuid[19]) != std::string::npos);
  CHECK(uuid != base::random_uuid());
}

TEST_CASE("times are RFC 3339 in UTC") {
  CHECK(base::format_wall_time(0) == "1970-01-01T00:00:00Z");
  CHECK(base::format_wall_time(1'763'942'400'999'000'000) == "2025-11-24T00:00:00Z");
}
