#include "cli/console.h"

#include <doctest/doctest.h>

TEST_CASE("what others wrote cannot drive the terminal; lines and tabs stay") {
  CHECK(cli::printable("a\tb\n\x1b[31mred\r") == "a\tb\n\\x1b[31mred\\x0d");
  CHECK(cli::printable("Grüße") == "Grüße");
}

TEST_CASE("lines of containers keep their colours, and nothing else that is an escape") {
  CHECK(cli::printable_line("\x1b[1;31mred\x1b[m \x1b]0;title\x07") ==
        "\x1b[1;31mred\x1b[m \\x1b]0;title\\x07");
}
