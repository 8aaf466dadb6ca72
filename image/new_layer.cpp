#include "image/new_layer.h"

#include <optional>
#include <utility>
#include <vector>

#include "image/compress.h"
#include "image/digest.h"
#include "image/erofs_writer.h"
#include "image/layer.h"
#include "image/manifest.h"
#include "image/tar_reader.h"

namespace image {
namespace {

using base::Result;

constexpr size_t drain_bytes = 64u << 10;

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
  Sha256 hash;
  const ByteSource watched = [&](std::span<char> buffer) -> Result<size_t> {
    const size_t count = TRY(tar(buffer));
    const std::string_view bytes(buffer.data(), count);
    hash.update(bytes);
    if (count > 0) TRY(gzip.write(bytes));
    return count;
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
  std::vector<char> rest(drain_bytes);
  while (TRY(watched(rest)) != 0) {
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
