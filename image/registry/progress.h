#pragma once
/// Counts what a transfer has done, for whoever watches it.

#include <mutex>

#include "image/registry/pull.h"

namespace image::registry {

class ProgressCounter {
 public:
  explicit ProgressCounter(const TransferObserver& observer) : observer_(observer) {}

  void expect(uint32_t blobs, uint64_t bytes) {
    change([&](TransferProgress& now) {
      now.blobs_total += blobs;
      now.bytes_total += bytes;
    });
  }
  void bytes(uint64_t count) {
    change([&](TransferProgress& now) { now.bytes_done += count; });
  }
  /// Bytes that have to come once more.
  void take_back(uint64_t count) {
    change([&](TransferProgress& now) { now.bytes_done -= count; });
  }
  void blob_done() {
    change([&](TransferProgress& now) { ++now.blobs_done; });
  }

 private:
  template <class Change>
  void change(const Change& make) {
    const std::lock_guard lock(mutex_);
    make(now_);
    if (observer_) observer_(now_);
  }
  const TransferObserver& observer_;
  std::mutex mutex_;
  TransferProgress now_;
};

}  // namespace image::registry
