/// Trees over folders, archives and image roots, and the accounts in them.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/process.h"
#include "builder/accounts.h"
#include "builder/copy.h"
#include "builder/digest_cache.h"
#include "builder/folder_tree.h"
#include "builder/tar_tree.h"
#include "builder/test_tree.h"
#include "image/test_archive.h"

namespace fs = std::filesystem;
using builder::NodeType;
using builder_test::MemoryTree;
using image_test::Member;

namespace {

struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "tree-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  void write(const std::string& name, const std::string& content) const {
    fs::create_directories((path / name).parent_path());
    std::ofstream(path / name) << content;
  }
  std::unique_ptr<builder::Tree> open(builder::DigestCache* digests = nullptr) const {
    return builder::open_folder_tree(path, {.digests = digests}).value();
  }
};

image::ByteSource bytes_of(std::string bytes) {
  return [bytes = std::move(bytes),
          at = size_t{0}](std::span<char> buffer) mutable -> base::Result<size_t> {
    const size_t count = bytes.copy(buffer.data(), std::min<size_t>(buffer.size(), 777), at);
    at += count;
    return count;
  };
}

std::string content(const builder::Tree& tree, const std::string& path) {
  std::string all;
  const auto read = tree.read(path, [&](std::string_view bytes) -> base::Result<> {
    all += bytes;
    return {};
  });
  return read ? all : "error: " + read.error().to_string();
}

std::string names(const builder::Tree& tree, const std::string& folder) {
  std::string all;
  const auto children = tree.list(folder).value();
  for (const auto& child : children) all += child.name + " ";
  return all;
}

