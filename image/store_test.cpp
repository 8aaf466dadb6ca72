/// Leases, continued blobs, and what is collected when.

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <thread>

#include <doctest/doctest.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/limits.h"
#include "image/images.h"
#include "image/test_archive.h"

namespace fs = std::filesystem;
using base::ErrorCode;
using image::Descriptor;
using image_test::oci_members;
using image_test::source_of;
using image_test::tar;
using image_test::TestImage;

namespace {

constexpr const char* pull = "pull docker.io/library/alpine:latest";

struct System {
  fs::path folder;
  std::unique_ptr<image::Images> images;

  System() {
    std::string name = (fs::temp_directory_path() / "store-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder = name;
    open();
  }
  ~System() {
    images.reset();
    fs::remove_all(folder);
  }
  /// As a restart of the daemon does.
  void open() {
    images.reset();
    images = std::move(image::Images::open({.root = folder / "images"}).value());
  }
  image::Store& store() { return images->store(); }
  fs::path part(const char* name) const { return folder / "images" / name; }
  size_t files(const char* name) const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(part(name)), fs::directory_iterator{}));
  }
  void age_leases(int64_t seconds) const {
    for (const auto& entry : fs::directory_iterator(part("leases")))
      fs::last_write_time(entry.path(),
                          fs::last_write_time(entry.path()) - std::chrono::seconds(seconds));
  }
};

TestImage image_of(const std::string& name, const std::string& content) {
  return {.layers = {tar({{.name = "file", .content = content}})}, .name = name};
}

std::string put(image::Store& store, const image::Lease& lease, std::string_view text) {
  const auto stored = store.put_text(lease, text, "");
  REQUIRE_MESSAGE(stored, stored.error().to_string());
  return stored->digest;
}

Descriptor described(const std::string& bytes) {
  return {.media_type = {}, .digest = image::digest_of(bytes), .size = bytes.size()};
}

}  // namespace

TEST_CASE("what a lease keeps survives a collection, and goes with the lease") {
  System system;
  std::string digest;
  {
    const image::Lease lease = system.store().lease();
    digest = put(system.store(), lease, "kept");
    CHECK(system.store().collect().value().bytes == 0);
    CHECK(system.store().has(digest));
  }
  CHECK_FALSE(system.store().has(digest));
}

TEST_CASE("a lease on a manifest keeps all it leads to") {
  System system;
  const TestImage made = image_of("localhost/a:1", "a");
  REQUIRE(system.images->load(source_of(tar(oci_members(made)))));
  std::optional<image::Lease> lease(system.store().lease());
  REQUIRE(lease->keep(system.images->digest_of("localhost/a:1").value()));
  REQUIRE(system.images->remove("localhost/a:1", false));
  CHECK(system.files("blobs/sha256") == 3);
  CHECK(system.files("layers/sha256") == 1);
  lease.reset();
  CHECK(system.files("blobs/sha256") == 0);
  CHECK(system.files("layers/sha256") == 0);
}

TEST_CASE("the end of a lease spares what another lease, a name, a user or a hold needs") {
  System system;
  std::set<std::string> used;
  system.store().set_users([&]() -> base::Result<std::set<std::string>> { return used; });
  image::Lease other = system.store().lease();
  std::string shared, named, by_container, held, alone;
  std::shared_ptr<const void> hold;
  {
    const image::Lease lease = system.store().lease();
    shared = put(system.store(), lease, "shared");
    REQUIRE(other.keep(shared));
    named = put(system.store(), lease, "named");
    REQUIRE(system.store().tag({{"localhost/a:1", described("named")}}));
    by_container = put(system.store(), lease, "used");
    used.insert(by_container);
    held = put(system.store(), lease, "held");
    hold = system.store().hold(held);
    alone = put(system.store(), lease, "alone");
  }
  CHECK(system.store().has(shared));
  CHECK(system.store().has(named));
  CHECK(system.store().has(by_container));
  CHECK(system.store().has(held));
  CHECK_FALSE(system.store().has(alone));
  hold.reset();
  used.clear();
  CHECK(system.store().collect().value().bytes > 0);
  CHECK_FALSE(system.store().has(held));
  CHECK_FALSE(system.store().has(by_container));
}

