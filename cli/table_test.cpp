#include "cli/table.h"

#include <doctest/doctest.h>

TEST_CASE("columns are as wide as their widest cell and two spaces, the last is not padded") {
  CHECK(cli::render_table({"ID", "IMAGE", "STATE"}, {{"web-1", "hello:1", "running"},
                                                     {"a", "localhost/hello:1", "stopped"}}) ==
        "ID     IMAGE              STATE\n"
        "web-1  hello:1            running\n"
        "a      localhost/hello:1  stopped\n");
}

TEST_CASE("an empty table is its header") {
  CHECK(cli::render_table({"NETWORK", "SUBNET"}, {}) == "NETWORK  SUBNET\n");
}

TEST_CASE("widths count characters, and a short row is filled up") {
  CHECK(cli::render_table({"A", "B"}, {{"gr\xc3\xbc\xc3\x9f", "x"}, {"a"}}) ==
        "A     B\n"
        "gr\xc3\xbc\xc3\x9f  x\n"
        "a     \n");
}

TEST_CASE("a name cannot drive the terminal or add a line") {
  CHECK(cli::render_table({"A"}, {{"x\x1b[2J\ny"}}) == "A\nx\\x1b[2J\\x0ay\n");
}
