/// Images carried out and back: names, archives, platforms, artifacts, what pruning leaves.

#include <cstdlib>
#include <filesystem>

#include <doctest/doctest.h>

#include "base/file.h"
#include "image/images.h"
#include "image/test_archive.h"

namespace fs = std::filesystem;
using base::ErrorCode;
using image_test::blob;
using image_test::Member;
using image_test::oci_members;
using image_test::source_of;
using image_test::tar;
using image_test::TestImage;
using nlohmann::json;

namespace {

struct System {
  fs::path folder;
  std::unique_ptr<image::Images> images;
  std::set<std::string> used;

  System() {
    std::string name = (fs::temp_directory_path() / "save-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder = name;
    images = std::move(image::Images::open({.root = folder / "images"}).value());
    images->store().set_users([this]() -> base::Result<std::set<std::string>> { return used; });
  }
  ~System() {
    images.reset();
    fs::remove_all(folder);
  }
  void load(const std::string& archive) {
    const auto loaded = images->load(source_of(archive));
    REQUIRE_MESSAGE(loaded, loaded.error().to_string());
  }
  std::string save(const std::vector<std::string>& references, const std::string& platform = "") {
    const auto write = images->save(references, platform);
    REQUIRE_MESSAGE(write, write.error().to_string());
    std::string bytes;
    const auto written = (*write)([&](std::string_view piece) -> base::Result<> {
      bytes += piece;
      return {};
    });
    REQUIRE_MESSAGE(written, written.error().to_string());
    return bytes;
  }
  std::set<std::string> blobs() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder / "images/blobs/sha256"))
      names.insert(entry.path().filename());
    return names;
  }
};

TestImage image_for(const std::string& architecture) {
  return {.layers = {tar({{.name = "etc/arch", .content = architecture}})},
          .architecture = architecture};
}

json descriptor(const std::string& bytes, const std::string& media_type) {
  return {{"mediaType", media_type}, {"digest", image::digest_of(bytes)}, {"size", bytes.size()}};
}

/// An archive whose one name leads to `top`.
std::string archive_with(const std::string& top, const std::string& media_type,
                         std::vector<Member> members, const std::string& name) {
  json entry = descriptor(top, media_type);
  entry["annotations"] = {{"io.containerd.image.name", name}};
  members.push_back(blob(top));
  members.push_back(
      {.name = "index.json", .content = json{{"schemaVersion", 2}, {"manifests", {entry}}}.dump()});
  return tar(members);
}

constexpr const char* index_type = "application/vnd.oci.image.index.v1+json";
constexpr const char* manifest_type = "application/vnd.oci.image.manifest.v1+json";

/// amd64 and arm64 behind one index, with a manifest of a platform that is not in the archive.
std::string two_platforms() {
  json manifests = json::array();
  std::vector<Member> members;
  for (const char* architecture : {"amd64", "arm64", "s390x"}) {
    const TestImage made = image_for(architecture);
    json entry = descriptor(made.manifest_text(), manifest_type);
    entry["platform"] = {{"os", "linux"}, {"architecture", architecture}};
    manifests.push_back(entry);
    if (made.architecture == "s390x") continue;
    members.push_back(blob(made.manifest_text()));
    members.push_back(blob(made.config_text()));
    members.push_back(blob(made.layers[0]));
  }
  const json index = {{"schemaVersion", 2}, {"mediaType", index_type}, {"manifests", manifests}};
  return archive_with(index.dump(), index_type, members, "localhost/both:1");
}

}  // namespace

TEST_CASE("what is saved is loaded again, digest for digest and byte for byte") {
  System first;
  first.load(tar(oci_members(image_for("amd64"))));
  REQUIRE(first.images->tag("localhost/test:1", "team/app:2"));
  const std::string archive = first.save({"localhost/test:1", "docker.io/team/app:2"});
  System second;
  second.load(archive);
  CHECK(second.blobs() == first.blobs());
  for (const char* name : {"localhost/test:1", "team/app:2"})
    CHECK(second.images->digest_of(name).value() == first.images->digest_of(name).value());
  CHECK(second.save({"localhost/test:1", "team/app:2"}) == archive);
}

TEST_CASE("docker's own form is in the archive too") {
  System first;
  first.load(tar(oci_members(image_for("amd64"))));
  REQUIRE(first.images->tag("localhost/test:1", "app:2"));
  const std::string archive = first.save({"app:2"});
  const size_t at = archive.find("[{\"Config\":");
  REQUIRE(at != std::string::npos);
  const json docker = json::parse(archive.substr(at, archive.find('\0', at) - at));
  CHECK(docker[0].at("RepoTags") == json{"app:2"});
  CHECK(docker[0].at("Layers").size() == 1);
  CHECK(archive.size() % 512 == 0);
  CHECK(archive.substr(archive.size() - 1024) == std::string(1024, '\0'));
}

