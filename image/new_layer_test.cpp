#include "image/new_layer.h"

#include <filesystem>

#include <doctest/doctest.h>

#include "base/file.h"
#include "base/text.h"
#include "image/compress.h"
#include "image/decompress.h"
#include "image/layer.h"
#include "image/test_archive.h"

namespace {

/// A store in a folder of its own.
struct Place {
  Place() : root(std::filesystem::temp_directory_path() / ("layer-" + base::random_hex(8))) {
    store = std::move(*image::Store::open(root));
  }
  ~Place() {
    store.reset();
    std::filesystem::remove_all(root);
  }
  std::filesystem::path root;
  std::unique_ptr<image::Store> store;
};

/// The text, in pieces of that size.
image::ByteSource pieces_of(const std::string& text, size_t piece) {
  auto at = std::make_shared<size_t>(0);
  return [&text, piece, at](std::span<char> buffer) -> base::Result<size_t> {
    const size_t count = std::min({piece, buffer.size(), text.size() - *at});
    text.copy(buffer.data(), count, *at);
    *at += count;
    return count;
  };
}

std::string read_all(image::ByteSource source) {
  std::string text;
  std::string buffer(1000, '\0');
  while (const size_t count = source(buffer).value()) text.append(buffer, 0, count);
  return text;
}

std::string gzip(const std::string& text, size_t piece) {
  std::string packed;
  image::GzipWriter writer([&](std::string_view bytes) -> base::Result<> {
    packed.append(bytes);
    return {};
  });
  for (size_t at = 0; at < text.size(); at += piece)
    REQUIRE(writer.write(std::string_view(text).substr(at, piece)));
  REQUIRE(writer.finish());
  return packed;
}

}  // namespace

TEST_CASE("a layer that is made becomes a blob and a disk") {
  Place place;
  const std::string tar = image_test::tar({{.name = "etc/motd", .content = "hello\n"}});
  image::Lease lease = place.store->lease();

  const auto layer = image::pack_layer(*place.store, lease, pieces_of(tar, 7));

  REQUIRE(layer);
  CHECK_FALSE(layer->empty);
  CHECK(layer->diff_id == image::digest_of(tar));
  CHECK(layer->blob.media_type == "application/vnd.oci.image.layer.v1.tar+gzip");
  CHECK(std::filesystem::exists(place.store->layer_path(layer->diff_id)));
  const base::UniqueFd blob = place.store->open_blob(layer->blob.digest).value();
  CHECK(read_all(image::decompressed(image::read_from(blob.get())).value()) == tar);
}

TEST_CASE("a disk that is made again from the blob is the same disk") {
  Place place;
  const std::string tar = image_test::tar({{.name = "big", .content = std::string(100'000, 'x')}});
  image::Lease lease = place.store->lease();
  const image::NewLayer layer =
      image::pack_layer(*place.store, lease, pieces_of(tar, 4096)).value();
  const std::string path = place.store->layer_path(layer.diff_id);
  const std::string before = base::read_file(path, 1u << 20).value();
  std::filesystem::remove(path);

  REQUIRE(image::make_layer(*place.store, lease, layer.blob, layer.diff_id));

  CHECK(base::read_file(path, 1u << 20).value() == before);
}

TEST_CASE("a layer whose bytes break off, or make no sense, is told and leaves nothing") {
  Place place;
  const std::string tar =
      image_test::tar({{.name = "big", .content = std::string(2'000'000, 'x')}});
  image::Lease lease = place.store->lease();
  SUBCASE("the sender fails") {
    size_t sent = 0;
    const image::ByteSource breaks = [&](std::span<char> buffer) -> base::Result<size_t> {
      if (sent > tar.size() / 2) return base::fail(base::ErrorCode::Io, "the line is cut");
      const size_t count = tar.copy(buffer.data(), buffer.size(), sent);
      sent += count;
      return count;
    };
    const auto layer = image::pack_layer(*place.store, lease, breaks);
    REQUIRE_FALSE(layer);
    CHECK(layer.error().to_string().find("the line is cut") != std::string::npos);
  }
  SUBCASE("the tar is none") {
    // While the first piece is packed, its reader has already given up.
    const std::string none(2'000'000, '?');
    CHECK_FALSE(image::pack_layer(*place.store, lease, pieces_of(none, none.size())));
  }
  CHECK(std::filesystem::is_empty(place.root / "ingest"));
}

TEST_CASE("a layer without members is none") {
  Place place;
  const std::string tar = image_test::tar({});
  image::Lease lease = place.store->lease();

  const auto layer = image::pack_layer(*place.store, lease, pieces_of(tar, 512));

  REQUIRE(layer);
  CHECK(layer->empty);
  CHECK(std::filesystem::is_empty(place.root / "blobs/sha256"));
}

TEST_CASE("how the content comes in pieces does not show in the compressed bytes") {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += std::to_string(i * 7919 % 10'007);

  CHECK(gzip(text, 1) == gzip(text, 300'000));
  CHECK(gzip(text, 4096) == gzip(text, 99'991));
  CHECK(gzip(text, 4096).size() < text.size() * 2 / 3);
}
