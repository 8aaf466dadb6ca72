#pragma once
/// The file tree of one layer, kept in memory while its tar goes by.
///
/// Names are clamped to the root, symbolic links on the way are never followed, and a later entry
/// replaces an earlier one. OCI whiteouts (`.wh.x`, `.wh..wh..opq`) become overlayfs's own marks;
/// they hide lower layers only, so an entry of the same layer wins over its whiteout.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/tar_reader.h"

namespace image {

struct ErofsInode {
  uint32_t mode = 0;  ///< With the type bits.
  uint32_t user = 0;
  uint32_t group = 0;
  int64_t modified_s = 0;
  uint32_t modified_ns = 0;
  uint32_t device = 0;  ///< As the kernel's new_encode_dev().
  uint64_t size = 0;
  uint32_t first_block = 0;      ///< Of a file's content, if it has any on its own blocks.
  std::string tail;              ///< Content kept beside the inode: a link's target, a small file.
  std::vector<uint32_t> xattrs;  ///< Indexes into ErofsTree::xattrs().

  struct Folder {
    std::map<std::string, uint32_t, std::less<>> children;
    std::set<std::string, std::less<>> whiteouts;
    uint32_t parent = 0;
    bool opaque = false;
    bool implied = true;  ///< Something lies in it, but no member is this folder itself.
  };
  std::unique_ptr<Folder> folder;  ///< Set for directories only.
};

struct ErofsTreeLimits {
  uint32_t entries_max = 0;
  uint64_t metadata_bytes_max = 0;
};

class ErofsTree {
 public:
  static constexpr uint32_t root = 0;

  explicit ErofsTree(ErofsTreeLimits limits);

  /// Adds one member. The inode of a file, whose content follows; nullptr for everything else.
  base::Result<ErofsInode*> add(const TarEntry& entry);
  /// Counts bytes that are kept in memory beside the inodes.
  base::Result<> account(uint64_t bytes);
  /// Turns what is left of whiteouts and opaque marks into inodes and attributes, and marks implied
  /// folders for the guest, which knows the layers below (guest/agent/implied.h). Call once.
  base::Result<> settle_whiteouts();

  std::vector<ErofsInode>& inodes() { return inodes_; }
  /// Distinct attributes, each in the form of the disk: header, name, value, padding.
  const std::vector<std::string>& xattrs() const { return xattrs_; }
  /// True if the layer hides everything below it.
  bool root_is_opaque() const { return inodes_[root].folder->opaque; }

 private:
  struct Place {
    uint32_t folder = 0;
    std::string name;  ///< Empty: the root itself.
  };
  base::Result<> mark_implied();
  base::Result<Place> locate(const std::vector<std::string>& pieces);
  base::Result<uint32_t> find(const std::vector<std::string>& pieces) const;
  base::Result<bool> take_whiteout(const Place& place, const TarEntry& entry);
  base::Result<> set_directory(const Place& place, const TarEntry& entry);
  base::Result<> set_hard_link(const Place& place, const TarEntry& entry);
  base::Result<uint32_t> new_inode(const TarEntry& entry, uint32_t type_bits);
  base::Result<> set_attributes(ErofsInode& inode, const TarEntry& entry, uint32_t type_bits);
  base::Result<uint32_t> intern_xattr(uint8_t prefix, std::string_view name,
                                      std::string_view value);
  uint32_t child_folder(uint32_t parent, const std::string& name);

  ErofsTreeLimits limits_;
  uint64_t metadata_bytes_ = 0;
  std::vector<ErofsInode> inodes_;
  std::vector<std::string> xattrs_;
  std::map<std::string, uint32_t, std::less<>> xattr_index_;
};

/// The pieces of a member's name: no empty ones, no `.`, and `..` never above the root.
base::Result<std::vector<std::string>> clamped_pieces(std::string_view path);

}  // namespace image
