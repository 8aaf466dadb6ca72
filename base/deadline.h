#pragma once
/// A moment after which waiting stops. On CLOCK_BOOTTIME, so that a suspended host counts.

#include <algorithm>
#include <cstdint>
#include <limits>

#include <time.h>

namespace base {

/// Nanoseconds on CLOCK_BOOTTIME: the one clock for timers. Wall time is for display only.
inline int64_t boottime_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

/// Nanoseconds since 1970, UTC.
inline int64_t wall_time_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

class Deadline {
 public:
  static Deadline in_ms(int64_t milliseconds) {
    return Deadline(boottime_ns() + milliseconds * 1'000'000);
  }
  static Deadline never() { return Deadline(std::numeric_limits<int64_t>::max()); }

  bool passed() const { return boottime_ns() >= at_ns_; }
  int64_t at_ns() const { return at_ns_; }
  bool is_never() const { return at_ns_ == std::numeric_limits<int64_t>::max(); }
  /// Milliseconds left, rounded up, never negative; fits a poll() timeout (-1 for never).
  int remaining_ms() const {
    if (is_never()) return -1;
    const int64_t left = at_ns_ - boottime_ns();
    if (left <= 0) return 0;
    return static_cast<int>(std::min<int64_t>((left + 999'999) / 1'000'000, 1'000'000'000));
  }

 private:
  explicit Deadline(int64_t at_ns) : at_ns_(at_ns) {}
  int64_t at_ns_;
};

}  // namespace base
