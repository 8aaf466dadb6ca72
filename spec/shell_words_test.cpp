#include "spec/shell_words.h"

#include <doctest/doctest.h>

using spec::split_words;
using Words = std::vector<std::string>;

TEST_CASE("words are split at blanks, quotes keep them together") {
  CHECK(split_words("httpd -f  -p 80").value() == Words{"httpd", "-f", "-p", "80"});
  CHECK(split_words(R"(sh -c 'echo "a b"')").value() == Words{"sh", "-c", R"(echo "a b")"});
  CHECK(split_words(R"(a"b c"d '' "")").value() == Words{"ab cd", "", ""});
  CHECK(split_words("").value().empty());
  CHECK(split_words(" \n ").value().empty());
}

TEST_CASE("a backslash quotes the next letter, in double quotes only where POSIX says so") {
  CHECK(split_words(R"(a\ b \; \\)").value() == Words{"a b", ";", R"(\)"});
  CHECK(split_words(R"("\" \\ \n \$")").value() == Words{R"(" \ \n $)"});
  CHECK(split_words("a\\\nb").value() == Words{"ab"});
}

TEST_CASE("what would need a shell is refused, not cut off") {
  for (const char* text : {"a; b", "a && b", "a | b", "a > f", "a < f", "a `b`"}) {
    const auto result = split_words(text);
    REQUIRE_FALSE(result);
    CHECK(result.error().to_string().find("\"sh\", \"-c\"") != std::string::npos);
  }
  CHECK(split_words(R"(echo "a; b" 'c|d')").value() == Words{"echo", "a; b", "c|d"});
}

TEST_CASE("an open quote and a trailing backslash are errors") {
  CHECK_FALSE(split_words("'abc"));
  CHECK_FALSE(split_words("\"abc"));
  CHECK_FALSE(split_words("abc\\"));
}
