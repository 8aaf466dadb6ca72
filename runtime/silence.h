#pragma once
/// Whether a guest that does not answer hangs, or merely does not get to run.
///
/// Pure. A host with far more machines than processors answers late; that alone makes no guest
/// suspect. Counted is the time since the first question that nothing followed, less the time that
/// the machine's busiest thread spent waiting for a processor.

#include <cstdint>

namespace runtime {

inline constexpr int vm_silence_ms = 15'000;  ///< Able to run and not heard: it hangs.

/// All times in nanoseconds; moments on CLOCK_BOOTTIME.
class Silence {
 public:
  /// Note before each question: when bytes last came from the guest, and how long its threads have
  /// waited for a processor since they exist.
  void asking(int64_t now, int64_t heard, int64_t starved) {
    if (since_ != 0 && heard < since_) return;
    since_ = now;
    starved_before_ = starved;
  }
  /// True once nothing has been heard for `vm_silence_ms` in which the guest could run.
  bool hangs(int64_t now, int64_t heard, int64_t starved) const {
    constexpr int64_t limit = vm_silence_ms * int64_t{1'000'000};
    return since_ != 0 && heard < since_ && now - since_ - (starved - starved_before_) > limit;
  }

 private:
  int64_t since_ = 0;  ///< Of the first question without an answer; 0: none was asked.
  int64_t starved_before_ = 0;
};

}  // namespace runtime
