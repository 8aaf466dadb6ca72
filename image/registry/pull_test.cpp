#include "image/registry/pull.h"

#include <atomic>
#include <cstdlib>
#include <filesystem>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "image/registry/test_server.h"
#include "image/test_archive.h"

namespace {

using base::ErrorCode;
using base::Result;
using registry_test::Seen;
using registry_test::Server;
using registry_test::Wire;
using namespace image::registry;

/// Bytes that do not compress, the same in every run.
std::string noise(size_t bytes) {
  std::string text(bytes, '\0');
  uint32_t state = 1;
  for (char& c : text) {
    state = state * 1664525u + 1013904223u;
    c = static_cast<char>(state >> 24);
  }
  return text;
}

/// A registry with one image of one layer, and a store to pull it into. `on_layer` answers
/// requests for the layer.
struct Desk {
  using OnLayer = std::function<void(const Seen&, const Wire&)>;
  explicit Desk(OnLayer answer = {})
      : on_layer(std::move(answer)),
        server([this](const Seen& seen, const Wire& wire) { serve(seen, wire); }) {
    REQUIRE(::mkdtemp(root.data()) != nullptr);
    image.layers = {image_test::tar({{.name = "noise", .content = noise(600'000)}})};
    open();
  }
  ~Desk() {
    store.reset();
    (void)base::remove_tree(root);
  }

  void open() {
    store.reset();
    store = image::Store::open(root).value();
  }
  std::string reference() const { return server.authority() + "/team/app:1"; }
  const std::string& layer() const { return image.layers.front(); }
  std::string layer_digest() const { return image::digest_of(layer()); }
  std::string partial_path() const {
    return root + "/partial/" + std::string(image::digest_hex(layer_digest()));
  }

  void serve(const Seen& seen, const Wire& wire) {
    if (seen.target.find("/manifests/") != std::string::npos)
      return wire.answer(200, image.manifest_text(),
                         fmt::format("Content-Type: {}\r\n", image::manifest_media_type));
    if (seen.target.ends_with(image::digest_of(image.config_text())))
      return wire.answer(200, image.config_text());
    ranges.push_back(seen.header("range"));
    if (on_layer) return on_layer(seen, wire);
    answer_layer(seen, wire);
  }
  void answer_layer(const Seen& seen, const Wire& wire) const {
    const std::string range = seen.header("range");
    if (range.empty()) return wire.answer(200, layer());
    const size_t begin = std::stoul(range.substr(6));
    wire.answer(206, std::string_view(layer()).substr(begin),
                fmt::format("Content-Range: bytes {}-{}/{}\r\n", begin, layer().size() - 1,
                            layer().size()));
  }
  void send_part(const Wire& wire, size_t bytes) const {
    wire.raw(fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", layer().size(),
                         layer().substr(0, bytes)));
  }

  Result<Pulled> pull(Cancel& cancel) {
    const image::Platform own{.os = "linux", .architecture = "amd64", .variant = {}};
    return image::registry::pull(
        *store, *http, {}, {.reference = reference(), .platform = {}, .own = own}, {}, cancel);
  }
  Result<Pulled> pull() {
    Cancel cancel;
    return pull(cancel);
  }

  std::string root = "/tmp/container-pull-test-XXXXXX";
  image_test::TestImage image;
  const OnLayer on_layer;
  std::vector<std::string> ranges;  ///< Of requests for the layer, one at a time.
  Server server;
  std::shared_ptr<HttpClient> http = HttpClient::create({}).value();
  std::unique_ptr<image::Store> store;
};

TEST_CASE("a layer that is not compressed has one digest for blob and content, and is pulled") {
  Desk desk;

  const Result<Pulled> pulled = desk.pull();

  REQUIRE(pulled);
  CHECK(desk.store->has(desk.layer_digest()));
  CHECK(base::path_exists(desk.store->layer_path(desk.layer_digest())));
  CHECK(desk.pull());  // with all of it here already
}

TEST_CASE("a pull that was given up is gone on with after a restart, from what was written") {
  constexpr size_t part = 400'000;
  Cancel cancel;
  std::atomic<bool> restarted{false};
  Desk desk([&](const Seen& seen, const Wire& wire) {
    if (restarted) return desk.answer_layer(seen, wire);
    if (!seen.header("range").empty()) return cancel.cancel();
    desk.send_part(wire, part);
    wire.cut();
  });
  CHECK(desk.pull(cancel).error().code() == ErrorCode::Cancelled);
  CHECK(std::filesystem::file_size(desk.partial_path()) == part);

  desk.open();
  restarted = true;
  REQUIRE(desk.pull());

  CHECK(desk.ranges.back() == fmt::format("bytes={}-{}", part, desk.layer().size() - 1));
  CHECK_FALSE(base::path_exists(desk.partial_path()));
}

TEST_CASE("what is there of a blob and is damaged is fetched again, and fails nobody's pull") {
  Desk desk;
  {
    image::Lease lease = desk.store->lease("pull " + desk.reference()).value();
    const image::Descriptor blob{
        .media_type = {}, .digest = desk.layer_digest(), .size = desk.layer().size()};
    image::PartialBlob partial = desk.store->begin_partial(lease, blob).value();
    REQUIRE(image_test::append(partial, std::string(300'000, '?')));
    lease.leave();
  }

  REQUIRE(desk.pull());

  CHECK(desk.ranges.back().empty());
  CHECK(desk.store->size_of(desk.layer_digest()).value() == desk.layer().size());
}

TEST_CASE("a part that is longer than the blob is no part of it") {
  Desk desk;
  {
    image::Lease lease = desk.store->lease("pull " + desk.reference()).value();
    REQUIRE(lease.keep(desk.layer_digest()));
    REQUIRE(base::write_file_atomically(desk.partial_path(),
                                        std::string(desk.layer().size() + 1, 'x')));
    lease.leave();
  }

  REQUIRE(desk.pull());

  CHECK(desk.ranges == std::vector<std::string>{""});
}

TEST_CASE("a blob or manifest that the store lost is fetched by itself") {
  Desk desk;
  REQUIRE(desk.pull());
  const image::Descriptor layer{.media_type = "application/vnd.oci.image.layer.v1.tar",
                                .digest = desk.layer_digest(),
                                .size = desk.layer().size()};
  const std::string text = desk.image.manifest_text();
  const image::Descriptor manifest{.media_type = image::manifest_media_type,
                                   .digest = image::digest_of(text),
                                   .size = text.size()};
  Cancel cancel;
  for (const image::Descriptor& lost : {layer, manifest}) {
    REQUIRE(desk.store->set_aside(lost.digest));
    const Result<> fetched = pull_blob(*desk.store, *desk.http, {}, desk.reference(), lost, cancel);
    REQUIRE_MESSAGE(fetched, fetched.error().to_string());
    CHECK(desk.store->size_of(lost.digest).value() == lost.size);
  }
}

TEST_CASE("what somebody keeps stays without a name") {
  Desk desk;
  {
    image::Lease keeper = desk.store->lease();
    Cancel cancel;
    const Result<Pulled> pulled =
        image::registry::pull(*desk.store, *desk.http, {},
                              {.reference = desk.reference(), .keeper = &keeper}, {}, cancel);
    REQUIRE(pulled);
    CHECK(desk.store->has(desk.layer_digest()));
    CHECK(desk.store->tags().empty());
  }
  CHECK_FALSE(desk.store->has(desk.layer_digest()));
}

}  // namespace
