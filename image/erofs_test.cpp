/// Disks are judged by the kernel project's own tools: fsck.erofs reads and extracts them.

#include <fcntl.h>
#include <sys/stat.h>
#include <cstdlib>
#include <filesystem>

#include <doctest/doctest.h>

#include "base/file.h"
#include "base/process.h"
#include "image/bytes.h"
#include "image/erofs_writer.h"
#include "image/test_archive.h"

namespace fs = std::filesystem;
using base::Deadline;
using image_test::Member;

namespace {

constexpr int tool_timeout_ms = 20'000;

image::ByteSource bytes_of(std::string bytes) {
  return [bytes = std::move(bytes),
          at = size_t{0}](std::span<char> buffer) mutable -> base::Result<size_t> {
    const size_t count = bytes.copy(buffer.data(), buffer.size(), at);
    at += count;
    return count;
  };
}

struct Disk {
  fs::path folder;
  fs::path path() const { return folder / "layer.erofs"; }
  fs::path root() const { return folder / "root"; }

  Disk() {
    std::string name = (fs::temp_directory_path() / "erofs-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder = name;
  }
  ~Disk() { fs::remove_all(folder); }

  base::Result<> write(const std::vector<Member>& members, uint64_t unpacked_max = 1u << 30) {
    const auto file = TRY(base::open_file(path(), O_RDWR | O_CREAT | O_TRUNC));
    image::ErofsOptions options;
    options.unpacked_bytes_max = unpacked_max;
    options.tree = {.entries_max = 1000, .metadata_bytes_max = 1u << 20};
    image::ErofsWriter writer(file.get(), options);
    auto reader = TRY(image::TarReader::create(bytes_of(image_test::tar(members))));
    while (const auto entry = TRY(reader.next())) TRY(writer.add(*entry, reader));
    return writer.finish({1, 2, 3});
  }

  void extract() {
    const auto checked = base::run_process(
        {"/usr/bin/fsck.erofs", "--preserve-perms", "--extract=" + root().string(), path()},
        Deadline::in_ms(tool_timeout_ms));
    REQUIRE(checked);
    REQUIRE_MESSAGE(checked->exit_code == 0, checked->output);
  }
  std::string read(const std::string& name) const {
    return base::read_file(root() / name, 100u << 20).value_or("(absent)");
  }
};

}  // namespace

TEST_CASE("files of every size come back, with modes, links and devices") {
  Disk disk;
  std::string large(1u << 20, '\0');
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 7 + i / 4096);
  REQUIRE(disk.write({{.name = "./", .type = '5', .mode = 0711},
                      {.name = "./etc/", .type = '5', .mode = 0755},
                      {.name = "./etc/empty", .content = ""},
                      {.name = "etc/small", .content = "small\n", .mode = 04755},
                      {.name = "etc/page", .content = std::string(4096, 'p')},
                      {.name = "etc/odd", .content = std::string(5000, 'o'), .mode = 0640},
                      {.name = "deep/er/still", .content = large},
                      {.name = "etc/hard", .type = '1', .link = "etc/small"},
                      {.name = "etc/soft", .type = '2', .link = "../deep"},
                      {.name = "null", .type = '3', .mode = 0666}}));
  disk.extract();
  CHECK(disk.read("etc/empty").empty());
  CHECK(disk.read("etc/small") == "small\n");
  CHECK(disk.read("etc/page") == std::string(4096, 'p'));
  CHECK(disk.read("etc/odd") == std::string(5000, 'o'));
  CHECK(disk.read("deep/er/still") == large);
  CHECK(fs::read_symlink(disk.root() / "etc/soft") == "../deep");
  const auto shown = base::run_process({"/usr/bin/dump.erofs", "--path=/etc/small", disk.path()},
                                       Deadline::in_ms(tool_timeout_ms));
  REQUIRE(shown);
  CHECK_MESSAGE(shown->output.find("Links: 2") != std::string::npos, shown->output);
  struct stat info {};
  REQUIRE(::stat((disk.root() / "etc/odd").c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0640);
  CHECK(info.st_mtime == 1'700'000'000);
}

TEST_CASE("a folder of many names is found whole") {
  Disk disk;
  std::vector<Member> members;
  for (int i = 0; i < 900; ++i)
    members.push_back({.name = fmt::format("many/name-{:04}", i), .content = std::to_string(i)});
  REQUIRE(disk.write(members));
  disk.extract();
  size_t count = 0;
  for (const auto& entry : fs::directory_iterator(disk.root() / "many")) {
    ++count;
    const std::string name = entry.path().filename();
    CHECK(disk.read("many/" + name) == std::to_string(std::stoi(name.substr(5))));
  }
  CHECK(count == 900);
}

TEST_CASE("names cannot leave the root, and links on the way are not followed") {
  Disk disk;
  REQUIRE(disk.write({{.name = "../../escape", .content = "in"},
                      {.name = "/absolute", .content = "in too"},
                      {.name = "link", .type = '2', .link = "/etc"},
                      {.name = "link/passwd", .content = "own"}}));
  disk.extract();
  CHECK(disk.read("escape") == "in");
  CHECK(disk.read("absolute") == "in too");
  CHECK(disk.read("link/passwd") == "own");
  CHECK(fs::is_directory(fs::symlink_status(disk.root() / "link")));
}

TEST_CASE("the last of two members of one name counts") {
  Disk disk;
  REQUIRE(disk.write({{.name = "a", .content = "first"},
                      {.name = "a", .content = "second"},
                      {.name = "b/c", .content = "c"},
                      {.name = "b", .content = "now a file"}}));
  disk.extract();
  CHECK(disk.read("a") == "second");
  CHECK(disk.read("b") == "now a file");
}

TEST_CASE("whiteouts become character devices 0/0, unless the layer itself brings the name") {
  Disk disk;
  REQUIRE(disk.write({{.name = "etc/.wh.gone", .content = ""},
                      {.name = "etc/.wh.back", .content = ""},
                      {.name = "etc/back", .content = "new"},
                      {.name = ".wh..wh..opq", .content = ""}}));
  CHECK(image::layer_hides_everything_below(disk.path()).value());
  const auto listed = base::run_process({"/usr/bin/dump.erofs", "--path=/etc/gone", disk.path()},
                                        Deadline::in_ms(tool_timeout_ms));
  REQUIRE(listed);
  CHECK(listed->exit_code == 0);
  disk.extract();
  CHECK(disk.read("etc/back") == "new");
}

TEST_CASE("folders that no member is, and the way to them, are marked for the guest") {
  image::ErofsTree tree({.entries_max = 100, .metadata_bytes_max = 1u << 20});
  const auto add = [&](const char* path, image::TarType type) {
    image::TarEntry entry;
    entry.path = path;
    entry.type = type;
    entry.mode = 0711;
    REQUIRE(tree.add(entry));
  };
  add("./", image::TarType::Directory);
  add("usr", image::TarType::Directory);
  add("usr/lib/deep/x", image::TarType::File);
  add("late/y", image::TarType::File);
  add("late", image::TarType::Directory);
  REQUIRE(tree.settle_whiteouts());

  const auto mark = [&](const image::ErofsInode& inode) {
    std::string marks;
    for (const uint32_t id : inode.xattrs)
      if (tree.xattrs()[id].find("overlay.implied") != std::string::npos)
        marks += tree.xattrs()[id][4 + std::string_view("overlay.implied").size()];
    return marks;
  };
  const auto& inodes = tree.inodes();
  const auto child = [&](const image::ErofsInode& folder, const char* name) -> const auto& {
    return inodes[folder.folder->children.at(name)];
  };
  const auto& usr = child(inodes[0], "usr");
  CHECK(mark(inodes[0]) == "p");
  CHECK(mark(usr) == "p");
  CHECK(mark(child(usr, "lib")) == "y");
  CHECK(mark(child(child(usr, "lib"), "deep")) == "y");
  CHECK(mark(child(inodes[0], "late")) == "");
}

TEST_CASE("the same members give the same bytes") {
  Disk one;
  Disk two;
  const std::vector<Member> members{{.name = "a", .content = "x"}, {.name = "b/c", .content = "y"}};
  REQUIRE(one.write(members));
  REQUIRE(two.write(members));
  CHECK(base::read_file(one.path(), 1u << 20).value() ==
        base::read_file(two.path(), 1u << 20).value());
}

TEST_CASE("a layer over its limits is refused with a reason") {
  Disk disk;
  const auto bomb = disk.write({{.name = "big", .content = std::string(5000, 'x')}}, 4096);
  REQUIRE_FALSE(bomb);
  CHECK(bomb.error().to_string().find("'big' goes over it") != std::string::npos);
  std::vector<Member> members;
  for (int i = 0; i < 1200; ++i) members.push_back({.name = fmt::format("f{}", i), .content = ""});
  CHECK_FALSE(disk.write(members));
  CHECK_FALSE(disk.write({{.name = "a", .type = '1', .link = "nowhere"}}));
}
