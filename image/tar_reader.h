#pragma once
/// The members of a tar stream, one after the other, through libarchive.
///
/// Knows PAX, GNU long names and sparse files. Names come as they stand in the archive: they are
/// data of strangers, and the callers decide what they may mean.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "image/bytes.h"

namespace image {

enum class TarType { File, HardLink, Symlink, Directory, CharacterDevice, BlockDevice, Fifo };

struct TarEntry {
  TarType type = TarType::File;
  std::string path;
  std::string link;   ///< Target of a HardLink or Symlink.
  uint32_t mode = 0;  ///< Permission bits with setuid, setgid, sticky.
  int64_t user = 0;
  int64_t group = 0;
  int64_t modified_s = 0;
  uint32_t modified_ns = 0;
  int64_t size = 0;
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;
};

/// The next piece of a stream, valid until the next call; empty at the end.
using PieceSource = std::function<base::Result<std::string_view>()>;

class TarReader {
 public:
  /// `offset` is where the piece belongs; what lies between pieces is zeros.
  using Sink = std::function<base::Result<>(uint64_t offset, std::string_view bytes)>;

  static base::Result<TarReader> create(ByteSource source);
  /// The same without a copy of the bytes.
  static base::Result<TarReader> create(PieceSource source);
  ~TarReader();
  TarReader(TarReader&&) noexcept;

  /// nullopt at the end of the archive. Data not taken is skipped.
  base::Result<std::optional<TarEntry>> next();
  /// The content of the member that next() gave last.
  base::Result<> read_content(const Sink& sink);

 private:
  struct State;
  explicit TarReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace image
