/// Layers written by our writer and read as one root; damaged ones are refused.

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "image/bytes.h"
#include "image/erofs_writer.h"
#include "image/root_view.h"
#include "image/test_archive.h"

namespace fs = std::filesystem;
using image_test::Member;

namespace {

image::ByteSource bytes_of(std::string bytes) {
  return [bytes = std::move(bytes),
          at = size_t{0}](std::span<char> buffer) mutable -> base::Result<size_t> {
    const size_t count = bytes.copy(buffer.data(), buffer.size(), at);
    at += count;
    return count;
  };
}

/// Disks of layers, lowest first.
struct Layers {
  fs::path folder;
  std::vector<std::string> disks;

  Layers() {
    std::string name = (fs::temp_directory_path() / "root-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder = name;
  }
  ~Layers() { fs::remove_all(folder); }

  Layers& add(const std::vector<Member>& members) {
    disks.push_back(folder / fmt::format("{}.erofs", disks.size()));
    REQUIRE(write(disks.back(), members));
    return *this;
  }
  static base::Result<> write(const std::string& path, const std::vector<Member>& members) {
    const auto file = TRY(base::open_file(path, O_RDWR | O_CREAT | O_TRUNC));
    image::ErofsOptions options;
    options.unpacked_bytes_max = 1u << 30;
    options.tree = {.entries_max = 10'000, .metadata_bytes_max = 16u << 20};
    image::ErofsWriter writer(file.get(), options);
    auto reader = TRY(image::TarReader::create(bytes_of(image_test::tar(members))));
    while (const auto entry = TRY(reader.next())) TRY(writer.add(*entry, reader));
    return writer.finish({1, 2, 3});
  }
  std::unique_ptr<image::RootView> open() const { return image::RootView::open(disks).value(); }
};

std::string names(const image::RootView& view, std::string_view path) {
  const auto children = view.list(path);
  if (!children) return "error: " + children.error().to_string();
  std::string all;
  for (const auto& [name, node] : *children) all += name + " ";
  return all;
}

std::string content(const image::RootView& view, std::string_view path) {
  std::string all;
  const auto read = view.read(path, [&](std::string_view bytes) -> base::Result<> {
    all += bytes;
    return {};
  });
  return read ? all : "error: " + read.error().to_string();
}

/// Reads everything there is; what counts is that it comes back.
void walk(const image::RootView& view, const std::string& path, int depth) {
  const auto children = view.list(path);
  if (!children || depth > 8) return;
  for (const auto& [name, node] : *children) {
    const std::string below = path.empty() ? name : path + "/" + name;
    if (S_ISDIR(node.mode)) walk(view, below, depth + 1);
    if (S_ISREG(node.mode) && node.size < (1u << 20)) content(view, below);
  }
}

}  // namespace

TEST_CASE("a layer is read back as it was written") {
  std::string large(300'000, '\0');
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 31 + i / 4096);
  Layers layers;
  layers.add({{.name = "etc/", .type = '5', .mode = 0711, .user = 70'000},
              {.name = "etc/small", .content = "small", .mode = 04755, .user = 5},
              {.name = "etc/page", .content = std::string(4096, 'p')},
              {.name = "etc/large", .content = large},
              {.name = "etc/empty", .content = ""},
              {.name = "etc/other", .type = '1', .link = "etc/small"},
              {.name = "link", .type = '2', .link = "etc/small"},
              {.name = "null", .type = '3', .mode = 0666},
              {.name = "fifo", .type = '6'}});
  const auto view = layers.open();
  CHECK(names(*view, "") == "etc fifo link null ");
  CHECK(names(*view, "etc") == "empty large other page small ");
  CHECK(view->node("etc")->mode == (S_IFDIR | 0711));
  CHECK(view->node("etc")->user == 70'000);
  CHECK(view->node("etc/small")->mode == (S_IFREG | 04755));
  CHECK(view->node("etc/small")->modified_s == 1'700'000'000);
  CHECK(view->node("etc/small")->hard_link_id != 0);
  CHECK(view->node("etc/small")->hard_link_id == view->node("etc/other")->hard_link_id);
  CHECK(view->node("etc/page")->hard_link_id == 0);
  CHECK(view->node("link")->link == "etc/small");
  CHECK(view->node("null")->device_major == 1);
  CHECK(view->node("null")->device_minor == 3);
  CHECK(content(*view, "etc/other") == "small");
  CHECK(content(*view, "etc/page") == std::string(4096, 'p'));
  CHECK(content(*view, "etc/large") == large);
  CHECK(content(*view, "etc/empty") == "");
  CHECK(view->node("etc/absent").error().code() == base::ErrorCode::NotFound);
  CHECK(view->node("etc/small/x").error().code() == base::ErrorCode::NotFound);
  CHECK_FALSE(view->list("link"));
  CHECK(content(*view, "etc").starts_with("error: "));
}

TEST_CASE("upper layers add, replace and hide") {
  Layers layers;
  layers
      .add({{.name = "a/low", .content = "low"},
            {.name = "a/both", .content = "old"},
            {.name = "gone/x", .content = "x"},
            {.name = "opaque/old", .content = "o"},
            {.name = "file", .content = "f"},
            {.name = "folder/in", .content = "i"}})
      .add({{.name = "a/", .type = '5', .mode = 0700},
            {.name = "a/both", .content = "new"},
            {.name = "a/high", .content = "high"},
            {.name = ".wh.gone", .content = ""},
            {.name = "opaque/.wh..wh..opq", .content = ""},
            {.name = "opaque/new", .content = "n"},
            {.name = "file/now", .content = "folder"},
            {.name = "folder", .content = "file"}});
  const auto view = layers.open();
  CHECK(names(*view, "") == "a file folder opaque ");
  CHECK(names(*view, "a") == "both high low ");
  CHECK(view->node("a")->mode == (S_IFDIR | 0700));
  CHECK(content(*view, "a/both") == "new");
  CHECK(content(*view, "a/low") == "low");
  CHECK(view->node("gone").error().code() == base::ErrorCode::NotFound);
  CHECK(view->node("gone/x").error().code() == base::ErrorCode::NotFound);
  CHECK(names(*view, "opaque") == "new ");
  CHECK(view->node("opaque")->xattrs.empty());
  CHECK(names(*view, "file") == "now ");
  CHECK(content(*view, "folder") == "file");
  CHECK(view->node("folder/in").error().code() == base::ErrorCode::NotFound);
}

TEST_CASE("a folder that a layer does not list looks as the one below") {
  Layers layers;
  layers
      .add({{.name = "./", .type = '5', .mode = 0711},
            {.name = "d/", .type = '5', .mode = 01777, .user = 5},
            {.name = "d/a", .content = "1"}})
      .add({{.name = "d/b", .content = "2"}, {.name = "only/here", .content = "3"}});
  const auto view = layers.open();
  CHECK(view->node("")->mode == (S_IFDIR | 0711));
  CHECK(view->node("d")->mode == (S_IFDIR | 01777));
  CHECK(view->node("d")->user == 5);
  CHECK(view->list("")->at(0).second.mode == (S_IFDIR | 01777));
  CHECK(names(*view, "d") == "a b ");
  CHECK(view->node("only")->mode == (S_IFDIR | 0755));
}

TEST_CASE("what a middle layer hides does not come back") {
  Layers layers;
  layers.add({{.name = "d/a", .content = "1"}})
      .add({{.name = ".wh.d", .content = ""}})
      .add({{.name = "d/b", .content = "2"}});
  const auto view = layers.open();
  CHECK(names(*view, "d") == "b ");
  CHECK(view->node("d/a").error().code() == base::ErrorCode::NotFound);
}

TEST_CASE("a folder of many names, and attributes that are shared or not") {
  std::vector<Member> members;
  for (int i = 0; i < 2000; ++i)
    members.push_back({.name = fmt::format("many/name-{:05}", i), .content = std::to_string(i)});
  members.push_back(image_test::pax({{"SCHILY.xattr.user.one", "shared"}}));
  members.push_back({.name = "x", .content = "x"});
  members.push_back(image_test::pax(
      {{"SCHILY.xattr.user.one", "shared"}, {"SCHILY.xattr.security.capability", "own"}}));
  members.push_back({.name = "y", .content = "y"});
  Layers layers;
  layers.add(members);
  const auto view = layers.open();
  CHECK(view->list("many")->size() == 2000);
  CHECK(content(*view, "many/name-01234") == "1234");
  using Xattrs = std::vector<std::pair<std::string, std::string>>;
  CHECK(view->node("x")->xattrs == Xattrs{{"user.one", "shared"}});
  CHECK(view->node("y")->xattrs == Xattrs{{"security.capability", "own"}, {"user.one", "shared"}});
}

TEST_CASE("no layers give an empty root") {
  const auto view = image::RootView::open({}).value();
  CHECK(names(*view, "") == "");
  CHECK(view->node("")->mode == (S_IFDIR | 0755));
}

TEST_CASE("a damaged disk is an error, wherever the damage is") {
  Layers layers;
  layers.add({{.name = "d/small", .content = "small"},
              {.name = "d/large", .content = std::string(10'000, 'x')},
              {.name = "l", .type = '2', .link = "d/small"}});
  std::ifstream file(layers.disks[0], std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(file)), {});
  const std::string copy = layers.folder / "damaged";
  const auto with = [&](const std::string& bytes) {
    std::ofstream(copy, std::ios::binary) << bytes;
    const auto view = image::RootView::open({copy});
    if (view) walk(**view, "", 0);
    return view.has_value();
  };
  CHECK(with(whole));
  CHECK_FALSE(with(""));
  CHECK_FALSE(with(whole.substr(0, 2000)));
  with(whole.substr(0, whole.size() - 4096));
  // Every byte of the superblock and of the metadata, one after the other.
  const size_t metadata = whole.size() - 4096;
  for (const int value : {0x00, 0x7f, 0xff}) {
    for (size_t at = 1024; at < 1152; ++at) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(value);
      with(damaged);
    }
    for (size_t at = metadata; at < whole.size(); at += 3) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(value);
      with(damaged);
    }
  }
}
