#include "image/layer_stream.h"

#include <utility>

#include "base/file.h"

namespace image {

using base::Result;

LayerStream::LayerStream(Store& store, std::string diff_id, std::shared_ptr<std::mutex> turn,
                         std::unique_lock<std::mutex> held, Ingest file)
    : store_(store),
      diff_id_(std::move(diff_id)),
      turn_(std::move(turn)),
      held_(std::move(held)),
      disk_(std::move(file), diff_id_) {}

Result<> LayerStream::finish() { return store_.commit_layer(TRY(disk_.finish()), diff_id_); }

Result<std::unique_ptr<LayerStream>> LayerStream::begin(Store& store, Lease& lease,
                                                        const std::string& diff_id) {
  TRY(lease.keep(diff_id));
  std::shared_ptr<std::mutex> turn = store.layer_turn(diff_id);
  std::unique_lock held(*turn);
  if (base::path_exists(store.layer_path(diff_id))) return nullptr;
  Ingest file = TRY(store.begin_layer(lease));
  return std::unique_ptr<LayerStream>(
      new LayerStream(store, diff_id, std::move(turn), std::move(held), std::move(file)));
}

}  // namespace image
