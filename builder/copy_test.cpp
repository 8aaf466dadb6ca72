/// What a COPY takes and where it lands: one line per member of the layer.

#include <doctest/doctest.h>

#include "builder/copy.h"
#include "builder/tar_tree.h"
#include "builder/test_tree.h"
#include "image/tar_reader.h"
#include "image/test_archive.h"

using namespace builder;
using builder_test::MemoryTree;

namespace {

std::string layer_tar(const Layer& layer, const LayerWriteOptions& options = {}) {
  std::string tar;
  const auto written = write_layer(layer, options, [&](std::string_view bytes) -> base::Result<> {
    tar += bytes;
    return {};
  });
  return written ? tar : "error: " + written.error().to_string();
}

image::ByteSource bytes_of(std::string bytes) {
  return [bytes = std::move(bytes),
          at = size_t{0}](std::span<char> buffer) mutable -> base::Result<size_t> {
    const size_t count = bytes.copy(buffer.data(), buffer.size(), at);
    at += count;
    return count;
  };
}

/// `path mode owner [-> link|= content]`, read back by another program's eyes.
std::string show(const std::string& tar) {
  if (tar.starts_with("error: ")) return tar;
  auto reader = image::TarReader::create(bytes_of(tar)).value();
  std::string text;
  while (const auto entry = reader.next().value()) {
    text += fmt::format("{} {:o} {}:{}", entry->path, entry->mode, entry->user, entry->group);
    if (entry->type == image::TarType::Symlink) text += " -> " + entry->link;
    if (entry->type == image::TarType::HardLink) text += " == " + entry->link;
    std::string content;
    if (entry->type == image::TarType::File) {
      REQUIRE(reader.read_content([&](uint64_t, std::string_view bytes) -> base::Result<> {
        content += bytes;
        return {};
      }));
      text += " = " + content;
    }
    text += "\n";
  }
  return text;
}

std::string copy(const CopyRequest& request, const Tree* destination = nullptr) {
  const auto selection = select_copy(request);
  if (!selection) return "error: " + selection.error().to_string();
  const auto layer = place_copy(*selection, destination, destination);
  if (!layer) return "error: " + layer.error().to_string();
  return show(layer_tar(*layer));
}

std::string key(const CopyRequest& request) { return copy_key(**select_copy(request)).value(); }

MemoryTree context() {
  MemoryTree tree;
  tree.file("a.txt", "A").file("b.txt", "B", 0600).file("dir/x", "X").file("dir/sub/y", "Y");
  tree.at("dir/sub").mode = 0750;
  tree.link("to-dir", "dir").link("to-a", "a.txt").link("dir/l", "../a.txt");
  return tree;
}

}  // namespace

TEST_CASE("a file goes to a name, or into a folder") {
  const MemoryTree tree = context();
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = "/x/y"}) ==
        "x/ 755 0:0\nx/y 644 0:0 = A\n");
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = "/x/y/"}) ==
        "x/ 755 0:0\nx/y/ 755 0:0\nx/y/a.txt 644 0:0 = A\n");
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = ".", .working_dir = "/w"}) ==
        "w/ 755 0:0\nw/a.txt 644 0:0 = A\n");
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = "b", .working_dir = "/w"}) ==
        "w/ 755 0:0\nw/b 644 0:0 = A\n");
  MemoryTree root;
  root.folder("x/y", 0711);
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = "/x/y"}, &root) ==
        "x/ 755 0:0\nx/y/ 711 0:0\nx/y/a.txt 644 0:0 = A\n");
}

