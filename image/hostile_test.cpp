/// Layers and archives of strangers, one test for each way they are known to attack.
///
/// The rows of the attack table, and where each is tested. What the host never does it cannot do
/// wrong: names of a layer become entries of a disk, no files, so that no link is ever followed
/// and no device made.
///
///   A1   names with `..`, absolute names        here, save_test (members of the archive itself)
///   A2   writing through symbolic links         here
///   A3   hard links to the host                 here
///   A4   the root replaced                      here
///   A5   /dev, /etc as symbolic links           here; e2e image_test runs one
///   A6   the archive's own files as links       here
///   A7   whiteouts                              here
///   A8   devices, fifos                         here
///   A9   owners, setuid                         here
///   A10  extended attributes                    here
///   A11  names, depth, control bytes            here
///   A12  bombs                                  here; e2e image_test fills a disk
///   A13  zstd windows, empty frames             here
///   A14  malformed gzip, zstd, tar              here; fuzz targets image_*
///   A15  a config as instructions               here
///   A16  volumes through symbolic links         e2e image_test
///   B1   lies about digest, size, diff id       here, images_test
///   B2   manifest or index                      here, images_test
///   B3   nested, huge                           here, images_test
///   B4   a pin that is bypassed                 here; registries: with the registry client
///   B7   a local name taken over                images_test (the notice); e2e image_test

#include <cstdlib>
#include <filesystem>

#include <doctest/doctest.h>
#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include "base/file.h"
#include "base/process.h"
#include "image/images.h"
#include "image/test_archive.h"

namespace fs = std::filesystem;
using base::ErrorCode;
using image_test::Member;
using image_test::oci_members;
using image_test::pax;
using image_test::source_of;
using image_test::tar;
using image_test::TestImage;

namespace {

constexpr int tool_timeout_ms = 20'000;
constexpr const char* name = "localhost/test:1";

std::string gzip(const std::string& bytes) {
  std::string packed(bytes.size() + 4096, '\0');
  isal_zstream stream{};
  isal_deflate_stateless_init(&stream);
  stream.gzip_flag = IGZIP_GZIP;
  stream.end_of_stream = 1;
  std::string copy = bytes;
  stream.next_in = reinterpret_cast<uint8_t*>(copy.data());
  stream.avail_in = static_cast<uint32_t>(copy.size());
  stream.next_out = reinterpret_cast<uint8_t*>(packed.data());
  stream.avail_out = static_cast<uint32_t>(packed.size());
  REQUIRE(isal_deflate_stateless(&stream) == COMP_OK);
  packed.resize(stream.total_out);
  return packed;
}

std::string zstd(const std::string& bytes) {
  std::string packed(ZSTD_compressBound(bytes.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), bytes.data(), bytes.size(), 3));
  return packed;
}

struct System {
  fs::path folder;
  std::unique_ptr<image::Images> images;

  System() {
    std::string made = (fs::temp_directory_path() / "hostile-XXXXXX").string();
    REQUIRE(::mkdtemp(made.data()) != nullptr);
    folder = made;
    images = std::move(image::Images::open({.root = folder / "images"}).value());
  }
  ~System() { fs::remove_all(folder); }

  base::Result<image::Loaded> load(const std::string& archive) {
    return images->load(source_of(archive));
  }

  /// Refused, with nothing of it left; the reason.
  std::string refusal(const std::string& archive) {
    const auto loaded = load(archive);
    REQUIRE_FALSE(loaded);
    CHECK_MESSAGE(loaded.error().code() == ErrorCode::InvalidArgument, loaded.error().to_string());
    CHECK(images->list().value().empty());
    for (const char* part : {"ingest", "blobs/sha256", "layers/sha256"})
      CHECK_MESSAGE(fs::is_empty(folder / "images" / part), part);
    return loaded.error().to_string();
  }

  std::string layer_refusal(const std::vector<Member>& members) {
    return refusal(tar(oci_members({.layers = {tar(members)}})));
  }

