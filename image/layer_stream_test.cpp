#include "image/layer_stream.h"

#include <cstdlib>
#include <filesystem>

#include <doctest/doctest.h>

#include "base/file.h"
#include "image/layer.h"
#include "image/test_archive.h"

namespace {

using base::ErrorCode;
using image_test::Member;

struct Shop {
  Shop() {
    REQUIRE(::mkdtemp(root.data()) != nullptr);
    store = image::Store::open(root).value();
  }
  ~Shop() {
    store.reset();
    (void)base::remove_tree(root);
  }
  size_t files_in(const char* folder) const {
    return static_cast<size_t>(
        std::distance(std::filesystem::directory_iterator(root + folder), {}));
  }
  std::string root = "/tmp/container-layer-test-XXXXXX";
  std::unique_ptr<image::Store> store;
};

std::string layer() {
  std::vector<Member> members;
  for (int i = 0; i < 500; ++i)
    members.push_back({.name = fmt::format("f{}", i),
                       .content = std::string(5000, static_cast<char>('a' + i % 26))});
  return image_test::tar(members);
}

base::Result<> stream(Shop& shop, image::Lease& lease, const std::string& blob,
                      const std::string& diff_id, size_t piece) {
  const auto layer = TRY(image::LayerStream::begin(*shop.store, lease, diff_id));
  for (size_t at = 0; at < blob.size(); at += piece)
    TRY(layer->write(std::string_view(blob).substr(at, piece)));
  return layer->finish();
}

}  // namespace

TEST_CASE("a layer made while it goes by is the disk that its blob would give") {
  Shop passing;
  Shop stored;
  const std::string content = layer();
  const std::string diff_id = image::digest_of(content);
  image::Lease first = passing.store->lease();
  image::Lease second = stored.store->lease();
  const image::Descriptor blob = stored.store->put_text(second, content, "").value();
  REQUIRE(image::make_layer(*stored.store, second, blob, diff_id));

  REQUIRE(stream(passing, first, content, diff_id, 777));

  constexpr uint64_t most = 64u << 20;
  CHECK(base::read_file(passing.store->layer_path(diff_id), most).value() ==
        base::read_file(stored.store->layer_path(diff_id), most).value());
  // It is there: nothing to make.
  CHECK(image::LayerStream::begin(*passing.store, first, diff_id).value() == nullptr);
}

TEST_CASE("content that is not what the config says gives no disk") {
  Shop shop;
  image::Lease lease = shop.store->lease();
  const std::string other = image::digest_of("other");

  const auto made = stream(shop, lease, layer(), other, 100'000);

  CHECK(made.error().code() == ErrorCode::InvalidArgument);
  CHECK(made.error().to_string().find("instead of " + other) != std::string::npos);
  CHECK(shop.files_in("/layers/sha256") == 0);
  CHECK(shop.files_in("/ingest") == 0);
}

TEST_CASE("damage in the middle is told to the writer, who is not left waiting") {
  Shop shop;
  image::Lease lease = shop.store->lease();
  // A gzip header, and then nothing that could be one.
  const std::string blob = "\x1f\x8b\x08" + std::string(64u << 20, '\x7f');

  const auto made = stream(shop, lease, blob, image::digest_of("x"), 1u << 20);

  CHECK(made.error().to_string().find("gzip") != std::string::npos);
  CHECK(shop.files_in("/ingest") == 0);
}

TEST_CASE("a layer that is given up leaves nothing") {
  Shop shop;
  image::Lease lease = shop.store->lease();
  {
    const auto given_up =
        image::LayerStream::begin(*shop.store, lease, image::digest_of("x")).value();
    REQUIRE(given_up->write(layer().substr(0, 300'000)));
  }
  CHECK(shop.files_in("/ingest") == 0);
  CHECK(shop.files_in("/layers/sha256") == 0);
}
