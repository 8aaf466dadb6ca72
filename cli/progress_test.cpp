#include "cli/progress.h"

#include <doctest/doctest.h>

using cli::StepState;

TEST_CASE("without a terminal each event is a line without escapes") {
  cli::ProgressView view({});

  CHECK(view.update(1, StepState::Running, "+ container.x  create container", 1000) ==
        "+ container.x  create container: started\n");
  CHECK(view.update(1, StepState::Done, "", 2500) ==
        "+ container.x  create container: done (1.5s)\n");
}

TEST_CASE("a failure says what was tried and why it failed, and cannot drive a terminal") {
  cli::ProgressView view({});
  view.update(1, StepState::Running, "start x", 0);

  CHECK(view.update(1, StepState::Failed, "port \x1b[2J taken", 0) ==
        "start x: failed: port \\x1b[2J taken\n");
}

TEST_CASE("on a terminal the block is drawn again in place") {
  cli::ProgressView view({.live = true, .colour = false, .width = 80, .height = 24});

  CHECK(view.update(1, StepState::Running, "one", 0) == "\r\x1b[2K · one\n\x1b[J");
  CHECK(view.update(1, StepState::Done, "one", 200) == "\x1b[1A\r\x1b[2K ✔ one  0.2s\n\x1b[J");
}

TEST_CASE("a block that would outgrow the screen leaves finished lines above it") {
  cli::ProgressView view({.live = true, .colour = false, .width = 80, .height = 4});
  view.update(1, StepState::Done, "one", 0);
  view.update(2, StepState::Running, "two", 0);

  CHECK(view.update(3, StepState::Running, "three", 0) ==
        "\x1b[2A\r\x1b[2K ✔ one  0.0s\n\r\x1b[2K · two\n\r\x1b[2K · three\n\x1b[J");
  CHECK(view.update(2, StepState::Done, "two", 0) ==
        "\x1b[2A\r\x1b[2K ✔ two  0.0s\n\r\x1b[2K · three\n\x1b[J");
}

TEST_CASE("lines are cut to the width of the terminal, in characters") {
  CHECK(cli::fit("grün", 4) == "grün");
  CHECK(cli::fit("grüner", 4) == "grü…");
}

TEST_CASE("the block makes room for something else and comes back below it") {
  cli::ProgressView view({.live = true});
  view.update(1, StepState::Running, "start x", 0);

  CHECK(view.hide() == "\x1b[1A\r\x1b[J");
  CHECK(view.hide().empty());
  CHECK(view.show().find("start x") != std::string::npos);
  view.finish();
  CHECK(view.show().empty());
}
