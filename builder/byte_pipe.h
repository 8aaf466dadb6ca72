#pragma once
/// Bytes from one thread to another, a bounded number at a time.

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace builder {

class BytePipe {
 public:
  explicit BytePipe(size_t bytes_max) : bytes_max_(bytes_max) {}

  /// Blocks while the pipe is full. Cancelled once the reader has left.
  base::Result<> write(std::string_view bytes);
  /// No more bytes come; with an error the reader gets it instead of the end.
  void finish(base::Result<> outcome);
  /// 0 at the end.
  base::Result<size_t> read(std::span<char> buffer);
  /// The reader wants no more.
  void leave();

 private:
  const size_t bytes_max_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string bytes_;
  size_t taken_ = 0;  ///< Of `bytes_`.
  std::optional<base::Result<>> outcome_;
  bool left_ = false;
};

}  // namespace builder
