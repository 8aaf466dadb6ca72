#pragma once
/// What the fuzz targets of image content share.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "image/bytes.h"

namespace fuzz {

/// The input as a stream that comes in pieces of at most `piece` bytes.
inline image::ByteSource source_of(std::string_view bytes, size_t piece) {
  const auto at = std::make_shared<size_t>(0);
  return [bytes, piece, at](std::span<char> buffer) -> base::Result<size_t> {
    const size_t count = std::min({buffer.size(), piece, bytes.size() - *at});
    std::memcpy(buffer.data(), bytes.data() + *at, count);
    *at += count;
    return count;
  };
}

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace fuzz
