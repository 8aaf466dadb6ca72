#pragma once
/// Lays out and encodes the second half of an EROFS disk: folders, shared attributes, inodes.

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/erofs_tree.h"

namespace image {

class ErofsMetadata {
 public:
  using Sink = std::function<base::Result<>(std::string_view bytes)>;

  /// The metadata begins at `first_block`. The tree must be settled.
  ErofsMetadata(ErofsTree& tree, uint64_t first_block);

  /// Gives everything from `first_block` on to `sink`, a multiple of whole blocks.
  base::Result<> write(const Sink& sink);
  /// Block 0. Valid after write().
  std::string superblock(const std::array<uint8_t, 16>& uuid) const;

 private:
  struct Plan {
    uint64_t nid = 0;
    uint32_t links = 0;
    uint32_t block = 0;  ///< Of a folder's whole blocks, or of a tail that found no room.
    bool compact = false;
    bool inlined = false;
    uint64_t size = 0;
  };
  void collect();
  void share_xattrs();
  void choose_modification_time();
  void place();
  uint64_t body_bytes(uint32_t id) const;
  uint64_t xattr_bytes(uint32_t id) const;
  std::string folder_content(uint32_t id) const;
  uint64_t folder_bytes(uint32_t id) const;
  std::string inode_bytes(uint32_t id) const;
  std::string xattr_body(uint32_t id) const;
  uint16_t layout_of(uint32_t id) const;

  ErofsTree& tree_;
  uint64_t first_block_;
  std::vector<Plan> plans_;
  std::vector<uint32_t> order_;  ///< Reachable inodes, folders before what is in them.
  std::vector<uint32_t> shared_ids_;
  std::string shared_table_;
  int64_t common_s_ = 0;
  uint32_t common_ns_ = 0;
  uint64_t shared_block_ = 0;
  uint64_t metadata_block_ = 0;
  uint64_t blocks_ = 0;
};

}  // namespace image
