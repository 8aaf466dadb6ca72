#pragma once
/// gzip and zstd streams of strangers, inflated as they are read.
///
/// gzip may have several members; anything that is no member after the last one is an error, since
/// other tools would read another layer there. zstd windows over 128 MiB are refused.

#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/result.h"
#include "image/bytes.h"

namespace image {

enum class Compression { None, Gzip, Zstd };

class Decompressor {
 public:
  virtual ~Decompressor() = default;
  /// 0 is the end, reached only if the compressed stream was whole.
  virtual base::Result<size_t> read(std::span<char> buffer) = 0;
};

/// Looks at the first bytes to see what the stream is.
base::Result<std::unique_ptr<Decompressor>> open_decompressor(ByteSource source);
/// The same as a stream; the decompressor lives in it.
base::Result<ByteSource> decompressed(ByteSource source);

}  // namespace image
