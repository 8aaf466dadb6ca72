#include "image/check.h"

#include <cstdlib>
#include <filesystem>

#include <doctest/doctest.h>

#include "base/file.h"
#include "image/images.h"
#include "image/test_archive.h"

namespace fs = std::filesystem;
using image::CheckReport;
using image_test::oci_members;
using image_test::source_of;
using image_test::tar;
using image_test::TestImage;

namespace {

constexpr const char* name = "reg.example/test:1";

struct System {
  fs::path folder;
  std::unique_ptr<image::Images> images;
  TestImage made{.layers = {tar({{.name = "a", .content = "content of a"}})}, .name = name};

  System() {
    std::string path = (fs::temp_directory_path() / "check-XXXXXX").string();
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    folder = path;
    images = std::move(image::Images::open({.root = folder / "images"}).value());
    REQUIRE(images->load(source_of(tar(oci_members(made)))));
  }
  ~System() {
    images.reset();
    fs::remove_all(folder);
  }
  CheckReport check(const image::Fetch& fetch = {}) {
    auto report = image::check_store(images->store(), fetch);
    REQUIRE_MESSAGE(report, report.error().to_string());
    return std::move(*report);
  }
  fs::path blob(const std::string& content) const {
    return folder / "images/blobs/sha256" /
           std::string(image::digest_hex(image::digest_of(content)));
  }
  fs::path disk() const {
    return folder / "images/layers/sha256" /
           (std::string(image::digest_hex(image::digest_of(made.layers[0]))) + ".erofs");
  }
};

/// One byte in the middle, as a failing disk turns it.
void damage(const fs::path& path) {
  std::string bytes = base::read_file(path, 1u << 20).value();
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  REQUIRE(base::write_file_atomically(path, bytes));
}

}  // namespace

TEST_CASE("a sound store has nothing to tell") {
  System system;
  const CheckReport report = system.check();
  CHECK(report.blobs == 3);
  CHECK(report.disks == 1);
  CHECK(report.repaired.empty());
  CHECK(report.problems.empty());
}

TEST_CASE("a damaged blob is set aside, and told with the image it is missing from") {
  System system;
  damage(system.blob(system.made.layers[0]));
  const CheckReport report = system.check();
  const std::string digest = image::digest_of(system.made.layers[0]);
  REQUIRE(report.repaired.size() == 1);
  CHECK(report.repaired[0].find(digest + " was damaged and is set aside as '") == 0);
  REQUIRE(report.problems.size() == 1);
  CHECK(report.problems[0].find(digest + " of image 'reg.example/test:1' is gone; bring") == 0);
  CHECK_FALSE(system.images->store().has(digest));
  CHECK_FALSE(fs::is_empty(system.folder / "images/damaged"));

  REQUIRE(system.images->load(source_of(tar(oci_members(system.made)))));  // as it says
  CHECK(system.check().problems.empty());
  CHECK(fs::is_empty(system.folder / "images/damaged"));
}

TEST_CASE("a damaged blob that is fetched again leaves nothing behind, one that is not says why") {
  System system;
  const std::string layer = system.made.layers[0];
  bool reachable = false;
  const auto fetch = [&](const std::string&, const image::Descriptor&) -> base::Result<> {
    if (!reachable) return base::fail(base::ErrorCode::Io, "no route to host");
    const image::Lease lease = system.images->store().lease();
    TRY(system.images->store().put_text(lease, layer, ""));
    return {};
  };
  damage(system.blob(layer));
  const CheckReport failed = system.check(fetch);
  REQUIRE(failed.problems.size() == 1);
  CHECK(failed.problems[0].find("is gone, and cannot be fetched again (no route to host); bring") !=
        std::string::npos);
  CHECK_FALSE(fs::is_empty(system.folder / "images/damaged"));

  reachable = true;
  const CheckReport report = system.check(fetch);
  CHECK(report.problems.empty());
  REQUIRE(report.repaired.size() == 1);
  CHECK(report.repaired[0].find("was gone and is fetched again") != std::string::npos);
  CHECK(fs::is_empty(system.folder / "images/damaged"));

  damage(system.blob(layer));
  const CheckReport at_once = system.check(fetch);
  REQUIRE(at_once.repaired.size() == 1);
  CHECK(at_once.repaired[0].find("was damaged and is fetched again") != std::string::npos);
  CHECK(fs::is_empty(system.folder / "images/damaged"));
}