TEST_CASE("of a folder what is in it is copied") {
  const MemoryTree tree = context();
  CHECK(copy({.source = &tree, .sources = {"dir"}, .target = "/to"}) ==
        "to/ 755 0:0\nto/l 777 0:0 -> ../a.txt\nto/sub/ 750 0:0\nto/sub/y 644 0:0 = Y\n"
        "to/x 644 0:0 = X\n");
  CHECK(copy({.source = &tree, .sources = {"to-dir/"}, .target = "/to"}) ==
        copy({.source = &tree, .sources = {"dir"}, .target = "/to"}));
  CHECK(copy({.source = &tree, .sources = {"to-a"}, .target = "/to/"}) ==
        "to/ 755 0:0\nto/to-a 644 0:0 = A\n");
  CHECK(copy({.source = &tree, .sources = {"dir/sub", "a.txt"}, .target = "/"}) ==
        "a.txt 644 0:0 = A\ny 644 0:0 = Y\n");
}

TEST_CASE("existing folders keep what they are at the target, and take it below") {
  const MemoryTree tree = context();
  MemoryTree root;
  root.folder("to", 0700).folder("to/sub", 0711);
  root.at("to").user = 5;
  CHECK(copy({.source = &tree, .sources = {"dir"}, .target = "/to"}, &root) ==
        "to/ 700 5:0\nto/l 777 0:0 -> ../a.txt\nto/sub/ 750 0:0\nto/sub/y 644 0:0 = Y\n"
        "to/x 644 0:0 = X\n");
}

TEST_CASE("globs, several sources, and the folder they need") {
  const MemoryTree tree = context();
  CHECK(copy({.source = &tree, .sources = {"*.txt"}, .target = "/t/"}) ==
        "t/ 755 0:0\nt/a.txt 644 0:0 = A\nt/b.txt 600 0:0 = B\n");
  CHECK(copy({.source = &tree, .sources = {"d*/[x-z]"}, .target = "/t/"}) ==
        "t/ 755 0:0\nt/x 644 0:0 = X\n");
  CHECK(copy({.source = &tree, .sources = {"*.none", "a.txt"}, .target = "/t/"}) ==
        "t/ 755 0:0\nt/a.txt 644 0:0 = A\n");
  CHECK(copy({.source = &tree, .sources = {"*.none"}, .target = "/t/"}) == "");
  CHECK(copy({.source = &tree, .sources = {"a.txt", "b.txt"}, .target = "/t"})
            .find("a target that is a folder ends with '/'") != std::string::npos);
  MemoryTree root;
  root.folder("t");
  CHECK(copy({.source = &tree, .sources = {"a.txt", "b.txt"}, .target = "/t"}, &root) ==
        "t/ 755 0:0\nt/a.txt 644 0:0 = A\nt/b.txt 600 0:0 = B\n");
}

TEST_CASE("a source that is missing is told with the nearest name") {
  const MemoryTree tree = context();
  CHECK(copy({.source = &tree, .sources = {"a.tx"}, .target = "/t"}) ==
        "error: 'a.tx' is not in the build context; did you mean 'a.txt'?");
  CHECK(copy({.source = &tree, .sources = {"dir/sbu/y"}, .target = "/t"}) ==
        "error: 'dir/sbu/y' is not in the build context; did you mean 'dir/sub'?");
  CHECK(copy({.source = &tree, .sources = {"../../a.txt"}, .target = "/t"}) == "t 644 0:0 = A\n");
}

TEST_CASE("the target is found through the destination's links, and never above its root") {
  const MemoryTree tree = context();
  MemoryTree root;
  root.folder("usr/lib", 0711).link("lib", "usr/lib").link("out", "../../../etc");
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = "/lib/"}, &root) ==
        "usr/ 755 0:0\nusr/lib/ 711 0:0\nusr/lib/a.txt 644 0:0 = A\n");
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = "/out/x"}, &root) ==
        "etc/ 755 0:0\netc/x 644 0:0 = A\n");
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = "/../../x"}, &root) ==
        "x 644 0:0 = A\n");
}

