#include "cli/arguments.h"

#include <doctest/doctest.h>

namespace {

using Words = std::vector<std::string>;

cli::Command example() {
  return {.name = "container",
          .summary = "Example",
          .commands = {
              {.name = "run",
               .arguments = "IMAGE [ARGUMENT…]",
               .arguments_min = 1,
               .arguments_max = 1000,
               .rest_verbatim = true,
               .flags = {{.name = "interactive", .short_name = 'i', .help = "Keep stdin open"},
                         {.name = "tty", .short_name = 't'},
                         {.name = "env", .short_name = 'e', .value = "KEY=VALUE"},
                         {.name = "workdir", .value = "FOLDER", .other_names = "cwd"}}},
              {.name = "exec",
               .arguments = "ID PROGRAM [ARGUMENT…]",
               .arguments_min = 2,
               .arguments_max = 1000,
               .rest_verbatim = true},
              {.name = "image",
               .other_names = "images i",
               .commands = {{.name = "list", .other_names = "ls"}}},
          }};
}

const cli::Command root = example();

}  // namespace

TEST_CASE("short switches combine, and values follow a space, an equals sign or nothing") {
  const auto parsed = cli::parse(root, {"run", "-it", "-eA=1", "-e", "B=2", "-e=C=3", "alpine"});

  REQUIRE(parsed);
  CHECK(parsed->has("interactive"));
  CHECK(parsed->has("tty"));
  CHECK(parsed->all("env") == Words{"A=1", "B=2", "C=3"});
  CHECK(parsed->value("env") == "C=3");
}

TEST_CASE("from the image on, everything belongs to the program") {
  const auto parsed = cli::parse(root, {"run", "alpine", "ls", "-t", "--", "--help"});

  REQUIRE(parsed);
  CHECK_FALSE(parsed->has("tty"));
  CHECK_FALSE(parsed->has("help"));
  CHECK(parsed->arguments == Words{"alpine", "ls", "-t", "--", "--help"});
}

TEST_CASE("two dashes before the program of exec are no argument of it, later ones are") {
  const auto parsed = cli::parse(root, {"exec", "web", "--", "sh", "--", "x"});

  REQUIRE(parsed);
  CHECK(parsed->arguments == Words{"web", "sh", "--", "x"});
}

TEST_CASE("commands and flags are found by their other names") {
  CHECK(cli::parse(root, {"i", "ls"})->path == "image list");
  CHECK(cli::parse(root, {"run", "--cwd=/tmp", "x"})->value("workdir") == "/tmp");
}

TEST_CASE("a mistyped command or flag is answered with the nearest one") {
  const auto command = cli::parse(root, {"rnu", "x"});
  REQUIRE_FALSE(command);
  CHECK(command.error().message == "unknown command 'rnu'; did you mean 'run'?");

  const auto flag = cli::parse(root, {"run", "--entv", "A=1", "x"});
  REQUIRE_FALSE(flag);
  CHECK(flag.error().message == "unknown option '--entv'; did you mean '--env'?");
  CHECK(cli::usage(flag.error()).find("See 'container run --help'") != std::string::npos);
}

TEST_CASE("what is missing or too much is named") {
  CHECK(cli::parse(root, {"run"}).error().message == "missing argument: IMAGE [ARGUMENT…]");
  CHECK(cli::parse(root, {"image", "ls", "x"}).error().message == "unexpected argument 'x'");
  CHECK(cli::parse(root, {"run", "-e"}).error().message == "option '-e' needs a value: KEY=VALUE");
  CHECK_FALSE(cli::parse(root, {"run", "--tty=maybe", "x"}));
}

TEST_CASE("a switch set to false is as if it had not been given") {
  CHECK_FALSE(cli::parse(root, {"run", "-t", "--tty=false", "x"})->has("tty"));
}

TEST_CASE("help needs no arguments and lists every form of a flag") {
  const auto parsed = cli::parse(root, {"run", "--help"});
  REQUIRE(parsed);

  const std::string text = cli::help(*parsed->command, parsed->path);

  CHECK(text.find("Usage: container run [OPTION…] IMAGE [ARGUMENT…]") != std::string::npos);
  CHECK(text.find("-i, --interactive") != std::string::npos);
  CHECK(text.find("--workdir, --cwd FOLDER") != std::string::npos);
}
