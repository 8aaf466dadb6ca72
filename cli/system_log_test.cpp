#include "cli/system_log.h"

#include <doctest/doctest.h>

TEST_CASE("the time of a line is read in its own zone") {
  CHECK(cli::time_of_line("2026-11-24T10:54:00.250000+00:00 info x: y") ==
        1'795'517'640'250'000'000);
  CHECK(cli::time_of_line("2026-11-24T11:54:00.250000+01:00 info x: y") ==
        1'795'517'640'250'000'000);
  CHECK_FALSE(cli::time_of_line("  at something"));
}

TEST_CASE("what is older is left out, and a line without a time belongs to the one before") {
  constexpr std::string_view log =
      "2026-11-24T10:00:00.000000+00:00 info x: old\n"
      "  more of the old\n"
      "2026-11-24T11:00:00.000000+00:00 info x: new\n"
      "  more of the new\n";
  const int64_t between = cli::time_of_line("2026-11-24T10:30:00.000000+00:00 ").value();

  CHECK(cli::lines_since(log, between) ==
        "2026-11-24T11:00:00.000000+00:00 info x: new\n  more of the new\n");
  CHECK(cli::lines_since(log, between * 2).empty());
}
