#pragma once
/// A machine whose writes find no room on the host's disk.
///
/// QEMU stops the whole machine at such a write and keeps it, so the guest sees no error and loses
/// nothing; it tells so over its monitor. Nobody tells when there is room again: that is looked for
/// from time to time, ever less often, and then the machine is let go on. If there was too little
/// room after all, QEMU stops it again.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/limits.h"
#include "base/result.h"
#include "runtime/io/loop.h"

namespace runtime::qemu {

/// The daemon's own reserve comes first; and some more, or the machine would stop again at once.
inline constexpr uint64_t full_disk_room_bytes = 2 * base::limits::state_reserve_bytes;
inline constexpr uint64_t full_disk_look_first_ms = 500;
inline constexpr uint64_t full_disk_look_max_ms = 10'000;
/// Running for so long it has done the write it was stopped at.
inline constexpr uint64_t full_disk_settle_ms = 300;

/// Whether `path`'s disk has room for a machine to go on.
bool has_room(const std::string& path);

struct FullDiskOptions {
  std::function<bool()> has_room;
  std::function<void(bool full)> on_change;  ///< On the loop; must not destroy its watch.
  uint64_t look_first_ms = full_disk_look_first_ms;
  uint64_t look_max_ms = full_disk_look_max_ms;
  uint64_t settle_ms = full_disk_settle_ms;
};

/// Lives on the loop thread, as its machine's only monitor client.
class FullDiskWatch {
 public:
  /// `monitor` is a fresh connection to QEMU's monitor. A machine that is stopped already, since
  /// an earlier daemon's days, is found as well.
  static base::Result<std::unique_ptr<FullDiskWatch>> create(IoLoop& loop, base::UniqueFd monitor,
                                                             FullDiskOptions options);
  /// Looks now instead of later. True if a stopped machine has been told to go on.
  bool look_now();

 private:
  enum class State { Running, Stopped, Settling };

  explicit FullDiskWatch(FullDiskOptions options) : options_(std::move(options)) {}
  void on_bytes(std::string_view bytes);
  void on_line(std::string_view line);
  void on_status(const std::string& status);
  void on_due();
  void look_later();
  void execute(const char* command);

  FullDiskOptions options_;
  State state_ = State::Running;
  uint64_t delay_ms_ = 0;
  std::string incoming_;
  std::unique_ptr<LoopTimer> timer_;
  std::unique_ptr<LoopSocket> socket_;
};

}  // namespace runtime::qemu