  /// The disk of the only layer, unpacked by the kernel project's tool.
  fs::path unpacked(const std::vector<Member>& members) {
    const auto loaded = load(tar(oci_members({.layers = {tar(members)}})));
    REQUIRE_MESSAGE(loaded, loaded.error().to_string());
    return unpack();
  }
  fs::path unpack() {
    const std::string disk = images->resolve(name, "").value().layer_disks.at(0);
    const fs::path root = folder / "root";
    const auto checked =
        base::run_process({"/usr/bin/fsck.erofs", "--extract=" + root.string(), disk},
                          base::Deadline::in_ms(tool_timeout_ms));
    REQUIRE(checked);
    REQUIRE_MESSAGE(checked->exit_code == 0, checked->output);
    return root;
  }
};

std::string content(const fs::path& path) { return base::read_file(path, 1u << 20).value(); }

/// An archive whose only image is `document`, under a name.
std::string archive_of(const std::string& document, std::vector<Member> members) {
  members.push_back(image_test::blob(document));
  std::erase_if(members, [](const Member& member) { return member.name == "index.json"; });
  const nlohmann::json index = {
      {"manifests",
       {{{"digest", image::digest_of(document)},
         {"size", document.size()},
         {"annotations", {{"org.opencontainers.image.ref.name", name}}}}}}};
  members.push_back({.name = "index.json", .content = index.dump()});
  return tar(members);
}

const std::vector<Member> small_layer{{.name = "a", .content = "content of a"}};

}  // namespace

TEST_CASE("gzip and zstd, of the archive and of its layers, give the same disk") {
  System plain;
  REQUIRE(plain.load(tar(oci_members({.layers = {tar(small_layer)}}))));
  const std::string expected =
      base::read_file(plain.images->resolve(name, "").value().layer_disks.at(0), 1u << 20).value();
  for (const auto& pack : {&gzip, &zstd}) {
    System system;
    const TestImage packed{.layers = {tar(small_layer)}, .packed = pack};
    const auto loaded = system.load(pack(tar(oci_members(packed))));
    REQUIRE_MESSAGE(loaded, loaded.error().to_string());
    const std::string disk = system.images->resolve(name, "").value().layer_disks.at(0);
    CHECK(base::read_file(disk, 1u << 20).value() == expected);
  }
}

TEST_CASE("A14: a gzip layer may have several members, and nothing else after them") {
  System system;
  const std::string layer = tar(small_layer);
  const auto halves = [&](const std::string& all) {
    return gzip(all.substr(0, 700)) + gzip(all.substr(700));
  };
  REQUIRE(system.load(tar(oci_members({.layers = {layer}, .packed = halves}))));
  CHECK(content(system.unpack() / "a") == "content of a");
  System strict;
  const auto trailing = [](const std::string& all) { return gzip(all) + "more"; };
  CHECK(strict.refusal(tar(oci_members({.layers = {layer}, .packed = trailing})))
            .find("unknown bytes follow") != std::string::npos);
  const auto cut = [](const std::string& all) {
    const std::string whole = gzip(all);
    return whole.substr(0, whole.size() - 5);
  };
  CHECK(
      strict.refusal(tar(oci_members({.layers = {layer}, .packed = cut}))).find("ends too early") !=
      std::string::npos);
  const auto cut_zstd = [](const std::string& all) {
    const std::string whole = zstd(all);
    return whole.substr(0, whole.size() - 5);
  };
  CHECK(strict.refusal(tar(oci_members({.layers = {layer}, .packed = cut_zstd})))
            .find("ends too early") != std::string::npos);
}

