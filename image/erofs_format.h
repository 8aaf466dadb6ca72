#pragma once
/// The numbers of the EROFS disk format that our writer uses (Linux, fs/erofs/erofs_fs.h).

#include <cstdint>
#include <string>
#include <string_view>

namespace image::erofs {

inline constexpr uint64_t block_bytes = 4096;
inline constexpr uint64_t superblock_offset = 1024;
inline constexpr uint32_t magic = 0xE0F5E1E2;
inline constexpr uint32_t compat_checksum = 0x1;
inline constexpr uint32_t compat_mtime = 0x2;
inline constexpr uint64_t slot_bytes = 32;  ///< An inode's number counts these.
inline constexpr uint64_t compact_bytes = 32;
inline constexpr uint64_t extended_bytes = 64;
inline constexpr uint16_t layout_plain = 0;
inline constexpr uint16_t layout_inline = 2;
inline constexpr uint64_t entry_bytes = 12;
inline constexpr uint64_t xattr_header_bytes = 12;
inline constexpr uint64_t volume_name_offset = superblock_offset + 64;

/// Appends little-endian numbers.
class Encoder {
 public:
  void u8(uint64_t value) { put(value, 1); }
  void u16(uint64_t value) { put(value, 2); }
  void u32(uint64_t value) { put(value, 4); }
  void u64(uint64_t value) { put(value, 8); }
  void zeros(size_t count) { bytes_.append(count, '\0'); }
  void text(std::string_view bytes) { bytes_ += bytes; }
  const std::string& bytes() const { return bytes_; }

 private:
  void put(uint64_t value, int count) {
    for (int i = 0; i < count; ++i) bytes_ += static_cast<char>((value >> (8 * i)) & 0xff);
  }
  std::string bytes_;
};

}  // namespace image::erofs
