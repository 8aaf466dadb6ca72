#include "image/layer_stream.h"

#include <mutex>
#include <utility>

#include "base/file.h"
#include "image/layer_disk.h"

namespace image {
namespace {

using base::Result;

class Stream final : public LayerStream {
 public:
  Stream(Store& store, std::string diff_id, std::shared_ptr<std::mutex> turn,
         std::unique_lock<std::mutex> held, Ingest file)
      : store_(store),
        diff_id_(std::move(diff_id)),
        turn_(std::move(turn)),
        held_(std::move(held)),
        disk_(std::move(file), diff_id_) {}

  Result<> write(std::string_view compressed) override { return disk_.write(compressed); }

  Result<> finish() override { return store_.commit_layer(TRY(disk_.finish()), diff_id_); }

 private:
  Store& store_;
  const std::string diff_id_;
  const std::shared_ptr<std::mutex> turn_;
  const std::unique_lock<std::mutex> held_;
  LayerDisk disk_;
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
