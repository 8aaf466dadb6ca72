#pragma once
/// The turns of build steps at a cache mount with `sharing=locked`: one at a time.

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "base/result.h"
#include "builder/build.h"

namespace builder {

class CacheTurn : public std::enable_shared_from_this<CacheTurn> {
 public:
  /// The one of a cache, for all builds.
  static std::shared_ptr<CacheTurn> of(const std::string& id);
  /// Waits for the turn; it is over when the returned value is gone. Cancelled.
  base::Result<std::shared_ptr<const void>> take(Cancellation& cancellation);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool taken_ = false;
};

}  // namespace builder