TEST_CASE("no file replaces a folder, no folder a file or a link") {
  const MemoryTree tree = context();
  MemoryTree root;
  root.folder("t/a.txt").file("u/sub", "").link("v/sub", "/usr").file("w", "");
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = "/t/"}, &root)
            .find("a file would replace the folder '/t/a.txt'") != std::string::npos);
  CHECK(copy({.source = &tree, .sources = {"dir"}, .target = "/u"}, &root)
            .find("a folder would replace '/u/sub', which is no folder") != std::string::npos);
  CHECK(copy({.source = &tree, .sources = {"dir"}, .target = "/v"}, &root)
            .find("'/v/sub', which is a symbolic link") != std::string::npos);
  CHECK(copy({.source = &tree, .sources = {"dir"}, .target = "/w"}, &root)
            .find("'/w' is no folder") != std::string::npos);
}

TEST_CASE("with link the destination is not looked at") {
  const MemoryTree tree = context();
  MemoryTree root;
  root.folder("usr/lib", 0711).link("lib", "usr/lib");
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = "/lib/", .link = true}, &root) ==
        "lib/ 755 0:0\nlib/a.txt 644 0:0 = A\n");
}

TEST_CASE("owners and modes") {
  const MemoryTree tree = context();
  MemoryTree root;
  root.file("etc/passwd", "web:x:33:44::/:/bin/sh\n");
  CHECK(copy({.source = &tree, .sources = {"dir/sub"}, .target = "/t", .chown = "web"}, &root) ==
        "t/ 755 33:44\nt/y 644 33:44 = Y\n");
  CHECK(copy({.source = &tree, .sources = {"dir"}, .target = "/t", .chmod = "u=rwX,go=rX"}) ==
        "t/ 755 0:0\nt/l 777 0:0 -> ../a.txt\nt/sub/ 755 0:0\nt/sub/y 644 0:0 = Y\n"
        "t/x 644 0:0 = X\n");
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = "/t", .chmod = "4711"}) ==
        "t 4711 0:0 = A\n");
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = "/t", .chmod = "8"})
            .find("'8' is no mode") != std::string::npos);
  CHECK(copy({.source = &tree, .sources = {"a.txt"}, .target = "/t", .chown = "x"}, &root)
            .find("error: --chown: there is no user 'x'") != std::string::npos);
}

TEST_CASE("symbolic modes are those of chmod") {
  const auto mode = [](std::string_view text, uint32_t from, bool folder = false) {
    return changed_mode(text, from, folder).value_or(0);
  };
  CHECK(mode("+x", 0644) == 0755);
  CHECK(mode("a-w", 0666) == 0444);
  CHECK(mode("u+s,g-r", 0755) == 04715);
  CHECK(mode("go=", 0777) == 0700);
  CHECK(mode("g=u", 0740) == 0770);
  CHECK(mode("o=g-w", 0770) == 0775);
  CHECK(mode("+X", 0644) == 0644);
  CHECK(mode("+X", 0744) == 0755);
  CHECK(mode("+X", 0644, true) == 0755);
  CHECK(mode("+t", 0755, true) == 01755);
  CHECK(mode("0", 0777) == 0);
  CHECK_FALSE(changed_mode("u", 0, false));
  CHECK_FALSE(changed_mode("", 0, false));
  CHECK_FALSE(changed_mode("u+rw,", 0, false));
  CHECK_FALSE(changed_mode("10000", 0, false));
}

TEST_CASE("patterns leave out, and may let in again") {
  const MemoryTree tree = context();
  CHECK(copy({.source = &tree, .sources = {"dir"}, .target = "/t", .exclude = {"sub", "l"}}) ==
        "t/ 755 0:0\nt/x 644 0:0 = X\n");
  CHECK(copy({.source = &tree, .sources = {"dir"}, .target = "/t", .exclude = {"*", "!sub/y"}}) ==
        "t/ 755 0:0\nt/sub/ 750 0:0\nt/sub/y 644 0:0 = Y\n");
  CHECK(copy({.source = &tree, .sources = {"*.txt"}, .target = "/t/", .exclude = {"a*"}}) ==
        "t/ 755 0:0\nt/b.txt 600 0:0 = B\n");
}

