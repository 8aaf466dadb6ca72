#include "image/layer.h"

#include <cerrno>
#include <mutex>
#include <vector>

#include <sys/stat.h>

#include "base/file.h"
#include "image/bytes.h"
#include "image/digest.h"
#include "image/layer_disk.h"

namespace image {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;

constexpr size_t piece_bytes = 256u << 10;

}  // namespace

Result<> make_layer(Store& store, Lease& lease, const Descriptor& layer,
                    const std::string& diff_id) {
  TRY(lease.keep(layer.digest));
  TRY(lease.keep(diff_id));
  const std::shared_ptr<std::mutex> turn = store.layer_turn(diff_id);
  const std::lock_guard only_one(*turn);
  if (base::path_exists(store.layer_path(diff_id))) return {};
  return store.commit_layer(TRY(write_layer(store, lease, layer, diff_id)), diff_id);
}

Result<Ingest> write_layer(Store& store, Lease& lease, const Descriptor& layer,
                           const std::string& diff_id) {
  const base::UniqueFd blob = TRY(store.open_blob(layer.digest));
  struct stat info {};
  if (::fstat(blob.get(), &info) != 0) return base::fail_errno(errno, "look at the layer");
  if (static_cast<uint64_t>(info.st_size) != layer.size)
    return fail(ErrorCode::InvalidArgument, "layer {} has {} bytes where {} were announced",
                layer.digest, info.st_size, layer.size);
  const ByteSource compressed = read_from(blob.get());
  LayerDisk disk(TRY(store.begin_layer(lease)), diff_id);
  Sha256 hash;
  std::vector<char> piece(piece_bytes);
  while (const size_t count = TRY(compressed(piece))) {
    hash.update({piece.data(), count});
    TRY(disk.write({piece.data(), count}));
  }
  Ingest made = TRY(disk.finish());
  if (const std::string seen = hash.finish(); seen != layer.digest)
    return fail(ErrorCode::Io, "layer {} is damaged on this disk: it reads as {}", layer.digest,
                seen);
  return made;
}

}  // namespace image