TEST_CASE("a check that is given up ends") {
  System system;
  const auto report = image::check_store(system.images->store(), {}, [] { return true; });
  CHECK(report.error().code() == base::ErrorCode::Cancelled);
}

TEST_CASE("a blob that is gone is fetched again where that is possible") {
  System system;
  fs::remove(system.blob(system.made.manifest_text()));
  fs::remove(system.blob(system.made.layers[0]));
  std::vector<std::string> asked;
  const auto fetch = [&](const std::string& reference,
                         const image::Descriptor& blob) -> base::Result<> {
    asked.push_back(reference + " " + blob.digest);
    const image::Lease lease = system.images->store().lease();
    for (const std::string& text : {system.made.manifest_text(), system.made.layers[0]})
      if (image::digest_of(text) == blob.digest)
        TRY(system.images->store().put_text(lease, text, ""));
    return {};
  };
  const CheckReport report = system.check(fetch);
  CHECK(report.problems.empty());
  CHECK(report.repaired.size() == 2);
  CHECK(asked == std::vector<std::string>{
                     "reg.example/test:1 " + image::digest_of(system.made.manifest_text()),
                     "reg.example/test:1 " + image::digest_of(system.made.layers[0])});
  CHECK(system.images->store().has(image::digest_of(system.made.layers[0])));
}

TEST_CASE("what was made on this machine is asked of no registry") {
  System system;
  const image::Descriptor here = system.images->store().tags().at(name);
  REQUIRE(system.images->store().tag({{"localhost/mine:1", here}}));
  REQUIRE(system.images->remove(name, false));
  fs::remove(system.blob(system.made.layers[0]));

  bool asked = false;
  const CheckReport report = system.check([&](const auto&, const auto&) {
    asked = true;
    return base::Result<>();
  });
  CHECK_FALSE(asked);
  REQUIRE(report.problems.size() == 1);
  CHECK(report.problems[0].find("it was made on this machine, no registry has it") !=
        std::string::npos);
  CHECK(report.problems[0].find("container build -t localhost/mine:1, or container image load") !=
        std::string::npos);
}

TEST_CASE("what cannot be fetched says why") {
  System system;
  fs::remove(system.blob(system.made.layers[0]));
  const CheckReport report = system.check([](const auto&, const auto&) {
    return base::Result<>(base::fail(base::ErrorCode::Io, "no route to the registry"));
  });
  REQUIRE(report.problems.size() == 1);
  CHECK(
      report.problems[0].find("is gone, and cannot be fetched again (no route to the registry)") !=
      std::string::npos);
}

TEST_CASE("a damaged disk of a layer is made anew from its blob") {
  System system;
  const std::string sound = base::read_file(system.disk(), 1u << 20).value();
  damage(system.disk());
  const CheckReport report = system.check();
  REQUIRE(report.repaired.size() == 1);
  CHECK(report.repaired[0].find("is made anew") != std::string::npos);
  CHECK(report.problems.empty());
  CHECK(base::read_file(system.disk(), 1u << 20).value() == sound);
  CHECK(system.check().repaired.empty());
}

TEST_CASE("a platform that was never here is not missing, one that was damaged is") {
  System system;
  const TestImage other{.layers = {tar({{.name = "b", .content = "b"}})}, .architecture = "arm64"};
  nlohmann::json manifests = nlohmann::json::array();
  for (const TestImage* one : std::vector<const TestImage*>{&system.made, &other})
    manifests.push_back({{"digest", image::digest_of(one->manifest_text())},
                         {"size", one->manifest_text().size()},
                         {"platform", {{"os", "linux"}, {"architecture", one->architecture}}}});
  const std::string index = nlohmann::json{{"manifests", manifests}}.dump();
  {
    const image::Lease lease = system.images->store().lease();
    const auto stored = system.images->store().put_text(lease, index, "").value();
    REQUIRE(system.images->store().tag({{name, stored}}));
  }
  CHECK(system.check().problems.empty());
  damage(system.blob(system.made.manifest_text()));
  CHECK(system.check().problems.size() == 1);
}