TEST_CASE("an image of several platforms is kept whole, and one of them can be taken out") {
  System system;
  system.load(two_platforms());
  const json shown = system.images->inspect("localhost/both:1").value();
  REQUIRE(shown.at("variants").size() == 2);
  CHECK(shown["variants"][0]["platform"]["architecture"] == "amd64");
  CHECK(shown["variants"][1]["platform"]["architecture"] == "arm64");
  CHECK(system.images->resolve("localhost/both:1", "")->architecture == "amd64");
  CHECK(system.images->resolve("localhost/both:1", "linux/arm64/v8")->architecture == "arm64");
  const auto missing = system.images->resolve("localhost/both:1", "linux/s390x");
  REQUIRE_FALSE(missing);
  CHECK(missing.error().to_string().find("available platforms: linux/amd64, linux/arm64") !=
        std::string::npos);

  System whole;
  whole.load(system.save({"localhost/both:1"}));
  CHECK(whole.images->digest_of("localhost/both:1").value() == shown.at("digest"));
  CHECK(whole.blobs() == system.blobs());

  System one;
  one.load(system.save({"localhost/both:1"}, "linux/arm64"));
  CHECK(one.images->digest_of("localhost/both:1").value() == shown["variants"][1]["digest"]);
  CHECK(one.blobs().size() == 3);
  CHECK_FALSE(system.images->save({"localhost/both:1"}, "linux/riscv64"));
}

TEST_CASE("an ARM image of an older processor runs on a newer one, never the other way") {
  System system;
  json manifests = json::array();
  std::vector<Member> members;
  for (const char* variant : {"v6", "v5"}) {
    const TestImage made = {.layers = {tar({{.name = "variant", .content = variant}})},
                            .architecture = "arm"};
    json entry = descriptor(made.manifest_text(), manifest_type);
    entry["platform"] = {{"os", "linux"}, {"architecture", "arm"}, {"variant", variant}};
    manifests.push_back(entry);
    for (const std::string& part : {made.manifest_text(), made.config_text(), made.layers[0]})
      members.push_back(blob(part));
  }
  const json index = {{"schemaVersion", 2}, {"manifests", manifests}};
  system.load(archive_with(index.dump(), index_type, members, "localhost/arm:1"));
  const auto disk = [&](const char* platform) {
    return system.images->resolve("localhost/arm:1", platform).value().layer_disks.at(0);
  };
  CHECK(disk("linux/arm") == disk("linux/arm/v6"));
  CHECK(disk("linux/arm/v7") == disk("linux/arm/v6"));
  CHECK(disk("linux/arm/v5") != disk("linux/arm/v6"));
}

TEST_CASE("artifacts and unknown layer types are kept and passed on byte for byte") {
  System first;
  const std::string config = "{}";
  const std::string chart = "any bytes, no tar";
  const json manifest = {
      {"schemaVersion", 2},
      {"mediaType", manifest_type},
      {"artifactType", "application/vnd.example.chart.v1"},
      {"config", descriptor(config, "application/vnd.oci.empty.v1+json")},
      {"layers", {descriptor(chart, "application/vnd.example.chart.content.v1.tar+brotli")}},
      {"annotations", {{"org.example", "kept"}}}};
  first.load(archive_with(manifest.dump(), manifest_type, {blob(config), blob(chart)},
                          "localhost/chart:1"));
  const json shown = first.images->inspect("localhost/chart:1").value();
  CHECK(shown.at("variants")[0].at("config").is_null());
  CHECK_FALSE(first.images->resolve("localhost/chart:1", ""));
  System second;
  const std::string archive = first.save({"localhost/chart:1"});
  CHECK(archive.find("manifest.json") == std::string::npos);  // docker knows no artifacts
  second.load(archive);
  CHECK(second.blobs() == first.blobs());
  CHECK(second.images->digest_of("localhost/chart:1").value() == image::digest_of(manifest.dump()));
}