TEST_CASE("A1, A2: names and links that lead outside stay inside the layer's root") {
  System system;
  const fs::path outside = system.folder / "canary";
  fs::create_directory(outside);
  REQUIRE(base::write_file_atomically(outside / "victim", "KEEP"));
  const fs::path root = system.unpacked({{.name = "../../dotdot", .content = "1"},
                                         {.name = "/absolute", .content = "2"},
                                         {.name = "a/../../relative", .content = "3"},
                                         {.name = "link", .type = '2', .link = outside},
                                         {.name = "link/victim", .content = "4"},
                                         {.name = "one", .type = '2', .link = "two"},
                                         {.name = "two", .type = '2', .link = "one"},
                                         {.name = "one/loop", .content = "5"},
                                         {.name = "file", .type = '2', .link = outside / "victim"},
                                         {.name = "file", .content = "6"}});
  CHECK(content(root / "dotdot") == "1");
  CHECK(content(root / "absolute") == "2");
  CHECK(content(root / "relative") == "3");
  CHECK(content(root / "link/victim") == "4");
  CHECK(content(root / "one/loop") == "5");
  CHECK(content(root / "file") == "6");
  CHECK(fs::is_regular_file(fs::symlink_status(root / "file")));
  CHECK(content(outside / "victim") == "KEEP");
  CHECK(std::distance(fs::directory_iterator(outside), fs::directory_iterator{}) == 1);
}

TEST_CASE("A5: folders of the system may be symbolic links, and stay what they are") {
  System system;
  REQUIRE(system.load(
      tar(oci_members({.layers = {tar({{.name = "dev", .type = '2', .link = "/proc"},
                                       {.name = "etc", .type = '2', .link = "/../../tmp"}})}}))));
  const std::string disk = content(system.images->resolve(name, "").value().layer_disks.at(0));
  CHECK(disk.find("/../../tmp") != std::string::npos);
}

TEST_CASE("A8: devices and fifos are entries of the disk, and nothing on the host") {
  System system;
  REQUIRE(system.load(tar(oci_members({.layers = {tar({{.name = "block", .type = '4'},
                                                       {.name = "char", .type = '3'},
                                                       {.name = "fifo", .type = '6'}})}}))));
  for (const auto& entry : fs::recursive_directory_iterator(system.folder))
    CHECK_MESSAGE((entry.is_regular_file() || entry.is_directory()), entry.path());
}

TEST_CASE("A9: setuid and setgid are kept exactly") {
  System system;
  REQUIRE(system.load(
      tar(oci_members({.layers = {tar({{.name = "su", .content = "x", .mode = 06755}})}}))));
  const std::string disk = system.images->resolve(name, "").value().layer_disks.at(0);
  const std::string bytes = content(disk);
  const auto number = [&](size_t at, size_t size) {
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i)
      value |= uint64_t{static_cast<uint8_t>(bytes.at(at + i))} << (8 * i);
    return value;
  };
  // Where EROFS has it: the superblock is at 1024, inodes are counted from meta_blkaddr in units of
  // 32 bytes. dump.erofs, which tells the inode's number, does not show these bits.
  const auto shown = base::run_process({"/usr/bin/dump.erofs", "--path=/su", disk},
                                       base::Deadline::in_ms(tool_timeout_ms));
  REQUIRE(shown);
  const size_t nid = std::stoul(shown->output.substr(shown->output.find("NID: ") + 5));
  const size_t inode = number(1024 + 40, 4) * 4096 + nid * 32;
  CHECK(number(inode + 4, 2) == (0100000u | 06755u));
}

