#include "cli/line_stream.h"

#include <doctest/doctest.h>

#include "base/limits.h"

using base::Result;

TEST_CASE("lines come out whole, however the bytes are cut") {
  cli::LineSplitter splitter;
  std::vector<std::string> lines;
  const auto keep = [&](std::string line) -> Result<> {
    lines.push_back(std::move(line));
    return {};
  };

  CHECK(splitter.feed("on", keep));
  CHECK(splitter.feed("e\n\ntwo\nth", keep));

  CHECK(lines == std::vector<std::string>{"one", "two"});
}

TEST_CASE("a line without an end is refused before it fills the memory") {
  cli::LineSplitter splitter;
  const std::string piece(1 << 20, 'x');
  size_t taken = 0;

  while (splitter.feed(piece, [](const std::string&) -> Result<> { return {}; })) ++taken;

  CHECK(taken == base::limits::cli_line_bytes_max >> 20);
}

TEST_CASE("an error of the taker ends the feeding with it") {
  cli::LineSplitter splitter;

  const Result<> fed = splitter.feed("a\nb\n", [](const std::string&) -> Result<> {
    return base::fail(base::ErrorCode::Internal, "no");
  });

  REQUIRE_FALSE(fed);
  CHECK(fed.error().to_string() == "no");
}
