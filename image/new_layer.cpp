#include "image/new_layer.h"

#include <optional>
#include <utility>
#include <vector>

#include "image/compress.h"
#include "image/digest.h"
#include "image/erofs_writer.h"
#include "image/layer_disk.h"
#include "image/manifest.h"
#include "image/side_thread.h"
#include "image/tar_reader.h"

namespace image {
namespace {

using base::Result;

constexpr size_t piece_bytes = 256u << 10;

/// Takes compressed bytes to the store's file as they come.
class BlobSink {
 public:
  explicit BlobSink(PieceWriter file) : file_(std::move(file)) {}
  Result<> write(std::string_view bytes) {
    TRY(file_.write_at(size_, bytes));
    size_ += bytes.size();
    return {};
  }
  PieceWriter take() { return std::move(file_); }

 private:
  PieceWriter file_;
  uint64_t size_ = 0;
};

}  // namespace

Result<NewLayer> pack_layer(Store& store, const Lease& lease, const ByteSource& tar) {
  BlobSink blob(TRY(store.begin_put(lease)));
  GzipWriter gzip([&](std::string_view bytes) { return blob.write(bytes); });
  std::vector<char> buffer(piece_bytes);  // outlives the thread that reads it
  SideThread packing([&](std::string_view piece) { return gzip.write(piece); });
  Sha256 hash;
  const PieceSource watched = [&]() -> Result<std::string_view> {
    TRY(packing.settle());
    const std::string_view piece(buffer.data(), TRY(tar(buffer)));
    packing.begin(piece);
    hash.update(piece);
    return piece;
  };
  Ingest disk = TRY(store.begin_layer(lease));
  ErofsWriter writer(disk.fd(), layer_disk_options());
  NewLayer layer{.blob = {}, .diff_id = {}, .empty = true};
  {
    TarReader members = TRY(TarReader::create(watched));
    while (const auto entry = TRY(members.next())) {
      layer.empty = false;
      TRY(writer.add(*entry, members));
    }
  }
  while (!TRY(watched()).empty()) {
  }
  if (layer.empty) return layer;
  TRY(gzip.finish());
  layer.diff_id = hash.finish();
  TRY(writer.finish(layer_disk_uuid(layer.diff_id)));
  layer.blob = TRY(store.finish_put(blob.take(), std::nullopt));
  layer.blob.media_type = gzip_layer_media_type;
  TRY(store.commit_layer(std::move(disk), layer.diff_id));
  return layer;
}

}  // namespace image
