#pragma once
/// A process's output from where the host has not stored it yet, in the order it was read.
///
/// Offsets count the combined output, both streams together. Nothing is dropped: who appends asks
/// for `room` first, and stops reading the process's pipes when there is none.

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "base/result.h"
#include "guest/protocol/output_frame.h"

namespace agent {

enum class OutputFilter { All, Out, Err };

class OutputRing {
 public:
  /// Bytes that may be appended now. Small pieces count more than their bytes, since each costs
  /// memory of its own.
  size_t room() const;
  void append(uint8_t stream, std::string_view bytes);

  uint64_t begin() const { return begin_; }
  uint64_t end() const { return end_; }
  /// Memory held, roughly.
  size_t held_bytes() const;

  /// Everything before `offset` is stored by the host. An offset not reached yet is an error; one
  /// from before is nothing new.
  base::Result<> acknowledge(uint64_t offset);

  /// Appends frames from `offset` on to `out`, at most about `bytes_max` bytes but one whole frame
  /// at least, and moves `offset` behind them (and behind what the filter leaves out). False if
  /// nothing was appended.
  bool copy_frames(uint64_t& offset, OutputFilter filter, size_t bytes_max, std::string& out) const;

 private:
  struct Piece {
    uint8_t stream;
    uint64_t offset;
    std::string bytes;
    uint64_t end() const { return offset + bytes.size(); }
  };

  std::deque<Piece> pieces_;
  uint64_t begin_ = 0;
  uint64_t end_ = 0;
};

}  // namespace agent
