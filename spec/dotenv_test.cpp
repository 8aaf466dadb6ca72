#include "spec/dotenv.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace spec;

namespace {

constexpr size_t bytes_max = 10'000;
const std::string outer_value = "from outside";

const std::string* look_up(std::string_view name) {
  return name == "OUTER" ? &outer_value : nullptr;
}

/// The value of the one entry of `text`.
std::string value_of(std::string_view text) {
  const Dotenv parsed = parse_dotenv(text, look_up, bytes_max);
  if (parsed.problems.empty() && parsed.entries.size() == 1)
    return parsed.entries[0].value.value_or("absent");
  return parsed.problems.empty() ? "not one entry" : "problem: " + parsed.problems[0].text;
}

}  // namespace

TEST_CASE("an unquoted value is trimmed and ends at a comment behind a blank") {
  CHECK(value_of("A=b") == "b");
  CHECK(value_of("A =  b c  ") == "b c");
  CHECK(value_of("A=b # comment") == "b");
  CHECK(value_of("A=b#c") == "b#c");
  CHECK(value_of("A= # only a comment") == "");
  CHECK(value_of("A=") == "");
  CHECK(value_of("export A=b\r\n") == "b");
  CHECK(value_of("A: b") == "b");
  CHECK(value_of("\xEF\xBB\xBF"
                 "A=b") == "b");
  CHECK(value_of("# c\n\n  A.b-c[0]=d\n") == "d");
}

TEST_CASE("single quotes are literal, double quotes have escapes and variables") {
  CHECK(value_of(R"(A='$OUTER \n it\'s' # c)") == R"($OUTER \n it's)");
  CHECK(value_of(R"(A="x\ty \"q\" \$OUTER $OUTER \0101")") == "x\ty \"q\" $OUTER from outside A");
  CHECK(value_of("A=\"two\nlines\"") == "two\nlines");
  CHECK(value_of("A=${NONE:-d}") == "d");
}

TEST_CASE("values see the surroundings first, then the keys above") {
  const Dotenv parsed = parse_dotenv("OUTER=inner\nA=$OUTER\nB=1\nC=${B}2\n", look_up, bytes_max);
  REQUIRE(parsed.entries.size() == 4);
  CHECK(parsed.entries[1].value == "from outside");
  CHECK(parsed.entries[3].value == "12");
  CHECK(parsed.entries[3].line == 4);
}

TEST_CASE("a name alone has no value of its own") {
  const Dotenv parsed = parse_dotenv("A\nB # c\n", look_up, bytes_max);
  REQUIRE(parsed.entries.size() == 2);
  CHECK_FALSE(parsed.entries[0].value);
  CHECK(parsed.entries[1].key == "B");
}

TEST_CASE("every broken line is told with its place, the others are read") {
  const Dotenv parsed =
      parse_dotenv("A B=1\nGOOD=1\nC=\"x\" y\nD=${\nE=$NOWHERE\nF='open", look_up, bytes_max);
  REQUIRE(parsed.problems.size() == 5);
  CHECK(parsed.problems[0].line == 1);
  CHECK(parsed.problems[0].column == 3);
  CHECK(parsed.problems[1].line == 3);
  CHECK(parsed.problems[2].line == 4);
  CHECK_FALSE(parsed.problems[3].is_error);
  CHECK(parsed.problems[4].text.find("unterminated quoted value") != std::string::npos);
  REQUIRE(parsed.entries.size() == 2);
  CHECK(parsed.entries[0].key == "GOOD");
}

TEST_CASE("the raw format takes everything behind the first equals sign") {
  const Dotenv parsed = parse_raw_env("# c\nA=\"b\" # $X\nB\nC D=1\n");
  REQUIRE(parsed.entries.size() == 2);
  CHECK(parsed.entries[0].value == "\"b\" # $X");
  CHECK_FALSE(parsed.entries[1].value);
  REQUIRE(parsed.problems.size() == 1);
  CHECK(parsed.problems[0].line == 4);
}

TEST_CASE("values that grow by one another end at the bound, and the rest is not read") {
  std::string text = "A0=xxxxxxxxxx\n";
  for (int i = 1; i < 64; ++i) text += fmt::format("A{}=$A{}$A{}\n", i, i - 1, i - 1);

  const Dotenv parsed = parse_dotenv(text, look_up, bytes_max);

  REQUIRE(parsed.problems.size() == 1);
  CHECK(parsed.problems[0].text.find("too long") != std::string::npos);
  CHECK(parsed.entries.size() == 9);
}
