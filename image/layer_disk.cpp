#include "image/layer_disk.h"

#include <cstdlib>
#include <memory>
#include <utility>

#include "base/limits.h"
#include "image/decompress.h"
#include "image/digest.h"
#include "image/side_hash.h"
#include "image/tar_reader.h"

namespace image {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;

constexpr uint64_t metadata_bytes_max = 2ull << 30;

}  // namespace

LayerDisk::LayerDisk(Ingest disk, std::string diff_id)
    : diff_id_(std::move(diff_id)), disk_(std::move(disk)) {
  inflating_ = std::thread([this] { inflate(); });
  writing_ = std::thread([this] { make(); });
}

LayerDisk::~LayerDisk() { end(fail(ErrorCode::Cancelled, "the layer was not needed")); }

Result<> LayerDisk::write(std::string_view compressed) {
  const Result<> written = compressed_.write(compressed);
  if (written) return {};
  // The disk's own error is the cause of what came back through the pipes.
  end({});
  return outcome_ ? written : outcome_;
}

Result<Ingest> LayerDisk::finish() {
  end({});
  TRY(outcome_);
  return std::move(disk_);
}

void LayerDisk::end(const Result<>& outcome) {
  compressed_.finish(outcome);
  if (inflating_.joinable()) inflating_.join();
  if (writing_.joinable()) writing_.join();
}

void LayerDisk::inflate() {
  const Result<> done = pump();
  if (!done) compressed_.leave(done.error());
  content_.finish(done);
}

Result<> LayerDisk::pump() {
  const ByteSource source = [&](std::span<char> buffer) { return compressed_.read(buffer); };
  const std::unique_ptr<Decompressor> open = TRY(open_decompressor(source));
  while (TRY(content_.fill([&](std::span<char> into) { return open->read(into); }))) {
  }
  return {};
}

void LayerDisk::make() {
  outcome_ = write_disk();
  if (!outcome_) content_.leave(outcome_.error());
}

Result<> LayerDisk::write_disk() {
  SideHash hash;
  const PieceSource source = [&]() -> Result<std::string_view> {
    hash.settle();  // the pipe takes its last piece back
    const std::string_view piece = TRY(content_.next());
    hash.begin(piece);
    return piece;
  };
  ErofsWriter writer(disk_.fd(), layer_disk_options());
  TarReader members = TRY(TarReader::create(source));
  while (const auto entry = TRY(members.next())) TRY(writer.add(*entry, members));
  // Padding after the archive's end is part of what the digest covers.
  while (!TRY(source()).empty()) {
  }
  if (const std::string seen = hash.finish(); seen != diff_id_)
    return fail(ErrorCode::InvalidArgument, "a layer holds {} instead of {}", seen, diff_id_);
  return writer.finish(layer_disk_uuid(diff_id_));
}

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

}  // namespace image
