#pragma once
/// Writes one layer as an EROFS disk, in one pass: content goes to the file as it arrives, names
/// and attributes follow at the end, the superblock last.
///
/// Uncompressed, 4 KiB blocks. The same members give the same bytes: no clock, and the UUID is
/// the caller's. Blocks of zeros become holes of the file.

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/erofs_tree.h"

namespace image {

struct ErofsOptions {
  uint64_t unpacked_bytes_max = 0;  ///< Of all files together.
  ErofsTreeLimits tree;
  /// Files up to this size are stored beside their inodes, and wait in memory until the end.
  uint32_t inline_bytes_max = 512;
};

class ErofsWriter {
 public:
  /// Writes to `fd` from offset 0; the caller keeps it open and empty files only.
  ErofsWriter(int fd, const ErofsOptions& options);

  base::Result<> add(const TarEntry& entry, TarReader& content);
  base::Result<> finish(const std::array<uint8_t, 16>& uuid);

  uint64_t bytes_of_content() const { return content_bytes_; }

 private:
  base::Result<> append(std::string_view bytes);
  base::Result<> skip_zeros(uint64_t count);
  base::Result<> flush();
  base::Result<> pad_to_block();
  base::Result<> write_file(ErofsInode& inode, const TarEntry& entry, TarReader& content);
  base::Result<std::string> read_small(const TarEntry& entry, TarReader& content);

  int fd_;
  ErofsOptions options_;
  ErofsTree tree_;
  std::string buffer_;    ///< What follows `flushed_` and is not in the file yet.
  uint64_t flushed_ = 0;  ///< Offset in the file, a multiple of the block size.
  uint64_t content_bytes_ = 0;
};

/// True if the disk at `path` says that it hides every layer below it.
base::Result<bool> layer_hides_everything_below(const std::string& path);

}  // namespace image
