/// What a cache mount begins with, as files of the host.

#include "builder/cache_folder.h"

#include <filesystem>

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "base/file.h"
#include "base/guest_owner.h"
#include "base/text.h"
#include "builder/test_tree.h"

namespace {

namespace fs = std::filesystem;
using builder::NodeType;
using builder_test::MemoryTree;

struct World {
  World() { REQUIRE(base::make_directories(root + "/work")); }
  ~World() { CHECK(base::remove_tree(root)); }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  base::Result<> make(const builder::RunMount& mount, const std::string& path = "") {
    return builder::make_cache_folder(cache, mount, {.tree = tree, .path = path},
                                      {.work_folder = root + "/work", .cancellation = ending});
  }
  struct stat look(const std::string& name) const {
    struct stat facts {};
    REQUIRE(::lstat((cache + "/" + name).c_str(), &facts) == 0);
    return facts;
  }

  const std::string root = "/tmp/container-cache-folder-" + base::random_hex(8);
  const std::string cache = root + "/cache";
  std::shared_ptr<MemoryTree> tree = std::make_shared<MemoryTree>();
  builder::Cancellation ending;
};

std::string owner_of(const std::string& path, const struct stat& facts) {
  if (::geteuid() == 0) return fmt::format("{}:{}", facts.st_uid, facts.st_gid);
  std::string owner(64, '\0');
  const ssize_t size = ::getxattr(path.c_str(), std::string(base::guest_owner_attribute).c_str(),
                                  owner.data(), owner.size());
  return owner.substr(0, size < 0 ? 0 : static_cast<size_t>(size));
}

}  // namespace

TEST_CASE("a cache begins with files, modes, owners, times and links of what it comes from") {
  World world;
  world.tree->file("a/text", "content", 0640).folder("a/deep", 0711).link("a/away", "/etc/passwd");
  world.tree->at("a/text").user = 7;
  world.tree->at("a/text").group = 8;
  world.tree->at("a/text").modified_s = 1'000'000;
  world.tree->at("a/text").hard_link_id = 5;
  world.tree->put("a/twin", world.tree->at("a/text"), "content");
  world.tree->put("a/gone", {.type = NodeType::Socket});
  world.tree->at("a").mode = 0751;

  REQUIRE(world.make({}, "a"));

  CHECK(base::read_file(world.cache + "/text", 100).value() == "content");
  CHECK((world.look("text").st_mode & 07777) == 0640);
  CHECK(world.look("text").st_mtim.tv_sec == 1'000'000);
  CHECK(owner_of(world.cache + "/text", world.look("text")) == "7:8");
  CHECK(world.look("twin").st_ino == world.look("text").st_ino);
  CHECK((world.look("deep").st_mode & 07777) == 0711);
  CHECK(fs::read_symlink(world.cache + "/away") == "/etc/passwd");
  CHECK_FALSE(fs::exists(world.cache + "/gone"));
  CHECK((world.look("").st_mode & 07777) == 0751);
}

TEST_CASE("an empty cache is as its mount says, and one that is there stays as it is") {
  World world;
  world.tree = nullptr;

  REQUIRE(world.make({.mode = 0700, .user = 5, .group = 6}));
  CHECK((world.look("").st_mode & 07777) == 0700);
  CHECK(owner_of(world.cache, world.look("")) == "5:6");
  REQUIRE(base::write_file_atomically(world.cache + "/kept", "1"));
  REQUIRE(world.make({.mode = 0755}));
  CHECK((world.look("").st_mode & 07777) == 0700);
  CHECK(fs::exists(world.cache + "/kept"));
}

TEST_CASE("names that lead elsewhere, devices and what is no folder make no cache at all") {
  World world;
  world.tree->put("../../escaped", {.type = NodeType::File}, "x");
  CHECK_FALSE(world.make({}));
  CHECK_FALSE(fs::exists(world.cache));

  world.tree = std::make_shared<MemoryTree>();
  world.tree->file("a", "1").put("null", {.type = NodeType::CharacterDevice});
  const auto device = world.make({});
  REQUIRE_FALSE(device);
  CHECK(device.error().to_string().find("'/null' is none") != std::string::npos);
  CHECK_FALSE(fs::exists(world.cache));

  const auto file = world.make({}, "a");
  REQUIRE_FALSE(file);
  CHECK(file.error().to_string() == "a cache begins with a folder, and '/a' is none");
}

TEST_CASE("a build that is cancelled leaves no half-filled cache") {
  World world;
  world.tree->file("a", "1");
  world.ending.cancel();

  const auto made = world.make({});
  REQUIRE_FALSE(made);
  CHECK(made.error().code() == base::ErrorCode::Cancelled);
  CHECK_FALSE(fs::exists(world.cache));
}