TEST_CASE("with parents sources keep their folders, behind the pivot") {
  const MemoryTree tree = context();
  CHECK(copy({.source = &tree, .sources = {"dir/sub/y"}, .target = "/t/", .parents = true}) ==
        "t/ 755 0:0\nt/dir/ 755 0:0\nt/dir/sub/ 750 0:0\nt/dir/sub/y 644 0:0 = Y\n");
  CHECK(copy({.source = &tree, .sources = {"dir/./sub/y"}, .target = "/t/", .parents = true}) ==
        "t/ 755 0:0\nt/sub/ 750 0:0\nt/sub/y 644 0:0 = Y\n");
  CHECK(copy({.source = &tree, .sources = {"**/y"}, .target = "/t/", .parents = true}) ==
        "t/ 755 0:0\nt/dir/ 755 0:0\nt/dir/sub/ 750 0:0\nt/dir/sub/y 644 0:0 = Y\n");
  CHECK(copy({.source = &tree, .sources = {"dir/sub"}, .target = "/t/", .parents = true}) ==
        "t/ 755 0:0\nt/dir/ 755 0:0\nt/dir/sub/ 750 0:0\nt/dir/sub/y 644 0:0 = Y\n");
  CHECK(copy({.source = &tree, .sources = {"dir/z"}, .target = "/t/", .parents = true})
            .find("'dir/z' is not in the build context") != std::string::npos);
}

TEST_CASE("here documents and downloads are files") {
  const CopyRequest request{
      .files = {{.name = "a", .content = "1"}, {.name = "b", .content = "2", .mode = 0600}},
      .target = "/t/"};
  CHECK(copy(request) == "t/ 755 0:0\nt/a 644 0:0 = 1\nt/b 600 0:0 = 2\n");
  CHECK(copy({.files = {{.name = "EOF", .content = "1"}}, .target = "/t"}) == "t 644 0:0 = 1\n");
  CHECK(copy({.files = {{.name = "a/b", .content = "1"}}, .target = "/t/"})
            .find("cannot be the name of a file") != std::string::npos);
}

TEST_CASE("ADD unpacks archives with their owners, over what is there") {
  MemoryTree tree;
  tree.file("x.tar", image_test::tar({{.name = "d/", .type = '5', .mode = 0700, .user = 7},
                                      {.name = "d/f", .content = "F", .mode = 0640, .user = 8},
                                      {.name = "g", .content = "G"}}));
  tree.file("text.tar", "no archive");
  MemoryTree root;
  root.folder("t", 0711).folder("t/g").link("t/d", "/usr");
  CHECK(copy({.source = &tree, .sources = {"x.tar"}, .target = "/t", .chown = "1", .unpack = true},
             &root) == "t/ 711 0:0\nt/d/ 700 7:7\nt/d/f 640 8:8 = F\nt/g 644 0:0 = G\n");
  CHECK(copy({.source = &tree, .sources = {"text.tar"}, .target = "/t/", .unpack = true}) ==
        "t/ 755 0:0\nt/text.tar 644 0:0 = no archive\n");
  CHECK(copy({.source = &tree, .sources = {"x.tar"}, .target = "/u"}).find("u 644") == 0);
}

TEST_CASE("hard links, attributes and devices are kept, sockets are not") {
  MemoryTree tree;
  tree.file("d/z", "Z").file("d/a", "Z");
  tree.at("d/z").hard_link_id = tree.at("d/a").hard_link_id = 9;
  tree.put("d/null",
           {.type = NodeType::CharacterDevice, .mode = 0666, .device_major = 1, .device_minor = 3});
  tree.put("d/socket", {.type = NodeType::Socket});
  tree.at("d/a").xattrs = tree.at("d/z").xattrs = {{"user.x", std::string("1\0002", 3)}};
  const auto selection = select_copy({.source = &tree, .sources = {"d"}, .target = "/t"}).value();
  const std::string tar = layer_tar(place_copy(selection, nullptr, nullptr).value());
  CHECK(show(tar) == "t/ 755 0:0\nt/a 644 0:0 = Z\nt/null 666 0:0\nt/z 644 0:0 == t/a\n");
  auto reader = image::TarReader::create(bytes_of(tar)).value();
  REQUIRE(reader.next().value());
  const auto file = reader.next().value();
  REQUIRE(file->xattrs.size() == 1);
  CHECK(file->xattrs[0].second == std::string("1\0002", 3));
}

