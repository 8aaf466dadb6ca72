#pragma once
/// The members of a tar stream, one after the other: ustar, PAX (POSIX.1-2001) and GNU long names.
///
/// Our own, because the agent is one small static binary and must not be brought down by any input.
/// Names come as they stand in the archive; whoever uses them decides what they may mean.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace agent {

enum class TarType { File, HardLink, Symlink, Directory, CharacterDevice, BlockDevice, Fifo };

struct TarEntry {
  TarType type = TarType::File;
  std::string path;
  std::string link;   ///< Target of a HardLink or Symlink.
  uint32_t mode = 0;  ///< Permission bits with setuid, setgid, sticky.
  uint32_t user = 0;
  uint32_t group = 0;
  int64_t modified_s = 0;
  uint32_t modified_ns = 0;
  uint64_t size = 0;
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;
};

class TarReader {
 public:
  /// Fills some of the buffer; 0 at the end of the stream.
  using Source = std::function<base::Result<size_t>(char* buffer, size_t capacity)>;

  explicit TarReader(Source source);

  /// nullopt at the end of the archive. Content that was not taken is skipped.
  base::Result<std::optional<TarEntry>> next();
  /// Some of the member's content, valid until the next call; empty at its end.
  base::Result<std::string_view> content();
  /// Reads what follows the archive's end, so that the sender gets rid of it.
  base::Result<> drain();

 private:
  using Records = std::map<std::string, std::string, std::less<>>;

  base::Result<bool> fill(size_t wanted);
  base::Result<std::optional<std::string_view>> block();
  base::Result<std::string> text_member(uint64_t size);
  base::Result<Records> records(uint64_t size);
  base::Result<> skip(uint64_t bytes);
  base::Result<bool> take_extension(char type, uint64_t size);
  base::Result<TarEntry> entry_of(std::string_view header, char type);
  base::Result<> apply_records(TarEntry& entry) const;

  Source source_;
  std::vector<char> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  bool source_ended_ = false;
  uint64_t content_left_ = 0;
  uint64_t padding_left_ = 0;

  // What extension members say about the member after them.
  Records records_;
  std::string long_path_;
  std::string long_link_;
};

}  // namespace agent
