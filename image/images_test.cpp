#include "image/images.h"

#include <cstdlib>
#include <filesystem>

#include <doctest/doctest.h>

#include "base/file.h"
#include "base/process.h"
#include "image/test_archive.h"

namespace fs = std::filesystem;
using base::ErrorCode;
using image_test::Member;
using image_test::source_of;
using image_test::tar;
using image_test::TestImage;

namespace {

struct System {
  fs::path folder;
  std::unique_ptr<image::Images> images;

  System() {
    std::string name = (fs::temp_directory_path() / "images-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder = name;
    open();
  }
  ~System() { fs::remove_all(folder); }
  void open() {
    images.reset();
    images = std::move(image::Images::open({.root = folder / "images"}).value());
  }
  size_t files(const char* part) const {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder / "images" / part))
      ++count;
    return count;
  }
};

TestImage sample() {
  TestImage made;
  made.layers = {tar({{.name = "bin/sh", .content = "shell", .mode = 0755}}),
                 tar({{.name = "etc/motd", .content = "hello\n"}})};
  made.config = {{"Entrypoint", {"/bin/sh", "-c"}},
                 {"Cmd", {"run"}},
                 {"Env", {"PATH=/bin", "A=b"}},
                 {"WorkingDir", "/srv"},
                 {"User", "7:8"},
                 {"StopSignal", "SIGINT"},
                 {"Volumes", {{"/data", nlohmann::json::object()}}},
                 {"Labels", {{"k", "v"}}},
                 {"Healthcheck", {{"Test", {"CMD-SHELL", "true"}}, {"Interval", 5'000'000'000}}}};
  return made;
}

base::Error refused(System& system, const std::string& archive) {
  const auto loaded = system.images->load(source_of(archive));
  REQUIRE_FALSE(loaded);
  CHECK(system.images->list().value().empty());
  return loaded.error();
}

}  // namespace

TEST_CASE("an OCI archive is loaded and says how to run") {
  System system;
  const auto loaded = system.images->load(source_of(tar(oci_members(sample()))));
  REQUIRE_MESSAGE(loaded, loaded.error().to_string());
  CHECK(loaded->references == std::vector<std::string>{"localhost/test:1"});
  system.open();  // all of it is on disk
  const auto run = system.images->resolve("localhost/test:1", "");
  REQUIRE_MESSAGE(run, run.error().to_string());
  CHECK(run->entrypoint == std::vector<std::string>{"/bin/sh", "-c"});
  CHECK(run->command == std::vector<std::string>{"run"});
  CHECK(run->environment == std::vector<std::string>{"PATH=/bin", "A=b"});
  CHECK(run->working_dir == "/srv");
  CHECK(run->user == "7:8");
  CHECK(run->stop_signal == "SIGINT");
  CHECK(run->volumes == std::vector<std::string>{"/data"});
  CHECK(run->labels.at("k") == "v");
  CHECK(run->healthcheck.test == std::vector<std::string>{"/bin/sh", "-c", "true"});
  CHECK(run->healthcheck.interval_ns == 5'000'000'000);
  CHECK(run->digest == system.images->digest_of("localhost/test:1").value());
  REQUIRE(run->layer_disks.size() == 2);
  for (const std::string& disk : run->layer_disks) {
    const auto checked =
        base::run_process({"/usr/bin/fsck.erofs", disk}, base::Deadline::in_ms(20'000));
    REQUIRE(checked);
    CHECK_MESSAGE(checked->exit_code == 0, checked->output);
  }
}

TEST_CASE("a docker archive gives the same image, also with links between its layers") {
  System system;
  REQUIRE(system.images->load(source_of(tar(docker_members(sample())))));
  CHECK(system.images->resolve("localhost/test:1", "").value().layer_disks.size() == 2);

  TestImage twice = sample();
  twice.layers[1] = twice.layers[0];
  twice.name = "localhost/twice:1";
  std::vector<Member> members = docker_members(twice);
  for (Member& member : members)
    if (member.name == "1/layer.tar")
      member = {.name = "1/layer.tar", .content = {}, .type = '2', .link = "../0/layer.tar"};
  const auto loaded = system.images->load(source_of(tar(members)));
  REQUIRE_MESSAGE(loaded, loaded.error().to_string());
  CHECK(system.images->resolve("localhost/twice:1", "").value().layer_disks.size() == 2);
}

TEST_CASE("list and inspect show what was loaded") {
  System system;
  REQUIRE(system.images->load(source_of(tar(oci_members(sample())))));
  const auto listed = system.images->list().value();
  REQUIRE(listed.size() == 1);
  CHECK(listed[0].reference == "localhost/test:1");
  CHECK(listed[0].created == "2026-01-02T03:04:05Z");
  CHECK(listed[0].architecture == "amd64");
  CHECK(listed[0].size_bytes > 1000);
  const auto shown = system.images->inspect("localhost/test:1").value();
  CHECK(shown.at("variants").size() == 1);
  CHECK(shown.at("variants")[0].at("platform").at("os") == "linux");
  CHECK(shown.at("variants")[0].at("config").at("config").at("User") == "7:8");
}

TEST_CASE("a name that moves says so; content nobody names goes with the last name") {
  System system;
  REQUIRE(system.images->load(source_of(tar(oci_members(sample())))));
  const std::string first = system.images->digest_of("localhost/test:1").value();
  TestImage other = sample();
  other.layers.push_back(tar({{.name = "new", .content = "x"}}));
  const auto moved = system.images->load(source_of(tar(oci_members(other))));
  REQUIRE(moved);
  REQUIRE(moved->notes.size() == 1);
  CHECK(moved->notes[0].find(first) != std::string::npos);

  const std::string second = system.images->digest_of("localhost/test:1").value();
  system.images->store().set_users(
      [&]() -> base::Result<std::set<std::string>> { return std::set<std::string>{second}; });
  const auto busy = system.images->remove("localhost/test:1", false);
  REQUIRE_FALSE(busy);
  CHECK(busy.error().code() == ErrorCode::Busy);
  const auto forced = system.images->remove("localhost/test:1", true);
  REQUIRE(forced);
  CHECK(system.files("layers/sha256") == 3);  // a container still uses them
  REQUIRE(system.images->load(source_of(tar(oci_members(other)))));
  system.images->store().set_users({});
  const auto removed = system.images->remove("localhost/test:1", false);
  REQUIRE(removed);
  CHECK(removed->reclaimed_bytes > 0);
  CHECK(system.files("layers/sha256") == 0);
  CHECK(system.files("blobs/sha256") == 0);
}

TEST_CASE("what is not there says how to get it") {
  System system;
  const auto missing = system.images->resolve("alpine", "");
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code() == ErrorCode::NotFound);
  CHECK(missing.error().to_string().find("container image load") != std::string::npos);
}

TEST_CASE("an image of another platform is kept, and made into disks when it is asked for") {
  System system;
  TestImage foreign = sample();
  foreign.architecture = "arm64";
  const auto loaded = system.images->load(source_of(tar(oci_members(foreign))));
  REQUIRE_MESSAGE(loaded, loaded.error().to_string());
  REQUIRE(loaded->notes.size() == 1);
  CHECK(loaded->notes[0] ==
        "image 'localhost/test:1' has no content for platform linux/amd64; available platforms: "
        "linux/arm64");
  const auto here = system.images->resolve("localhost/test:1", "");
  REQUIRE_FALSE(here);
  CHECK(here.error().code() == ErrorCode::NotFound);
  CHECK(system.files("layers/sha256") == 0);
  const auto there = system.images->resolve("localhost/test:1", "linux/aarch64");
  REQUIRE_MESSAGE(there, there.error().to_string());
  CHECK(there->architecture == "arm64");
  CHECK(there->layer_disks.size() == 2);
  CHECK(system.files("layers/sha256") == 2);
  CHECK_FALSE(system.images->resolve("localhost/test:1", "arm64 please"));
}

TEST_CASE("an image is also named by its digest, or by enough of it") {
  System system;
  REQUIRE(system.images->load(source_of(tar(oci_members(sample())))));
  const std::string digest = system.images->digest_of("localhost/test:1").value();
  const std::string digits = digest.substr(7);
  CHECK(system.images->digest_of(digest).value() == digest);
  CHECK(system.images->digest_of(digits.substr(0, 12)).value() == digest);
  CHECK(system.images->resolve(digits.substr(0, 20), "").value().digest == digest);
  CHECK_FALSE(system.images->digest_of(digits.substr(0, 11)));
  const auto config = system.images->inspect(digest).value();
  CHECK(config.at("reference") == digest);
  const std::string layer = image::digest_of(sample().layers[0]);
  const auto not_a_manifest = system.images->digest_of(layer);
  REQUIRE_FALSE(not_a_manifest);
  CHECK(not_a_manifest.error().to_string() == "no image on this system has the digest " + layer);
  const auto hold = system.images->store().hold(digest);
  REQUIRE(system.images->remove("localhost/test:1", false));
  CHECK(system.images->resolve(digest, "").value().layer_disks.size() == 2);  // it has no name
}

TEST_CASE("removing by digest forgets every name of it, if that is meant") {
  System system;
  REQUIRE(system.images->load(source_of(tar(oci_members(sample())))));
  TestImage twin = sample();
  twin.name = "localhost/twin:1";
  REQUIRE(system.images->load(source_of(tar(oci_members(twin)))));
  const std::string digest = system.images->digest_of("localhost/test:1").value();
  const auto asked = system.images->remove(digest, false);
  REQUIRE_FALSE(asked);
  CHECK(asked.error().to_string().find("localhost/test:1, localhost/twin:1") != std::string::npos);
  CHECK(system.images->remove(digest, true)->references ==
        std::vector<std::string>{"localhost/test:1", "localhost/twin:1"});
  CHECK(system.files("blobs/sha256") == 0);
}

TEST_CASE("two systems cannot share a store") {
  const System system;
  const auto second = image::Images::open({.root = system.folder / "images"});
  REQUIRE_FALSE(second);
  CHECK(second.error().code() == ErrorCode::Busy);
}

TEST_CASE("damaged and hostile archives are refused and change nothing") {
  System system;
  const TestImage good = sample();
  SUBCASE("a blob under another's digest") {
    auto members = oci_members(good);
    members[3].content += "x";
    CHECK(refused(system, tar(members)).to_string().find("damaged") != std::string::npos);
  }
  SUBCASE("a layer that is not what the config says") {
    TestImage lying = good;
    lying.config = {{"Cmd", {"x"}}};
    auto members = docker_members(lying);
    members[1].content = tar({{.name = "other", .content = "content"}});
    CHECK(refused(system, tar(members)).to_string().find("instead of") != std::string::npos);
  }
  SUBCASE("a missing layer") {
    auto members = oci_members(good);
    members.erase(members.begin() + 3);
    CHECK(refused(system, tar(members)).code() == ErrorCode::NotFound);
  }
  SUBCASE("fewer layers than the config names") {
    TestImage lying = good;
    auto members = docker_members(lying);
    for (Member& member : members)
      if (member.name == "manifest.json")
        member.content = R"([{"Config":"config.json","RepoTags":["x"],"Layers":["0/layer.tar"]}])";
    CHECK(refused(system, tar(members)).code() == ErrorCode::InvalidArgument);
  }
  SUBCASE("a manifest that is an index too") {
    auto members = oci_members(good);
    const std::string both = R"({"schemaVersion":2,"manifests":[],"layers":[],"config":{}})";
    members.push_back(image_test::blob(both));
    for (Member& member : members)
      if (member.name == "index.json")
        member.content = fmt::format(
            R"({{"manifests":[{{"digest":"{}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"a:1"}}}}]}})",
            image::digest_of(both), both.size());
    CHECK(refused(system, tar(members)).code() == ErrorCode::InvalidArgument);
  }
  SUBCASE("an index that contains itself cannot exist, but deep ones can") {
    auto members = oci_members(good);
    std::string inner = good.manifest_text();
    for (int depth = 0; depth < 8; ++depth) {
      inner = fmt::format(R"({{"manifests":[{{"digest":"{}","size":{}}}]}})",
                          image::digest_of(inner), inner.size());
      members.push_back(image_test::blob(inner));
    }
    for (Member& member : members)
      if (member.name == "index.json")
        member.content = fmt::format(
            R"({{"manifests":[{{"digest":"{}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"a:1"}}}}]}})",
            image::digest_of(inner), inner.size());
    CHECK(refused(system, tar(members)).to_string().find("nested") != std::string::npos);
  }
  SUBCASE("no archive at all, a cut one, an empty one, another kind of tar") {
    CHECK(refused(system, "this is no tar").code() == ErrorCode::InvalidArgument);
    CHECK(refused(system, "").code() == ErrorCode::InvalidArgument);
    const std::string whole = tar(oci_members(good));
    CHECK(refused(system, whole.substr(0, whole.size() / 2)).code() == ErrorCode::InvalidArgument);
    CHECK(refused(system, tar({{.name = "readme", .content = "x"}}))
              .to_string()
              .find("neither index.json") != std::string::npos);
  }
  SUBCASE("links in a circle") {
    CHECK(refused(system, tar({{.name = "a", .content = {}, .type = '2', .link = "b"},
                               {.name = "b", .content = {}, .type = '2', .link = "a"},
                               {.name = "manifest.json",
                                .content = R"([{"Config":"a","RepoTags":["x"],"Layers":[]}])"}}))
              .code() == ErrorCode::InvalidArgument);
  }
  system.open();
  CHECK(system.files("ingest") == 0);
}
