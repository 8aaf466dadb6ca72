#include "api/wire.h"

#include <algorithm>

namespace api {
namespace {

bool is_known(uint8_t kind) {
  return (kind >= static_cast<uint8_t>(FrameKind::Stdout) &&
          kind <= static_cast<uint8_t>(FrameKind::Notice)) ||
         (kind >= static_cast<uint8_t>(FrameKind::Stdin) &&
          kind <= static_cast<uint8_t>(FrameKind::Signal));
}

uint32_t length_at(std::string_view header) {
  uint32_t length = 0;
  for (size_t i = 1; i < frame_header_bytes; ++i)
    length = (length << 8) | static_cast<uint8_t>(header[i]);
  return length;
}

}  // namespace

void append_frame(std::string& out, FrameKind kind, std::string_view payload) {
  do {
    const std::string_view piece = payload.substr(0, frame_bytes_max);
    payload.remove_prefix(piece.size());
    out.push_back(static_cast<char>(kind));
    for (int shift = 24; shift >= 0; shift -= 8)
      out.push_back(static_cast<char>((piece.size() >> shift) & 0xff));
    out.append(piece);
  } while (!payload.empty());
}

base::Result<std::optional<Frame>> FrameDecoder::next() {
  const std::string_view left = std::string_view(buffer_).substr(position_);
  if (!left.empty() && !is_known(static_cast<uint8_t>(left[0])))
    return base::fail(base::ErrorCode::InvalidArgument, "unknown frame kind {}",
                      static_cast<uint8_t>(left[0]));
  const bool has_header = left.size() >= frame_header_bytes;
  const uint32_t length = has_header ? length_at(left) : 0;
  if (length > frame_bytes_max)
    return base::fail(base::ErrorCode::InvalidArgument, "frame of {} bytes, {} are allowed", length,
                      frame_bytes_max);
  if (!has_header || left.size() < frame_header_bytes + length) {
    // Taken bytes leave the buffer only here: once per read of the socket, not once per frame.
    buffer_.erase(0, position_);
    position_ = 0;
    return std::nullopt;
  }
  position_ += frame_header_bytes + length;
  return Frame{.kind = static_cast<FrameKind>(left[0]),
               .payload = std::string(left.substr(frame_header_bytes, length))};
}

}  // namespace api
