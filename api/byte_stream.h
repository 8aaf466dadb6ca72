#pragma once
/// Bytes from whoever makes them to the one connection that sends them.
///
/// The reader waits for bytes and for its client's hang-up at the same time, so that work for
/// somebody who left ends at once. Thread-safe.

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace api {

class ByteStream {
 public:
  /// Holds at most `bytes_max` that nobody has read yet.
  static base::Result<std::shared_ptr<ByteStream>> create(size_t bytes_max);

  /// Blocks while the stream is full; false if the reader left.
  bool write(std::string_view bytes);
  /// Never blocks: a full stream is closed instead, since its reader does not read.
  bool push(std::string_view bytes);
  /// No more bytes come; what is there is still read.
  void finish();

  /// Up to `buffer.size()` bytes; 0 at the end. Closes the stream if `client` hangs up meanwhile.
  size_t read(std::span<char> buffer, int client);
  /// The reader left.
  void close();
  /// Called once, by whoever closes, if that is before the end.
  void on_close(std::function<void()> call);
  bool closed() const;

 private:
  ByteStream(size_t bytes_max, base::UniqueFd event)
      : bytes_max_(bytes_max), event_(std::move(event)) {}
  void wake();

  const size_t bytes_max_;
  const base::UniqueFd event_;
  mutable std::mutex mutex_;
  std::condition_variable room_;
  std::string bytes_;
  bool finished_ = false;
  bool closed_ = false;
  std::function<void()> on_close_;
};

}  // namespace api
