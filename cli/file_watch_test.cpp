#include "cli/file_watch.h"

#include <cstdlib>

#include <poll.h>

#include <doctest/doctest.h>

#include "base/file.h"

namespace {

class Folder {
 public:
  Folder() { REQUIRE(::mkdtemp(path_.data()) != nullptr); }
  ~Folder() { CHECK(base::remove_tree(path_)); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_ = "/tmp/container-watch-XXXXXX";
};

/// Whether an event comes at all, and is about a watched file.
bool changed(cli::FileWatch& watch) {
  pollfd slot{.fd = watch.event(), .events = POLLIN, .revents = 0};
  REQUIRE(::poll(&slot, 1, 10'000) == 1);
  return watch.take();
}

}  // namespace

TEST_CASE("a file that is replaced by another one has changed; its neighbours do not matter") {
  const Folder folder;
  auto watch = cli::FileWatch::open().value();
  REQUIRE(watch.set({folder / "compose.yaml", folder / ".env"}));

  REQUIRE(base::write_file_atomically(folder / "other", "x"));
  CHECK_FALSE(changed(watch));
  REQUIRE(base::write_file_atomically(folder / "compose.yaml", "x"));
  CHECK(changed(watch));
  REQUIRE(base::write_file_atomically(folder / ".env", "A=1"));
  CHECK(changed(watch));
}

TEST_CASE("a folder that is not there yet is no error") {
  const Folder folder;
  auto watch = cli::FileWatch::open().value();

  CHECK(watch.set({folder / "missing/compose.yaml"}));
}
