#include "guest/protocol/output_frame.h"

#include "guest/protocol/protocol.h"

namespace guest {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;

template <class T>
void append_big_endian(T value, std::string& out) {
  for (size_t i = sizeof(T); i-- > 0;) out += static_cast<char>(value >> (8 * i) & 0xff);
}

uint64_t big_endian(std::string_view bytes) {
  uint64_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

}  // namespace

void append_output_frame(const OutputFrame& frame, std::string& out) {
  out.reserve(out.size() + output_frame_header_bytes + frame.payload.size());
  out += static_cast<char>(frame.stream);
  append_big_endian(frame.offset, out);
  append_big_endian(static_cast<uint32_t>(frame.payload.size()), out);
  out += frame.payload;
}

Result<> OutputFrameDecoder::feed(std::string_view bytes, const Sink& sink) {
  pending_.append(bytes);
  std::string_view left = pending_;
  while (left.size() >= output_frame_header_bytes) {
    const auto stream = static_cast<uint8_t>(left[0]);
    const uint64_t length = big_endian(left.substr(9, 4));
    if (stream != output_stream_stdout && stream != output_stream_stderr)
      return fail(ErrorCode::Io, "output frame of unknown stream {}", stream);
    if (length > output_frame_payload_bytes_max)
      return fail(ErrorCode::Io, "output frame of {} bytes, more than {}", length,
                  output_frame_payload_bytes_max);
    if (left.size() - output_frame_header_bytes < length) break;
    TRY(sink(
        {stream, big_endian(left.substr(1, 8)), left.substr(output_frame_header_bytes, length)}));
    left.remove_prefix(output_frame_header_bytes + length);
  }
  pending_.erase(0, pending_.size() - left.size());
  return {};
}

}  // namespace guest
