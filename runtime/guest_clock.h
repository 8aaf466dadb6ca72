#pragma once
/// How far a guest's wall clock is from the host's, and whether that is worth a correction.
///
/// Pure. A guest counts its processor's ticks by itself: it drifts by some seconds a day, misses
/// what the host slept or was set to, and stands still while its machine is paused.

#include <cstdint>
#include <cstdlib>

namespace runtime {

inline constexpr int64_t clock_tolerance_ns = 100'000'000;

/// By how much a guest has to move its clock that showed `guest_ns` when it was asked; 0: it is
/// near enough. `host_ns` is when the answer was here, after `way_ns` of question and answer
/// together: nobody knows how those divide into two.
inline int64_t clock_correction_ns(int64_t guest_ns, int64_t host_ns, int64_t way_ns) {
  const int64_t behind_ns = host_ns - way_ns / 2 - guest_ns;
  return std::abs(behind_ns) <= clock_tolerance_ns + way_ns / 2 ? 0 : behind_ns;
}

}  // namespace runtime
