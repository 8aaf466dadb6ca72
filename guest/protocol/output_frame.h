#pragma once
/// The frames of a process's output: 13 bytes of header (stream, offset, length), then the bytes.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace guest {

inline constexpr uint8_t output_stream_stdout = 1;
inline constexpr uint8_t output_stream_stderr = 2;
/// Larger pieces are sent as several frames.
inline constexpr uint32_t output_frame_payload_bytes_max = 64u << 10;

struct OutputFrame {
  uint8_t stream = output_stream_stdout;
  uint64_t offset = 0;       ///< Of the first payload byte, in the combined output.
  std::string_view payload;  ///< Valid until the decoder is fed again.
};

/// Appends header and payload to `out`.
void append_output_frame(const OutputFrame& frame, std::string& out);

/// Puts frames together again from pieces of any size. Holds at most one frame.
class OutputFrameDecoder {
 public:
  using Sink = std::function<base::Result<>(const OutputFrame&)>;

  /// Calls `sink` for each complete frame. An impossible header, or an error of `sink`, ends the
  /// decoding for good.
  base::Result<> feed(std::string_view bytes, const Sink& sink);
  /// True if the stream may end here: no frame is begun.
  bool at_boundary() const { return pending_.empty(); }

 private:
  std::string pending_;
};

}  // namespace guest
