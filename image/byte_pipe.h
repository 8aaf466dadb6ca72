#pragma once
/// Bytes from one thread to another, bounded: whoever is ahead waits.

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace image {

class BytePipe {
 public:
  /// Enough buffers for both threads to run on when the other pauses, and small enough for what one
  /// wrote to be in the processor's cache when the other reads it.
  explicit BytePipe(size_t buffer_bytes = 512u << 10, size_t buffers = 6);

  // ---- the writer's end, one thread ----

  /// The reader's error if it has left.
  base::Result<> write(std::string_view bytes);
  /// Lets `fill` write into the pipe's own memory; 0 from it is the end of its bytes, and false.
  base::Result<bool> fill(const std::function<base::Result<size_t>(std::span<char>)>& fill);
  /// No more bytes come; with an error, the reader gets that instead of the end.
  void finish(const base::Result<>& outcome = {});

  // ---- the reader's end, one thread ----

  /// The next piece, valid until the next call; empty at the end.
  base::Result<std::string_view> next();
  /// Copies some of them; 0 at the end.
  base::Result<size_t> read(std::span<char> buffer);
  /// Leaves: writes fail with `error` from here on.
  void leave(base::Error error);
  /// Leaves, because no more is wanted: writes are Cancelled.
  void leave();

 private:
  struct Buffer {
    std::vector<char> bytes;
    size_t used = 0;
  };
  base::Result<> get_empty();
  void hand_over();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Buffer> empty_;
  std::deque<Buffer> full_;
  std::optional<Buffer> writing_;  ///< The writer's alone.
  std::optional<Buffer> reading_;  ///< The reader's alone.
  std::string_view unread_;        ///< Of `reading_`, where read() is used.
  bool finished_ = false;
  std::optional<base::Error> writer_error_;
  std::optional<base::Error> reader_error_;
};

}  // namespace image
