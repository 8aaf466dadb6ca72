#include "api/space.h"

#include <cstdlib>
#include <filesystem>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

namespace fs = std::filesystem;

namespace {

struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "space-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

}  // namespace

TEST_CASE("space is the blocks that are taken, each once, and only inside the folder") {
  const Folder folder;
  const Folder outside;
  REQUIRE(base::write_file_atomically(outside.path / "large", std::string(1u << 20, 'x')));
  const uint64_t empty = api::allocated_tree_bytes(folder.path);
  fs::create_directory(folder.path / "inner");
  REQUIRE(base::write_file_atomically(folder.path / "inner/a", std::string(64u << 10, 'x')));
  const uint64_t one = api::allocated_tree_bytes(folder.path);
  CHECK(one >= empty + (64u << 10));
  CHECK(one < empty + (128u << 10));

  fs::create_hard_link(folder.path / "inner/a", folder.path / "again");
  REQUIRE(base::write_file_atomically(folder.path / "sparse", ""));
  fs::resize_file(folder.path / "sparse", 1ull << 30);
  fs::create_symlink(outside.path, folder.path / "link");

  CHECK(api::allocated_tree_bytes(folder.path) < one + (16u << 10));
  CHECK(api::allocated_tree_bytes(folder.path / "missing") == 0);
}

TEST_CASE("what is not active can be reclaimed") {
  api::DiskUse use;
  use.add(100, true);
  use.add(50, false);
  CHECK(use.total == 2);
  CHECK(use.active == 1);
  CHECK(use.bytes == 150);
  CHECK(use.reclaimable_bytes == 50);
}