TEST_CASE("A12: a hundred thousand names in one layer are one disk, soon") {
  System system;
  std::vector<Member> members;
  for (int i = 0; i < 100'000; ++i) members.push_back({.name = fmt::format("d/{}", i)});
  const base::Deadline deadline = base::Deadline::in_ms(30'000);
  REQUIRE(system.load(tar(oci_members({.layers = {tar(members)}}))));
  CHECK_FALSE(deadline.passed());
}

TEST_CASE("A12: a header that takes no end is refused") {
  System system;
  const std::string refusal = system.layer_refusal(
      {pax({{"comment", std::string(200u << 20, 'c')}}), {.name = "a", .content = "x"}});
  CHECK_MESSAGE(refusal.find("header too large") != std::string::npos, refusal);
}

TEST_CASE("A15: what a config says is data, bounded, and gives no orders") {
  System system;
  SUBCASE("labels and annotations of our own and of others") {
    const TestImage image{.layers = {tar(small_layer)},
                          .config = {{"Labels",
                                      {{"com.apple.container.resource.role", "builtin"},
                                       {"com.apple.container.plugin", "machine"}}},
                                     {"Env", {"LD_PRELOAD=/evil.so"}},
                                     {"StopSignal", "SIGNONE; reboot"},
                                     {"Entrypoint", {std::string(1u << 20, 'e')}}}};
    REQUIRE(system.load(tar(oci_members(image))));
    const auto run = system.images->resolve(name, "").value();
    CHECK(run.labels.size() == 2);  // shown, never obeyed
    CHECK(run.environment == std::vector<std::string>{"LD_PRELOAD=/evil.so"});
    CHECK(run.stop_signal == "SIGNONE; reboot");
    CHECK(run.entrypoint.at(0).size() == 1u << 20);
  }
  SUBCASE("a config over the limit") {
    const TestImage image{.layers = {tar(small_layer)},
                          .config = {{"Entrypoint", {std::string(9u << 20, 'e')}}}};
    CHECK(system.refusal(tar(oci_members(image))).find("larger than") != std::string::npos);
  }
  SUBCASE("types that are not what they should be") {
    const TestImage image{.layers = {tar(small_layer)},
                          .config = {{"Env", "A=b"},
                                     {"Cmd", {{"sh", 1}}},
                                     {"User", 0},
                                     {"Volumes", {"/x"}},
                                     {"Healthcheck", {{"Test", 7}, {"Interval", "soon"}}}}};
    REQUIRE(system.load(tar(oci_members(image))));
    const auto run = system.images->resolve(name, "").value();
    CHECK(run.environment.empty());
    CHECK(run.command.empty());
    CHECK(run.user.empty());
    CHECK(run.volumes.empty());
  }
}

TEST_CASE("B4: a name with a digest is that digest or nothing") {
  System system;
  REQUIRE(system.load(tar(oci_members({.layers = {tar(small_layer)}}))));
  const std::string digest = system.images->digest_of(name).value();
  CHECK(system.images->digest_of("localhost/test@" + digest).value() == digest);
  const std::string other = image::digest_of("other");
  CHECK_FALSE(system.images->resolve("localhost/test:1@" + other, ""));
  CHECK_FALSE(system.images->resolve("localhost/other@" + digest, ""));
}

TEST_CASE("A13: zstd windows over 128 MiB are refused, and empty frames without number end soon") {
  System system;
  const std::string window_of_2_gib("\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00", 9);
  CHECK(system.refusal(window_of_2_gib).find("zstd") != std::string::npos);
  std::string frames;
  for (int i = 0; i < 200'000; ++i) frames += std::string("\x50\x2a\x4d\x18\0\0\0\0", 8);
  CHECK(system.refusal(frames).find("empty") != std::string::npos);
}

TEST_CASE("A3: hard links reach files of their layer only, and not through symbolic links") {
  System system;
  for (const char* target : {"/etc/shadow", "../../../../etc/shadow", "missing", "."})
    CHECK_MESSAGE(system.layer_refusal({{.name = "x", .type = '1', .link = target}})
                          .find("no file of this layer") != std::string::npos,
                  target);
  CHECK(system
            .layer_refusal({{.name = "link", .type = '2', .link = "/etc"},
                            {.name = "x", .type = '1', .link = "link/shadow"}})
            .find("no file of this layer") != std::string::npos);
}

TEST_CASE("A4: the root keeps being a folder, and takes its mode from `./`") {
  System system;
  CHECK(system.layer_refusal({{.name = "./", .type = '2', .link = "/etc"}}).find("root") !=
        std::string::npos);
  CHECK(system.layer_refusal({{.name = "a/..", .content = "x"}}).find("root") != std::string::npos);
  CHECK(fs::is_directory(system.unpacked(
      {{.name = "./", .type = '5', .mode = 0700}, {.name = "./a", .content = "x"}})));
}

TEST_CASE("A6: an archive's own files cannot be links to something else") {
  System system;
  std::vector<Member> members = oci_members({.layers = {tar(small_layer)}});
  SUBCASE("the index") {
    members.back() = {.name = "index.json", .content = {}, .type = '2', .link = "/etc/shadow"};
    CHECK(system.refusal(tar(members)).find("neither index.json") != std::string::npos);
  }
  SUBCASE("a manifest") {
    members[2] = {.name = members[2].name, .content = {}, .type = '2', .link = "/etc/shadow"};
    CHECK(system.refusal(tar(members)).find("does not hold it") != std::string::npos);
  }
  SUBCASE("docker's config") {
    CHECK(system
              .refusal(tar({{.name = "c", .content = {}, .type = '2', .link = "/etc/shadow"},
                            {.name = "manifest.json",
                             .content = R"([{"Config":"c","RepoTags":["x"],"Layers":[]}])"}}))
              .find("the archive has no 'etc/shadow'") != std::string::npos);
  }
}

TEST_CASE("A7: whiteouts hide names beside them and nothing else") {
  System system;
  for (const char* nothing : {".wh.", ".wh..", ".wh...", "a/.wh."})
    CHECK_MESSAGE(
        system.layer_refusal({{.name = nothing, .content = ""}}).find("whiteout of nothing") !=
            std::string::npos,
        nothing);
  CHECK(system.layer_refusal({{.name = ".wh.x/y", .content = ""}}).find("cannot be a folder") !=
        std::string::npos);
  const fs::path root = system.unpacked({{.name = "same", .content = "kept"},
                                         {.name = ".wh.same", .content = ""},
                                         {.name = "link", .type = '2', .link = "/etc"},
                                         {.name = "link/.wh.passwd", .content = ""},
                                         {.name = "up/../../.wh.top", .content = ""}});
  CHECK(content(root / "same") == "kept");
  CHECK(fs::is_directory(fs::symlink_status(root / "link")));
  CHECK(fs::is_character_file(fs::symlink_status(root / "link/passwd")));
  CHECK(fs::is_character_file(fs::symlink_status(root / "top")));
}

TEST_CASE("A9: an owner no system has is refused, never wrapped to root") {
  System system;
  for (const char* owner : {"4294967296", "4294967295", "-1", "18446744073709551616"}) {
    CHECK_MESSAGE(system.layer_refusal({pax({{"uid", owner}}), {.name = "a", .content = "x"}})
                          .find("impossible owner") != std::string::npos,
                  owner);
    CHECK(system.layer_refusal({pax({{"gid", owner}}), {.name = "a", .content = "x"}})
              .find("impossible owner") != std::string::npos);
  }
  CHECK(fs::exists(system.unpacked({pax({{"uid", "4294967294"}}), {.name = "a", .content = "x"}})));
}

TEST_CASE("A10: extended attributes are bounded, and overlayfs takes no orders from an image") {
  System system;
  const auto with = [](const std::string& key, const std::string& value) {
    return std::vector<Member>{pax({{"SCHILY.xattr." + key, value}}),
                               {.name = "a", .content = "x"}};
  };
  CHECK(system.layer_refusal(with("user.big", std::string(65'536, 'x'))).find("too large") !=
        std::string::npos);
  CHECK(system.layer_refusal(with("user." + std::string(256, 'n'), "x")).find("too large") !=
        std::string::npos);
  REQUIRE(system.load(tar(
      oci_members({.layers = {tar({pax({{"SCHILY.xattr.trusted.overlay.redirect", "/secret-place"},
                                        {"SCHILY.xattr.user.overlay.metacopy", "secret-place"},
                                        {"SCHILY.xattr.user.kept", "kept-value"}}),
                                   {.name = "a", .content = "x"}})}}))));
  const std::string disk = content(system.images->resolve(name, "").value().layer_disks.at(0));
  CHECK(disk.find("secret-place") == std::string::npos);
  CHECK(disk.find("kept-value") != std::string::npos);
}

TEST_CASE("A11: names are bounded in length and depth, and shown without their control bytes") {
  System system;
  const auto named = [](const std::string& path) {
    return std::vector<Member>{pax({{"path", path}}), {.name = "a", .content = "x"}};
  };
  CHECK(system.layer_refusal(named(std::string(300, 'n'))).find("more than 255") !=
        std::string::npos);
  CHECK(system.layer_refusal(named(std::string(70'000, 'n'))).find("more than 4096") !=
        std::string::npos);
  std::string deep;
  for (int i = 0; i < 500; ++i) deep += "d/";
  CHECK(system.layer_refusal(named(deep + "x")).find("folders deep") != std::string::npos);
  const std::string shown = system.layer_refusal(
      {pax({{"path", "\x1b[2J\nname"}, {"uid", "-1"}}), {.name = "a", .content = "x"}});
  CHECK(shown.find('\x1b') == std::string::npos);
  CHECK(shown.find('\n') == std::string::npos);
  const fs::path root = system.unpacked(named("\xc3\xa4/\xff-no-utf8"));
  CHECK(content(root / "\xc3\xa4/\xff-no-utf8") == "x");
}

TEST_CASE("A12: a member that says it has terabytes is refused before any is written") {
  System system;
  CHECK(system.layer_refusal({pax({{"size", "8796093022208"}}), {.name = "a", .content = ""}})
            .find("goes over it") != std::string::npos);
  const std::vector<Member> sparse{
      pax({{"GNU.sparse.major", "1"},
           {"GNU.sparse.minor", "0"},
           {"GNU.sparse.name", "a"},
           {"GNU.sparse.realsize", "8796093022208"}}),
      {.name = "GNUSparseFile.0/a",
       .content = "1\n8796093022207\n1\n" + std::string(496, '\0') + "x"}};
  CHECK(system.layer_refusal(sparse).find("goes over it") != std::string::npos);
  CHECK(system.refusal(tar(sparse)).find("goes over it") != std::string::npos);
  std::vector<Member> hole = sparse;
  hole[0] = pax({{"GNU.sparse.major", "1"},
                 {"GNU.sparse.minor", "0"},
                 {"GNU.sparse.name", "a"},
                 {"GNU.sparse.realsize", "1000000"}});
  hole[1].content = "1\n999999\n1\n" + std::string(501, '\0') + "x";
  CHECK(system.refusal(tar(hole)).find("has holes") != std::string::npos);
  CHECK(fs::file_size(system.unpacked(hole) / "a") == 1'000'000);
}

TEST_CASE("B1: sizes and digests must be what was announced") {
  System system;
  const TestImage good{.layers = {tar(small_layer)}};
  const std::vector<Member> members = oci_members(good);
  nlohmann::json manifest = nlohmann::json::parse(good.manifest_text());
  SUBCASE("a layer's size") {
    manifest["layers"][0]["size"] = 1;
    CHECK(system.refusal(archive_of(manifest.dump(), members)).find("were announced") !=
          std::string::npos);
  }
  SUBCASE("the config's size") {
    manifest["config"]["size"] = 1;
    CHECK(system.refusal(archive_of(manifest.dump(), members)).find("were announced") !=
          std::string::npos);
  }
  SUBCASE("a negative size") {
    manifest["layers"][0]["size"] = -1;
    CHECK(system.refusal(archive_of(manifest.dump(), members)).find("negative") !=
          std::string::npos);
  }
  SUBCASE("a digest that is a path") {
    manifest["config"]["digest"] = "sha256:../../../../etc/shadow";
    CHECK(system.refusal(archive_of(manifest.dump(), members)).find("no sha256 digest") !=
          std::string::npos);
  }
  SUBCASE("a diff id that is a path") {
    nlohmann::json config = nlohmann::json::parse(good.config_text());
    config["rootfs"]["diff_ids"][0] = "sha256:../../../../tmp/x";
    std::vector<Member> docker = docker_members(good);
    docker[0].content = config.dump();
    CHECK(system.refusal(tar(docker)).find("no sha256 digest") != std::string::npos);
  }
}

TEST_CASE("B2: a manifest is one thing to every reader") {
  System system;
  const TestImage good{.layers = {tar(small_layer)}};
  nlohmann::json manifest = nlohmann::json::parse(good.manifest_text());
  SUBCASE("a manifest that says it is an index") {
    manifest["mediaType"] = "application/vnd.oci.image.index.v1+json";
    CHECK(system.refusal(archive_of(manifest.dump(), oci_members(good))).find("and is not") !=
          std::string::npos);
  }
  SUBCASE("one that was announced as something else") {
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json";
    const nlohmann::json index = {
        {"manifests",
         {{{"digest", image::digest_of(manifest.dump())},
           {"size", manifest.dump().size()},
           {"mediaType", "application/vnd.docker.distribution.manifest.v2+json"}}}}};
    std::vector<Member> members = oci_members(good);
    members.push_back(image_test::blob(manifest.dump()));
    CHECK(system.refusal(archive_of(index.dump(), members)).find("was announced as") !=
          std::string::npos);
  }
  SUBCASE("no object at all") {
    CHECK(system.refusal(archive_of("[1]", oci_members(good))).find("no object") !=
          std::string::npos);
  }
}

TEST_CASE("B3: manifests are bounded in size, layers, and in how often they list each other") {
  System system;
  const TestImage good{.layers = {tar(small_layer)}};
  SUBCASE("size") {
    const std::string huge = "{\"x\":\"" + std::string(5u << 20, 'x') + "\"}";
    system.refusal(archive_of(huge, oci_members(good)));
  }
  SUBCASE("layers") {
    nlohmann::json manifest = nlohmann::json::parse(good.manifest_text());
    for (int i = 0; i < 100; ++i) manifest["layers"].push_back(manifest["layers"][0]);
    const auto loaded = system.load(archive_of(manifest.dump(), oci_members(good)));
    REQUIRE_FALSE(loaded);
    CHECK(loaded.error().code() == ErrorCode::Unsupported);
  }
  SUBCASE("an index that lists one manifest two thousand times, and itself is listed so") {
    std::string inner = good.manifest_text();
    std::vector<Member> members = oci_members(good);
    for (int depth = 0; depth < 2; ++depth) {
      nlohmann::json index = {{"manifests", nlohmann::json::array()}};
      for (int i = 0; i < 2000; ++i)
        index["manifests"].push_back({{"digest", image::digest_of(inner)}, {"size", inner.size()}});
      inner = index.dump();
      members.push_back(image_test::blob(inner));
    }
    CHECK(system.refusal(archive_of(inner, members)).find("list more than") != std::string::npos);
  }
}

TEST_CASE("an image that calls another's manifest a layer does not keep its content from it") {
  System system;
  const TestImage victim{.layers = {tar(small_layer)}, .name = "localhost/victim:1"};
  REQUIRE(system.load(tar(oci_members(victim))));
  nlohmann::json foreign = nlohmann::json::parse(victim.manifest_text());
  foreign["layers"][0] = {{"digest", system.images->digest_of(victim.name).value()},
                          {"size", victim.manifest_text().size()}};
  const TestImage own{.layers = {tar({{.name = "b", .content = "b"}})}};
  const nlohmann::json index = {
      {"manifests",
       {{{"digest", image::digest_of(own.manifest_text())}, {"size", own.manifest_text().size()}},
        {{"digest", image::digest_of(foreign.dump())},
         {"size", foreign.dump().size()},
         {"platform", {{"os", "linux"}, {"architecture", "arm64"}}}}}}};
  std::vector<Member> members = oci_members(own);
  members.push_back(image_test::blob(foreign.dump()));
  REQUIRE(system.load(archive_of(index.dump(), members)));
  REQUIRE(system.load(tar(oci_members(
      {.layers = {tar({{.name = "c", .content = "c"}})}, .name = "localhost/other:1"}))));
  REQUIRE(system.images->remove("localhost/other:1", false));
  const auto run = system.images->resolve(victim.name, "");
  REQUIRE_MESSAGE(run, run.error().to_string());
  CHECK(fs::exists(run->layer_disks.at(0)));
}

TEST_CASE("members of no image do not stay in the store") {
  System system;
  std::vector<Member> members = oci_members({.layers = {tar(small_layer)}});
  members.push_back({.name = "README", .content = std::string(10'000, 'r')});
  REQUIRE(system.load(tar(members)));
  size_t blobs = 0;
  for ([[maybe_unused]] const auto& entry :
       fs::directory_iterator(system.folder / "images/blobs/sha256"))
    ++blobs;
  CHECK(blobs == 3);  // manifest, config, layer
}