TEST_CASE("nothing is deleted while it is unknown what containers use") {
  System system;
  system.store().set_users([]() -> base::Result<std::set<std::string>> {
    return base::fail(ErrorCode::Timeout, "the daemon is busy");
  });
  std::string digest;
  {
    const image::Lease lease = system.store().lease();
    digest = put(system.store(), lease, "x");
  }
  CHECK(system.store().has(digest));
  const auto collected = system.store().collect();
  REQUIRE_FALSE(collected);
  CHECK(collected.error().to_string() == "ask which images are in use: the daemon is busy");
  CHECK(system.store().has(digest));
}

TEST_CASE("a container that is recorded while users are asked keeps its image") {
  System system;
  std::optional<image::Lease> lease(system.store().lease());
  const std::string digest = put(system.store(), *lease, "image");
  auto hold = system.store().hold(digest);
  lease.reset();
  system.store().set_users([&]() -> base::Result<std::set<std::string>> {
    hold.reset();  // the record was written too late for this answer
    return std::set<std::string>{};
  });
  CHECK(system.store().collect().value().bytes == 0);
  CHECK(system.store().has(digest));
  CHECK(system.store().collect().value().bytes > 0);
}

TEST_CASE("a lease with a name survives a restart, and holds until it expires") {
  System system;
  std::string digest;
  {
    image::Lease lease = system.store().lease(pull).value();
    digest = put(system.store(), lease, "half a pull");
    lease.leave();
  }
  system.open();
  CHECK(system.store().collect().value().bytes == 0);
  CHECK(system.store().has(digest));
  SUBCASE("taken up again, it ends in the ordinary way") {
    { const image::Lease lease = system.store().lease(pull).value(); }
    CHECK_FALSE(system.store().has(digest));
    CHECK(system.files("leases") == 0);
  }
  SUBCASE("nobody came back") {
    system.age_leases(base::limits::image_lease_s + 60);
    CHECK(system.store().collect().value().bytes > 0);
    CHECK_FALSE(system.store().has(digest));
    CHECK(system.files("leases") == 0);
  }
  SUBCASE("nobody came back before the next restart") {
    system.age_leases(base::limits::image_lease_s + 60);
    system.open();
    CHECK(system.files("leases") == 0);
    CHECK(system.store().collect().value().bytes > 0);
  }
}

TEST_CASE("two holders of one lease share it, and the last one ends it") {
  System system;
  std::optional<image::Lease> first(system.store().lease(pull).value());
  std::optional<image::Lease> second(system.store().lease(pull).value());
  const std::string digest = put(system.store(), *first, "x");
  first.reset();
  CHECK(system.store().has(digest));
  second.reset();
  CHECK_FALSE(system.store().has(digest));
}

TEST_CASE("a damaged record of a lease is no lease") {
  System system;
  REQUIRE(base::write_file_atomically(system.part("leases") / "x", "\nnonsense"));
  system.open();
  CHECK(system.files("leases") == 0);
  CHECK_FALSE(system.store().lease("two\nlines"));
  image::Lease lease = system.store().lease(pull).value();
  CHECK_FALSE(lease.keep("../../etc/passwd"));
}

TEST_CASE("a blob is continued at its length after a restart, and verified at its end") {
  System system;
  const std::string bytes = "first half, second half";
  {
    image::Lease lease = system.store().lease(pull).value();
    auto partial = system.store().begin_partial(lease, described(bytes)).value();
    REQUIRE(image_test::append(partial, "first half, "));
    lease.leave();
  }
  system.open();
  image::Lease lease = system.store().lease(pull).value();
  std::string seen;
  auto partial = system.store().begin_partial(lease, described(bytes), [&](std::string_view piece) {
    seen += piece;
    return base::Result<>();
  });
  REQUIRE(partial);
  CHECK(partial->size() == 12);
  CHECK(seen == "first half, ");
  SUBCASE("to its end") {
    REQUIRE(image_test::append(*partial, "second half"));
    REQUIRE(system.store().finish_partial(std::move(*partial)));
    CHECK(system.store().read(image::digest_of(bytes), 100).value() == bytes);
    CHECK(system.files("partial") == 0);
  }
  SUBCASE("from the beginning, where the sender cannot go on") {
    REQUIRE(partial->restart());
    REQUIRE(image_test::append(*partial, bytes));
    REQUIRE(system.store().finish_partial(std::move(*partial)));
    CHECK(system.store().has(image::digest_of(bytes)));
  }
  SUBCASE("with other bytes than announced: dropped") {
    REQUIRE(image_test::append(*partial, "another end"));
    const auto finished = system.store().finish_partial(std::move(*partial));
    REQUIRE_FALSE(finished);
    CHECK(finished.error().to_string().find("it was damaged") != std::string::npos);
    CHECK(system.files("partial") == 0);
    CHECK_FALSE(system.store().has(image::digest_of(bytes)));
  }
  SUBCASE("too short, or too long") {
    CHECK_FALSE(image_test::append(*partial, "more than what was announced"));
    REQUIRE(image_test::append(*partial, "second"));
    const auto finished = system.store().finish_partial(std::move(*partial));
    REQUIRE_FALSE(finished);
    CHECK(finished.error().to_string().find("ends after 18 of 23 bytes") != std::string::npos);
    CHECK(system.files("partial") == 1);  // it can still be continued
  }
}