/// What a program makes of `bytes`: a compressed form.
std::string piped(const std::string& program, const std::string& bytes) {
  const Folder folder;
  folder.write("in", bytes);
  const auto done = base::run_process(
      {"/bin/sh", "-c", fmt::format("cd {} && {} < in > out", folder.path.string(), program)},
      base::Deadline::in_ms(20'000));
  REQUIRE(done);
  REQUIRE(done->exit_code == 0);
  std::ifstream file(folder.path / "out", std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

TEST_CASE("a folder's nodes are told with their types, and root's") {
  const Folder folder;
  folder.write("d/file", "hello");
  fs::create_symlink("../outside", folder.path / "link");
  REQUIRE(::mkfifo((folder.path / "fifo").c_str(), 0600) == 0);
  fs::create_hard_link(folder.path / "d/file", folder.path / "d/other");
  const auto tree = folder.open();
  CHECK(names(*tree, "") == "d fifo link ");
  CHECK(tree->node("link")->link == "../outside");
  CHECK(tree->node("fifo")->type == NodeType::Fifo);
  CHECK(tree->node("d/file")->size == 5);
  CHECK(tree->node("d/file")->user == 0);
  CHECK(tree->node("d/file")->hard_link_id != 0);
  CHECK(tree->node("d/file")->hard_link_id == tree->node("d/other")->hard_link_id);
  CHECK(content(*tree, "d/file") == "hello");
  CHECK(tree->node("absent").error().code() == base::ErrorCode::NotFound);
  CHECK(tree->node("d/file/x").error().code() == base::ErrorCode::NotFound);
}

TEST_CASE("nothing outside of a folder is opened, and no special file") {
  const Folder outside;
  outside.write("secret", "s");
  const Folder folder;
  fs::create_symlink(outside.path, folder.path / "out");
  fs::create_symlink(outside.path / "secret", folder.path / "file");
  REQUIRE(::mkfifo((folder.path / "fifo").c_str(), 0600) == 0);
  const auto tree = folder.open();
  CHECK(content(*tree, "out/secret").starts_with("error: "));
  CHECK(content(*tree, "file").starts_with("error: "));
  CHECK_FALSE(tree->list("out"));
  CHECK_FALSE(tree->node("../" + outside.path.filename().string()));
  CHECK_FALSE(tree->node(outside.path));
  CHECK(content(*tree, "fifo").find("no regular file") != std::string::npos);
  CHECK(builder::open_folder_tree(outside.path / "secret").error().code() ==
        base::ErrorCode::InvalidArgument);
}

TEST_CASE("a folder that becomes a link while it is read never leads out") {
  const Folder outside;
  outside.write("file", "secret");
  outside.write("other", "secret");
  const Folder folder;
  folder.write("place/file", "mine");
  fs::create_symlink(outside.path, folder.path / "link");
  const auto tree = folder.open();
  std::atomic<bool> over = false;
  std::atomic<int> swaps = 0;
  std::thread swapper([&] {
    while (!over) {
      ::renameat2(AT_FDCWD, (folder.path / "place").c_str(), AT_FDCWD,
                  (folder.path / "link").c_str(), RENAME_EXCHANGE);
      ++swaps;
    }
  });
  int mine = 0;
  int escaped = 0;
  for (int i = 0; i < 10'000 || swaps < 1'000; ++i) {
    const std::string found = content(*tree, "place/file");
    if (found == "mine") ++mine;
    if (found.find("secret") != std::string::npos) ++escaped;
    if (const auto children = tree->list("place"); children && children->size() > 1) ++escaped;
  }
  over = true;
  swapper.join();
  CHECK(escaped == 0);
  CHECK(mine > 0);
}

TEST_CASE("folders that are very deep are listed, and deeper than that refused") {
  MemoryTree tree;
  std::string path = "d";
  for (int depth = 0; depth < 200; ++depth) path += "/d";
  tree.file(path + "/file", "x");
  builder::CopyRequest request;
  request.source = &tree;
  request.sources = {"."};
  request.target = "/";
  CHECK(builder::select_copy(request));
  for (int depth = 0; depth < 100; ++depth) path += "/d";
  tree.file(path + "/file", "x");
  const auto refused = builder::select_copy(request);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().to_string().find("more than 256 deep") != std::string::npos);
}

TEST_CASE("a file that changes while it is read is an error") {
  const Folder folder;
  folder.write("file", std::string(3u << 20, 'a'));
  const auto tree = folder.open();
  bool once = false;
  const auto read = tree->read("file", [&](std::string_view) -> base::Result<> {
    if (!once) std::ofstream(folder.path / "file", std::ios::app) << "more";
    once = true;
    return {};
  });
  REQUIRE_FALSE(read);
  CHECK(read.error().code() == base::ErrorCode::InvalidState);
}

TEST_CASE("digests are remembered by what a file is, not by its name") {
  const Folder folder;
  folder.write("a", "hello");
  const std::string store = folder.path / "digests";
  const std::string expected =
      "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
  const builder::FileIdentity file{.device = 1, .inode = 2, .size = 5, .changed_ns = 10};
  {
    const auto cache = builder::DigestCache::load(store);
    CHECK_FALSE(cache->find(file));
    cache->remember(file, expected);
    CHECK(folder.open(cache.get())->content_digest("a").value() == expected);
    REQUIRE(cache->save());
  }
  const auto again = builder::DigestCache::load(store);
  CHECK(again->find(file) == expected);
  builder::FileIdentity changed = file;
  changed.changed_ns = 11;
  CHECK_FALSE(again->find(changed));
  // Just now written: it may change within the clock's tick.
  CHECK(folder.open(again.get())->content_digest("a").value() == expected);
}

TEST_CASE("a damaged digest cache is an empty one; what is unused is dropped") {
  const Folder folder;
  const std::string store = folder.path / "digests";
  const builder::FileIdentity file{.inode = 2, .changed_ns = 10};
  const std::string digest = "sha256:" + std::string(64, 'a');
  const auto cache = builder::DigestCache::load(store);
  cache->remember(file, digest);
  REQUIRE(cache->save());
  CHECK(builder::DigestCache::load(store)->find(file));
  {
    std::fstream damage(store);
    damage.seekp(40);
    damage << 'x';
  }
  CHECK_FALSE(builder::DigestCache::load(store)->find(file));
}

TEST_CASE("an archive is a tree, however it is compressed") {
  const std::string tar = image_test::tar({{.name = "./d/", .type = '5', .mode = 0700, .user = 7},
                                           {.name = "d/a", .content = "hello", .mode = 04755},
                                           {.name = "d/b", .type = '1', .link = "d/a"},
                                           {.name = "l", .type = '2', .link = "d/a"},
                                           {.name = "x/y/z", .content = "deep"}});
  for (const char* program : {"cat", "gzip -c", "zstd -qc", "xz -c", "bzip2 -c"}) {
    CAPTURE(program);
    const auto opened = builder::open_tar_tree(bytes_of(piped(program, tar)));
    REQUIRE(opened);
    const builder::Tree& tree = **opened;
    CHECK(names(tree, "") == "d l x ");
    CHECK(tree.node("d")->mode == 0700);
    CHECK(tree.node("d")->user == 7);
    CHECK(tree.node("d/a")->mode == 04755);
    CHECK(tree.node("d/a")->hard_link_id == tree.node("d/b")->hard_link_id);
    CHECK(content(tree, "d/b") == "hello");
    CHECK(content(tree, "x/y/z") == "deep");
    CHECK(tree.node("l")->link == "d/a");
  }
}

TEST_CASE("names of an archive stay inside of it, later ones win, links need their target") {
  const auto opened =
      builder::open_tar_tree(bytes_of(image_test::tar({{.name = "../../up", .content = "u"},
                                                       {.name = "/abs", .content = "1"},
                                                       {.name = "abs", .content = "22"},
                                                       {.name = "file", .content = "f"},
                                                       {.name = "file/in", .content = "i"}})));
  REQUIRE(opened);
  CHECK(names(**opened, "") == "abs file up ");
  CHECK(content(**opened, "abs") == "22");
  CHECK(content(**opened, "file/in") == "i");
  CHECK_FALSE(builder::open_tar_tree(
      bytes_of(image_test::tar({{.name = "a", .type = '1', .link = "../b"}}))));
  CHECK_FALSE(builder::open_tar_tree(bytes_of("this is no archive")));
  CHECK_FALSE(builder::open_tar_tree(
      bytes_of(image_test::tar({{.name = "a", .content = std::string(5000, 'a')}})),
      {.bytes_max = 4000}));
}

TEST_CASE("archives are known by their content") {
  const std::string tar = image_test::tar({{.name = "a", .content = "hello"}});
  MemoryTree tree;
  tree.file("plain", tar).file("gz", piped("gzip -c", tar)).file("xz", piped("xz -c", tar));
  tree.file("text", "hello").file("gz-of-text", piped("gzip -c", "hello")).file("empty", "");
  tree.file("zeros", std::string(2048, '\0')).file("cut.gz", piped("gzip -c", tar).substr(0, 12));
  CHECK(builder::is_archive(tree, "plain").value());
  CHECK(builder::is_archive(tree, "gz").value());
  CHECK(builder::is_archive(tree, "xz").value());
  CHECK_FALSE(builder::is_archive(tree, "text").value());
  CHECK_FALSE(builder::is_archive(tree, "gz-of-text").value());
  CHECK_FALSE(builder::is_archive(tree, "empty").value());
  CHECK_FALSE(builder::is_archive(tree, "zeros").value());
  CHECK_FALSE(builder::is_archive(tree, "cut.gz").value());
}

TEST_CASE("owners are numbers, or names of the image") {
  MemoryTree root;
  root.file("usr/lib/passwd", "root:x:0:0::/:/bin/sh\nweb:x:33:44::/:/bin/sh\nbad:x:y:1\nshort\n");
  root.link("etc/passwd", "/usr/lib/passwd").file("etc/group", "root:x:0:\nstaff:x:50:web\n");
  using builder::Owner;
  CHECK(builder::resolve_owner("5", nullptr).value() == Owner{5, 5});
  CHECK(builder::resolve_owner("5:6", nullptr).value() == Owner{5, 6});
  CHECK(builder::resolve_owner("web", &root).value() == Owner{33, 44});
  CHECK(builder::resolve_owner("web:staff", &root).value() == Owner{33, 50});
  CHECK(builder::resolve_owner("web:7", &root).value() == Owner{33, 7});
  CHECK(builder::resolve_owner(":staff", &root).value() == Owner{0, 50});
  CHECK(builder::resolve_owner("nobody", &root).error().to_string().find("/etc/passwd") !=
        std::string::npos);
  CHECK_FALSE(builder::resolve_owner("web:nobody", &root));
  CHECK_FALSE(builder::resolve_owner("bad", &root));
  CHECK_FALSE(builder::resolve_owner("web", nullptr));
  CHECK_FALSE(builder::resolve_owner("web:", &root));
  CHECK_FALSE(builder::resolve_owner("4294967295", nullptr));
  MemoryTree large;
  large.file("etc/passwd", std::string(2u << 20, 'a'));
  CHECK_FALSE(builder::resolve_owner("web", &large));
}
