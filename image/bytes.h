#pragma once
/// Streams of bytes: pulled by their reader, so that nothing piles up.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "base/result.h"

namespace image {

/// Fills at most the span; 0 is the end. An error ends the stream.
using ByteSource = std::function<base::Result<size_t>(std::span<char>)>;

/// Reads `fd` from where it stands; the caller keeps it open. Blocking descriptors.
ByteSource read_from(int fd);

}  // namespace image