TEST_CASE("one writer at a time continues a blob") {
  System system;
  image::Lease lease = system.store().lease();
  std::optional<image::PartialBlob> first(
      system.store().begin_partial(lease, described("x")).value());
  const auto second = system.store().begin_partial(lease, described("x"));
  REQUIRE_FALSE(second);
  CHECK(second.error().code() == ErrorCode::Busy);
  first.reset();
  CHECK(system.store().begin_partial(lease, described("x")));
}

TEST_CASE("an unfinished blob that no lease keeps goes") {
  System system;
  {
    image::Lease lease = system.store().lease();
    auto partial = system.store().begin_partial(lease, described("xy")).value();
    REQUIRE(image_test::append(partial, "x"));
  }
  CHECK(system.files("partial") == 0);
  REQUIRE(base::write_file_atomically(system.part("partial") / std::string(64, 'a'), "left"));
  system.open();
  CHECK(system.files("partial") == 0);
}

TEST_CASE("a load that ended with the daemon leaves bytes that the next collection takes") {
  System system;
  {
    // What a process that is killed leaves: content, and no lease.
    image::Lease* lost = new image::Lease(system.store().lease());
    put(system.store(), *lost, "content");
    system.store().set_users([]() -> base::Result<std::set<std::string>> {
      return base::fail(ErrorCode::Cancelled, "killed");
    });
    delete lost;
  }
  CHECK(system.files("blobs/sha256") == 1);
  system.open();
  CHECK(system.store().collect().value().bytes > 0);
  CHECK(system.files("blobs/sha256") == 0);
}

TEST_CASE("loads, removals and collections run side by side") {
  System system;
  constexpr int rounds = 15;
  const TestImage base = image_of("localhost/base:1", "shared by all");
  const auto churn = [&](int number) {
    for (int round = 0; round < rounds; ++round) {
      TestImage mine = base;
      mine.name = fmt::format("localhost/image-{}:1", number);
      mine.layers.push_back(
          tar({{.name = "own", .content = fmt::format("{} {}", number, round % 3)}}));
      const auto loaded = system.images->load(source_of(tar(oci_members(mine))));
      REQUIRE_MESSAGE(loaded, loaded.error().to_string());
      const auto run = system.images->resolve(mine.name, "");
      REQUIRE_MESSAGE(run, run.error().to_string());
      for (const std::string& disk : run->layer_disks) CHECK(fs::exists(disk));
      const auto removed = system.images->remove(mine.name, false);
      REQUIRE_MESSAGE(removed, removed.error().to_string());
      for (const std::string& disk : run->layer_disks) CHECK(fs::exists(disk));  // run holds them
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int number = 0; number < 4; ++number) threads.emplace_back(churn, number);
  }
  REQUIRE(system.store().collect());
  for (const char* part : {"blobs/sha256", "layers/sha256", "ingest", "partial", "leases"})
    CHECK_MESSAGE(system.files(part) == 0, part);
}

TEST_CASE("a slow load does not hold others up") {
  System system;
  const std::string slow = tar(oci_members(image_of("localhost/slow:1", "slow")));
  size_t at = 0;
  bool was_inside = false;
  const auto loaded = system.images->load([&](char* buffer, size_t capacity) {
    if (at > 0 && !std::exchange(was_inside, true)) {
      // In the middle of the first load, others come and go.
      REQUIRE(system.images->load(source_of(tar(oci_members(image_of("localhost/b:1", "b"))))));
      REQUIRE(system.images->remove("localhost/b:1", false));
      REQUIRE(system.store().collect());
    }
    const size_t count = slow.copy(buffer, std::min<size_t>(capacity, 700), at);
    at += count;
    return base::Result<size_t>(count);
  });
  REQUIRE_MESSAGE(loaded, loaded.error().to_string());
  CHECK(was_inside);
  CHECK(system.images->resolve("localhost/slow:1", ""));
}
