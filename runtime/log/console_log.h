#pragma once
/// What a VM's console and QEMU itself printed: two files, the older one dropped when the newer is
/// full. For people who look into a boot; not the container's output.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "base/limits.h"
#include "base/result.h"

namespace runtime {

class ConsoleLog {
 public:
  /// `path` and `path`.old; nothing is opened before the first append.
  explicit ConsoleLog(std::string path, uint64_t bytes_max = base::limits::console_log_bytes_max)
      : path_(std::move(path)), bytes_max_(bytes_max) {}

  /// A full disk loses the text: a console must never hold a VM up.
  void append(std::string_view bytes);
  /// A new boot begins: what was there goes.
  void restart();
  /// At most `bytes_max` from the end.
  std::string tail(uint64_t bytes_max) const;
  /// Gives all to `sink`, then, with `follow`, what comes, until `sink` refuses or `cancelled`.
  base::Result<> read(bool follow, const std::function<bool()>& cancelled,
                      const std::function<bool(std::string_view)>& sink);

 private:
  std::string load(uint64_t from) const;

  const std::string path_;
  const uint64_t bytes_max_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t dropped_ = 0;  ///< Bytes that were in files which are gone.
  uint64_t old_bytes_ = 0;
  uint64_t new_bytes_ = 0;
  bool measured_ = false;
  void measure();
};

}  // namespace runtime