TEST_CASE("docker's schema 2 types are taken as they are") {
  System system;
  const TestImage made = image_for("amd64");
  json manifest = json::parse(made.manifest_text());
  manifest["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json";
  manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json";
  manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip";
  json entry = descriptor(manifest.dump(), manifest["mediaType"]);
  entry["platform"] = {{"os", "linux"}, {"architecture", "amd64"}};
  const json list = {{"schemaVersion", 2},
                     {"mediaType", "application/vnd.docker.distribution.manifest.list.v2+json"},
                     {"manifests", {entry}}};
  system.load(archive_with(list.dump(), list["mediaType"],
                           {blob(manifest.dump()), blob(made.config_text()), blob(made.layers[0])},
                           "localhost/docker:1"));
  CHECK(system.images->resolve("localhost/docker:1", "")->layer_disks.size() == 1);
  System second;
  second.load(system.save({"localhost/docker:1"}));
  CHECK(second.blobs() == system.blobs());
}

TEST_CASE("a name more is not an image more") {
  System system;
  system.load(tar(oci_members(image_for("amd64"))));
  const std::string digest = system.images->digest_of("localhost/test:1").value();
  CHECK(system.images->tag(digest.substr(7, 12), "app").value() == "docker.io/library/app:latest");
  CHECK(system.images->digest_of("app").value() == digest);
  CHECK_FALSE(system.images->tag("localhost/missing:1", "app"));
  CHECK_FALSE(system.images->tag("app", "app@" + digest));
  CHECK_FALSE(system.images->tag("app", digest));
  const image::ImageUse use = system.images->use().value();
  CHECK(use.total == 1);
  CHECK(use.space.bytes == use.space.reclaimable_bytes);
}

TEST_CASE("of an image in use every name but the last can be removed") {
  System system;
  system.load(tar(oci_members(image_for("amd64"))));
  REQUIRE(system.images->tag("localhost/test:1", "localhost/again:1"));
  system.used.insert(system.images->digest_of("localhost/test:1").value());
  CHECK(system.images->remove("localhost/again:1", false)->references ==
        std::vector<std::string>{"localhost/again:1"});
  const auto last = system.images->remove("localhost/test:1", false);
  REQUIRE_FALSE(last);
  CHECK(last.error().code() == ErrorCode::Busy);
}

TEST_CASE("space counts shared content once, and only what pruning would free as reclaimable") {
  System system;
  const std::string shared = tar({{.name = "large", .content = std::string(1u << 20, 'x')}});
  const std::string own = tar({{.name = "own", .content = std::string(256u << 10, 'y')}});
  system.load(tar(oci_members({.layers = {shared}, .name = "localhost/a:1"})));
  const image::ImageUse one = system.images->use().value();
  system.load(tar(oci_members({.layers = {shared, own}, .name = "localhost/b:1"})));
  system.used.insert(system.images->digest_of("localhost/a:1").value());
  const image::ImageUse both = system.images->use().value();
  CHECK(both.total == 2);
  CHECK(both.active == 1);
  CHECK(both.space.bytes < one.space.bytes + (1u << 20));
  CHECK(both.space.reclaimable_bytes == both.space.bytes - one.space.bytes);
  const auto pruned = system.images->prune(true).value();
  CHECK(pruned.references == std::vector<std::string>{"localhost/b:1"});
  CHECK(pruned.reclaimed_bytes == both.space.reclaimable_bytes);
  CHECK(system.images->use()->space.reclaimable_bytes == 0);
}

TEST_CASE("pruning takes what has no name, and with `all` what no container uses") {
  System system;
  const TestImage old = image_for("amd64");
  system.load(tar(oci_members(old)));
  const std::string digest = system.images->digest_of("localhost/test:1").value();
  system.used.insert(digest);
  TestImage newer = old;
  newer.config = {{"Cmd", {"new"}}};
  system.load(tar(oci_members(newer)));
  CHECK(system.images->prune(false)->references.empty());  // a container still has the old one
  system.used.clear();
  CHECK(system.images->prune(false)->references == std::vector<std::string>{digest});
  CHECK(system.images->digest_of("localhost/test:1"));
  CHECK(system.images->prune(true)->references == std::vector<std::string>{"localhost/test:1"});
  CHECK(system.blobs().empty());
}

TEST_CASE("members with paths that lead outside are refused, or left out when that is meant") {
  System system;
  std::vector<Member> members = oci_members(image_for("amd64"));
  members.push_back({.name = "../outside", .content = "x"});
  members.push_back({.name = "/absolute", .content = "x"});
  const auto refused = system.images->load(source_of(tar(members)));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().to_string() ==
        "the archive has invalid members (rejected paths): ../outside, /absolute; load the rest "
        "of it with --force");
  CHECK(system.blobs().empty());
  const auto forced = system.images->load(source_of(tar(members)), {.skip_invalid_members = true});
  REQUIRE(forced);
  CHECK(forced->notes ==
        std::vector<std::string>{"invalid members were left out: ../outside, /absolute"});
  CHECK(system.blobs().size() == 3);
}

TEST_CASE("an image that misses content is not saved") {
  System system;
  system.load(tar(oci_members(image_for("amd64"))));
  const std::string layer(image::digest_hex(image::digest_of(image_for("amd64").layers[0])));
  fs::remove(system.folder / "images/blobs/sha256" / layer);
  const auto write = system.images->save({"localhost/test:1"}, "");
  REQUIRE_FALSE(write);
  CHECK(write.error().code() == ErrorCode::NotFound);
  CHECK(write.error().to_string().find(layer) != std::string::npos);
}