TEST_CASE("names that a layer would read as deletions are refused") {
  MemoryTree tree;
  tree.file("d/.wh.x", "");
  CHECK(copy({.source = &tree, .sources = {"d"}, .target = "/t"})
            .find("has a name that image layers read as a deletion") != std::string::npos);
}

TEST_CASE("the key names contents and not times, and everything that changes the layer") {
  MemoryTree tree = context();
  const CopyRequest request{.source = &tree, .sources = {"dir"}, .target = "/t"};
  const std::string first = key(request);
  tree.at("dir/x").modified_s = 12345;
  tree.file("unused", "u");
  CHECK(key(request) == first);
  CopyRequest other = request;
  other.target = "/t2";
  CHECK(key(other) != first);
  other = request;
  other.chmod = "755";
  CHECK(key(other) != first);
  tree.at("dir/x").mode = 0600;
  const std::string with_mode = key(request);
  CHECK(with_mode != first);
  tree.file("dir/x", "Y", 0600);
  CHECK(key(request) != with_mode);
}

TEST_CASE("the same copy gives the same bytes, and no time later than asked for") {
  MemoryTree tree = context();
  tree.at("a.txt").modified_s = 2'000'000'000;
  tree.at("b.txt").modified_s = 5;
  const auto layer =
      place_copy(select_copy({.source = &tree, .sources = {"*.txt"}, .target = "/t/"}).value(),
                 nullptr, nullptr);
  const LayerWriteOptions options{.latest_s = 1'000'000'000, .made_s = 1'700'000'000};
  const std::string tar = layer_tar(*layer, options);
  CHECK(tar == layer_tar(*layer, options));
  auto reader = image::TarReader::create(bytes_of(tar)).value();
  CHECK(reader.next().value()->modified_s == 1'000'000'000);
  CHECK(reader.next().value()->modified_s == 1'000'000'000);
  CHECK(reader.next().value()->modified_s == 5);
}

TEST_CASE("long names, large numbers and other letters survive the archive") {
  MemoryTree tree;
  const std::string name = std::string(200, 'n') + "\xC3\xA4";
  tree.file("d/" + name, "x");
  tree.at("d/" + name).user = 4'000'000'000;
  tree.at("d/" + name).modified_s = -5;
  CHECK(copy({.source = &tree, .sources = {"d"}, .target = "/t"}) ==
        "t/ 755 0:0\nt/" + name + " 644 4000000000:0 = x\n");
}

TEST_CASE("a working directory is made where it is missing, as its user's") {
  MemoryTree root;
  root.folder("usr/app", 0711).link("app", "usr/app").file("etc/passwd", "web:x:33:44::/:\n");
  CHECK(place_working_dir("/app", "", &root)->entries.empty());
  CHECK(show(layer_tar(place_working_dir("/app/a/b", "web", &root).value())) ==
        "usr/ 755 0:0\nusr/app/ 711 0:0\nusr/app/a/ 755 33:44\nusr/app/a/b/ 755 33:44\n");
  CHECK(show(layer_tar(place_working_dir("/w", "", nullptr).value())) == "w/ 755 0:0\n");
  root.file("file", "");
  CHECK_FALSE(place_working_dir("/file", "", &root));
}

TEST_CASE("a whole tree, or a part of it, as an archive") {
  const MemoryTree tree = context();
  std::string tar;
  REQUIRE(write_tree(tree, "dir", {}, [&](std::string_view bytes) -> base::Result<> {
    tar += bytes;
    return {};
  }));
  CHECK(show(tar) == "l 777 0:0 -> ../a.txt\nsub/ 750 0:0\nsub/y 644 0:0 = Y\nx 644 0:0 = X\n");
}
