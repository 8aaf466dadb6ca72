#include "image/layer_stream.h"

#include <mutex>
#include <thread>

#include "base/file.h"
#include "image/byte_pipe.h"
#include "image/decompress.h"
#include "image/digest.h"
#include "image/erofs_writer.h"
#include "image/layer.h"
#include "image/tar_reader.h"

namespace image {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;

class Stream final : public LayerStream {
 public:
  Stream(Store& store, std::string diff_id, std::shared_ptr<std::mutex> turn,
         std::unique_lock<std::mutex> held, Ingest disk)
      : store_(store),
        diff_id_(std::move(diff_id)),
        turn_(std::move(turn)),
        held_(std::move(held)),
        disk_(std::move(disk)) {
    inflating_ = std::thread([this] { inflate(); });
    writing_ = std::thread([this] { make_disk(); });
  }

  ~Stream() override { end(fail(ErrorCode::Cancelled, "the layer was not needed")); }

  Result<> write(std::string_view compressed) override {
    const Result<> written = compressed_.write(compressed);
    if (written) return {};
    // The disk's own error is the cause of what came back through the pipes.
    end({});
    return outcome_ ? written : outcome_;
  }

  Result<> finish() override {
    end({});
    TRY(outcome_);
    return store_.commit_layer(std::move(disk_), diff_id_);
  }

 private:
  void end(const Result<>& outcome) {
    compressed_.finish(outcome);
    if (inflating_.joinable()) inflating_.join();
    if (writing_.joinable()) writing_.join();
  }

  void inflate() {
    const Result<> done = pump();
    if (!done) compressed_.leave(done.error());
    content_.finish(done);
  }

  Result<> pump() {
    const ByteSource source = [&](std::span<char> buffer) { return compressed_.read(buffer); };
    const std::unique_ptr<Decompressor> open = TRY(open_decompressor(source));
    while (TRY(content_.fill([&](std::span<char> into) { return open->read(into); }))) {
    }
    return {};
  }

  void make_disk() {
    outcome_ = write_disk();
    if (!outcome_) content_.leave(outcome_.error());
  }

  Result<> write_disk() {
    Sha256 hash;
    const PieceSource source = [&]() -> Result<std::string_view> {
      const std::string_view piece = TRY(content_.next());
      hash.update(piece);
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

  Store& store_;
  const std::string diff_id_;
  const std::shared_ptr<std::mutex> turn_;
  const std::unique_lock<std::mutex> held_;
  Ingest disk_;
  BytePipe compressed_;
  BytePipe content_;
  Result<> outcome_;  ///< Of the disk; read after its thread has been joined.
  std::thread inflating_;
  std::thread writing_;
};

}  // namespace

Result<std::unique_ptr<LayerStream>> LayerStream::begin(Store& store, Lease& lease,
                                                        const std::string& diff_id) {
  TRY(lease.keep(diff_id));
  std::shared_ptr<std::mutex> turn = store.layer_turn(diff_id);
  std::unique_lock held(*turn);
  if (base::path_exists(store.layer_path(diff_id))) return nullptr;
  Ingest disk = TRY(store.begin_layer(lease));
  return std::make_unique<Stream>(store, diff_id, std::move(turn), std::move(held),
                                  std::move(disk));
}

}  // namespace image
