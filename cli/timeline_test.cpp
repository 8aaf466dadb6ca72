#include "cli/timeline.h"

#include <doctest/doctest.h>

TEST_CASE("a timeline is in the order things began, in milliseconds since the command did") {
  const std::string text =
      cli::render_timeline("web", 5'000'000,
                           {{"guest", "wakes up", 9'500'000, 30'000'000},
                            {"command", "reads its words", 5'000'000, 7'250'000}});

  CHECK(text ==
        "timeline of web in ms, from 5000000 ns of boot time\n"
        "     from      took  where    what\n"
        "    0.000     2.250  command  reads its words\n"
        "    4.500    20.500  guest    wakes up\n");
}

TEST_CASE("what a guest calls its spans moves no cursor") {
  CHECK(cli::render_timeline("x", 0, {{"guest", "a\x1b[2J", 0, 1}}).find('\x1b') ==
        std::string::npos);
}
