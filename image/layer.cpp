#include "image/layer.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <mutex>

#include <sys/stat.h>

#include "base/file.h"
#include "base/limits.h"
#include "image/decompress.h"
#include "image/digest.h"
#include "image/erofs_writer.h"
#include "image/tar_reader.h"

namespace image {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;

constexpr uint64_t metadata_bytes_max = 2ull << 30;
constexpr size_t drain_bytes = 64u << 10;

/// Passes a stream on and hashes what goes by.
ByteSource hashed(ByteSource source, Sha256& hash) {
  return [source = std::move(source), &hash](std::span<char> buffer) -> Result<size_t> {
    const size_t count = TRY(source(buffer));
    hash.update({buffer.data(), count});
    return count;
  };
}

Result<> drain(const ByteSource& source) {
  std::vector<char> buffer(drain_bytes);
  while (TRY(source(buffer)) != 0) {
  }
  return {};
}

}  // namespace

ErofsOptions layer_disk_options() {
  ErofsOptions options;
  options.unpacked_bytes_max = base::limits::layer_unpacked_bytes_max;
  options.tree = {.entries_max = base::limits::layer_entries_max,
                  .metadata_bytes_max = metadata_bytes_max};
  return options;
}

std::array<uint8_t, 16> layer_disk_uuid(const std::string& diff_id) {
  std::array<uint8_t, 16> uuid{};
  const std::string hex(digest_hex(diff_id));
  for (size_t i = 0; i < uuid.size(); ++i)
    uuid[i] = static_cast<uint8_t>(std::strtoul(hex.substr(2 * i, 2).c_str(), nullptr, 16));
  return uuid;
}

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
  Sha256 compressed_hash;
  Sha256 content_hash;
  const ByteSource compressed = hashed(read_from(blob.get()), compressed_hash);
  const ByteSource content = hashed(TRY(decompressed(compressed)), content_hash);
  Ingest disk = TRY(store.begin_layer(lease));
  ErofsWriter writer(disk.fd(), layer_disk_options());
  TarReader members = TRY(TarReader::create(content));
  while (const auto entry = TRY(members.next())) TRY(writer.add(*entry, members));
  // Padding after the archive's end is part of what the digests cover.
  TRY(drain(content));
  TRY(drain(compressed));
  if (const std::string seen = content_hash.finish(); seen != diff_id)
    return fail(ErrorCode::InvalidArgument, "layer {} holds {} instead of {}", layer.digest, seen,
                diff_id);
  if (const std::string seen = compressed_hash.finish(); seen != layer.digest)
    return fail(ErrorCode::Io, "layer {} is damaged on this disk: it reads as {}", layer.digest,
                seen);
  TRY(writer.finish(layer_disk_uuid(diff_id)));
  return disk;
}

}  // namespace image
