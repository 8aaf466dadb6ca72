#include "image/byte_pipe.h"

#include <string>
#include <thread>

#include <doctest/doctest.h>

using base::ErrorCode;
using image::BytePipe;

namespace {

base::Result<std::string> read_all(BytePipe& pipe, size_t at_once) {
  std::string all;
  std::string buffer(at_once, '\0');
  for (;;) {
    const size_t count = TRY(pipe.read(buffer));
    if (count == 0) return all;
    all.append(buffer, 0, count);
  }
}

}  // namespace

TEST_CASE("bytes arrive whole and in order, whatever their pieces") {
  BytePipe pipe(7, 2);
  std::string sent;
  for (int i = 0; i < 1000; ++i) sent += std::to_string(i);
  std::thread writer([&] {
    for (size_t at = 0; at < sent.size(); at += 11)
      if (!pipe.write(std::string_view(sent).substr(at, 11))) return;
    pipe.finish();
  });
  const auto came = read_all(pipe, 5);
  writer.join();
  REQUIRE(came);
  CHECK(*came == sent);
}

TEST_CASE("a writer that fails gives the reader its error instead of an end") {
  BytePipe pipe;
  REQUIRE(pipe.write("half"));
  pipe.finish(base::fail(ErrorCode::Io, "the line is cut"));
  const auto came = read_all(pipe, 16);
  REQUIRE(!came);
  CHECK(came.error().code() == ErrorCode::Io);
}

TEST_CASE("a writer ahead of a reader that leaves is not left waiting") {
  BytePipe pipe(4, 1);
  base::Result<> written;
  std::thread writer([&] { written = pipe.write("more than the pipe holds"); });
  pipe.leave();
  writer.join();
  REQUIRE(!written);
  CHECK(written.error().code() == ErrorCode::Cancelled);
}
