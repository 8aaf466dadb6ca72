#pragma once
/// QMP: commands to one QEMU, and what it tells by itself.

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/deadline.h"
#include "base/result.h"
#include "runtime/io/loop.h"

namespace runtime::qemu {

class Monitor : public std::enable_shared_from_this<Monitor> {
 public:
  /// Connects and agrees on capabilities before `deadline`.
  static base::Result<std::shared_ptr<Monitor>> connect(IoLoop& loop, const std::string& socket,
                                                        const base::Deadline& deadline);

  /// Runs a command without arguments; its "return" as JSON text.
  base::Result<std::string> execute(const std::string& command, const base::Deadline& deadline);
  /// Why QEMU stopped or reset, as far as it said: "guest-panic", "host-signal"; else empty.
  std::string last_words() const;
  void close();

 private:
  explicit Monitor(IoLoop& loop) : loop_(loop) {}
  void on_bytes(std::string_view bytes);
  void on_line(std::string_view line);
  void on_closed(const std::string& reason);

  IoLoop& loop_;
  std::unique_ptr<LoopSocket> socket_;  // loop thread only
  std::string incoming_;                // loop thread only

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool greeted_ = false;
  std::optional<std::string> closed_;
  uint64_t next_id_ = 1;
  std::map<uint64_t, std::optional<base::Result<std::string>>> answers_;
  std::string last_words_;
};

}  // namespace runtime::qemu
