#include "image/erofs_tree.h"

#include <algorithm>
#include <array>
#include <limits>

#include <sys/stat.h>

#include "base/text.h"

namespace image {
namespace {

using base::ErrorCode;
using base::Result;

constexpr size_t name_bytes_max = 255;  ///< Of EROFS and of Linux.
constexpr size_t path_bytes_max = 4096;
constexpr size_t depth_max = 256;
constexpr size_t link_bytes_max = 4095;
constexpr uint64_t inode_memory_bytes = 320;  ///< An inode, its name and its place in a folder.
constexpr size_t xattr_value_bytes_max = 65'535;
constexpr size_t xattr_bytes_per_inode_max = 128u << 10;

constexpr std::string_view whiteout_prefix = ".wh.";
constexpr std::string_view opaque_name = ".wh..wh..opq";

struct XattrPrefix {
  std::string_view text;
  uint8_t index;
  bool whole;  ///< The text is the full name.
};
constexpr std::array xattr_prefixes = {
    XattrPrefix{"user.", 1, false},
    XattrPrefix{"system.posix_acl_access", 2, true},
    XattrPrefix{"system.posix_acl_default", 3, true},
    XattrPrefix{"trusted.", 4, false},
    XattrPrefix{"security.", 6, false},
};

/// What overlayfs reads as instructions is never taken from an image.
bool is_overlay_instruction(std::string_view name) {
  return name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.");
}

uint32_t type_bits_of(TarType type) {
  switch (type) {
    case TarType::File:
    case TarType::HardLink: return S_IFREG;
    case TarType::Symlink: return S_IFLNK;
    case TarType::Directory: return S_IFDIR;
    case TarType::CharacterDevice: return S_IFCHR;
    case TarType::BlockDevice: return S_IFBLK;
    case TarType::Fifo: return S_IFIFO;
  }
  return S_IFREG;
}

Result<uint32_t> owner(int64_t value, const TarEntry& entry) {
  constexpr int64_t nobody_at_all = std::numeric_limits<uint32_t>::max();  // (uid_t)-1
  if (value >= 0 && value < nobody_at_all) return static_cast<uint32_t>(value);
  return base::fail(ErrorCode::InvalidArgument, "'{}' has the impossible owner {}",
                    base::escape_controls(entry.path), value);
}

}  // namespace

Result<std::vector<std::string>> clamped_pieces(std::string_view path) {
  if (path.size() > path_bytes_max)
    return base::fail(ErrorCode::InvalidArgument, "a name of {} bytes, more than {}", path.size(),
                      path_bytes_max);
  std::vector<std::string> pieces;
  for (std::string& piece : base::split(path, '/')) {
    if (piece.empty() || piece == ".") continue;
    if (piece == "..") {
      if (!pieces.empty()) pieces.pop_back();
      continue;
    }
    if (piece.size() > name_bytes_max || piece.find('\0') != std::string::npos)
      return base::fail(ErrorCode::InvalidArgument,
                        "'{}…' has a name of more than {} bytes or with a zero byte",
                        base::escape_controls(path.substr(0, 64)), name_bytes_max);
    pieces.push_back(std::move(piece));
  }
  if (pieces.size() > depth_max)
    return base::fail(ErrorCode::InvalidArgument, "'{}…' is more than {} folders deep",
                      base::escape_controls(path.substr(0, 64)), depth_max);
  return pieces;
}

ErofsTree::ErofsTree(ErofsTreeLimits limits) : limits_(limits) {
  ErofsInode& top = inodes_.emplace_back();
  top.mode = S_IFDIR | 0755;
  top.folder = std::make_unique<ErofsInode::Folder>();
}

Result<> ErofsTree::account(uint64_t bytes) {
  metadata_bytes_ += bytes;
  if (metadata_bytes_ <= limits_.metadata_bytes_max) return {};
  return base::fail(ErrorCode::InvalidArgument,
                    "the layer's names and attributes need more than {} MiB",
                    limits_.metadata_bytes_max >> 20);
}

uint32_t ErofsTree::child_folder(uint32_t parent, const std::string& name) {
  const auto found = inodes_[parent].folder->children.find(name);
  if (found != inodes_[parent].folder->children.end() && inodes_[found->second].folder)
    return found->second;
  // A parent the archive does not mention; what stood here and is no folder is replaced.
  const auto id = static_cast<uint32_t>(inodes_.size());
  ErofsInode& made = inodes_.emplace_back();
  made.mode = S_IFDIR | 0755;
  made.folder = std::make_unique<ErofsInode::Folder>();
  made.folder->parent = parent;
  inodes_[parent].folder->children[name] = id;
  return id;
}

Result<ErofsTree::Place> ErofsTree::locate(const std::vector<std::string>& pieces) {
  Place place{root, ""};
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (i + 1 == pieces.size()) {
      place.name = pieces[i];
      break;
    }
    if (pieces[i].starts_with(whiteout_prefix))
      return base::fail(ErrorCode::InvalidArgument, "'{}' is a whiteout and cannot be a folder",
                        base::escape_controls(pieces[i]));
    const size_t before = inodes_.size();
    place.folder = child_folder(place.folder, pieces[i]);
    if (inodes_.size() > before) TRY(account(inode_memory_bytes + pieces[i].size()));
  }
  if (inodes_.size() > limits_.entries_max)
    return base::fail(ErrorCode::InvalidArgument, "the layer has more than {} entries",
                      limits_.entries_max);
  return place;
}

Result<uint32_t> ErofsTree::find(const std::vector<std::string>& pieces) const {
  uint32_t at = root;
  for (const std::string& piece : pieces) {
    if (!inodes_[at].folder) return base::fail(ErrorCode::NotFound, "not found");
    const auto& children = inodes_[at].folder->children;
    const auto found = children.find(piece);
    if (found == children.end()) return base::fail(ErrorCode::NotFound, "not found");
    at = found->second;
  }
  return at;
}

Result<uint32_t> ErofsTree::intern_xattr(uint8_t prefix, std::string_view name,
                                         std::string_view value) {
  std::string record;
  record += static_cast<char>(name.size());
  record += static_cast<char>(prefix);
  record += static_cast<char>(value.size() & 0xff);
  record += static_cast<char>(value.size() >> 8);
  record += name;
  record += value;
  record.resize((record.size() + 3) / 4 * 4);
  if (const auto found = xattr_index_.find(record); found != xattr_index_.end())
    return found->second;
  TRY(account(2 * record.size() + 96));
  const auto id = static_cast<uint32_t>(xattrs_.size());
  xattrs_.push_back(record);
  xattr_index_.emplace(std::move(record), id);
  return id;
}

Result<> ErofsTree::set_attributes(ErofsInode& inode, const TarEntry& entry, uint32_t type_bits) {
  inode.mode = type_bits | entry.mode;
  inode.user = TRY(owner(entry.user, entry));
  inode.group = TRY(owner(entry.group, entry));
  inode.modified_s = entry.modified_s;
  inode.modified_ns = entry.modified_ns < 1'000'000'000 ? entry.modified_ns : 0;
  inode.xattrs.clear();
  size_t bytes = 0;
  for (const auto& [name, value] : entry.xattrs) {
    if (is_overlay_instruction(name)) continue;
    for (const XattrPrefix& prefix : xattr_prefixes) {
      if (!name.starts_with(prefix.text)) continue;
      const std::string_view rest = std::string_view(name).substr(prefix.text.size());
      if (prefix.whole != rest.empty()) continue;
      bytes += rest.size() + value.size() + 8;
      if (rest.size() > name_bytes_max || value.size() > xattr_value_bytes_max ||
          bytes > xattr_bytes_per_inode_max)
        return base::fail(ErrorCode::InvalidArgument,
                          "'{}' has extended attributes that are too large",
                          base::escape_controls(entry.path));
      inode.xattrs.push_back(TRY(intern_xattr(prefix.index, rest, value)));
    }
  }
  std::sort(inode.xattrs.begin(), inode.xattrs.end());
  inode.xattrs.erase(std::unique(inode.xattrs.begin(), inode.xattrs.end()), inode.xattrs.end());
  return account(inode.xattrs.size() * sizeof(uint32_t));
}

Result<bool> ErofsTree::take_whiteout(const Place& place, const TarEntry& entry) {
  if (!place.name.starts_with(whiteout_prefix)) return false;
  ErofsInode::Folder& folder = *inodes_[place.folder].folder;
  if (place.name == opaque_name) {
    folder.opaque = true;
    return true;
  }
  const std::string hidden = place.name.substr(whiteout_prefix.size());
  if (hidden.empty() || hidden == "." || hidden == "..")
    return base::fail(ErrorCode::InvalidArgument, "'{}' is a whiteout of nothing",
                      base::escape_controls(entry.path));
  // `.wh..wh.x` are aufs's own notes, never content.
  if (hidden.starts_with(whiteout_prefix)) return true;
  TRY(account(inode_memory_bytes + hidden.size()));
  folder.whiteouts.insert(hidden);
  return true;
}

Result<> ErofsTree::set_directory(const Place& place, const TarEntry& entry) {
  const uint32_t id = place.name.empty() ? root : child_folder(place.folder, place.name);
  if (!place.name.empty()) TRY(account(inode_memory_bytes + place.name.size()));
  inodes_[id].folder->implied = false;
  return set_attributes(inodes_[id], entry, S_IFDIR);
}

Result<> ErofsTree::set_hard_link(const Place& place, const TarEntry& entry) {
  const Result<uint32_t> target = find(TRY(clamped_pieces(entry.link)));
  if (!target || inodes_[*target].folder)
    return base::fail(ErrorCode::InvalidArgument,
                      "'{}' is a hard link to '{}', which is no file of this layer",
                      base::escape_controls(entry.path), base::escape_controls(entry.link));
  TRY(account(inode_memory_bytes + place.name.size()));
  inodes_[place.folder].folder->children[place.name] = *target;
  return {};
}

Result<uint32_t> ErofsTree::new_inode(const TarEntry& entry, uint32_t type_bits) {
  ErofsInode made;
  TRY(set_attributes(made, entry, type_bits));
  if (type_bits == S_IFLNK) {
    if (entry.link.empty() || entry.link.size() > link_bytes_max)
      return base::fail(ErrorCode::InvalidArgument, "'{}' is a link with a target of {} bytes",
                        base::escape_controls(entry.path), entry.link.size());
    TRY(account(entry.link.size()));
    made.tail = entry.link;
    made.size = entry.link.size();
  }
  if (type_bits == S_IFCHR || type_bits == S_IFBLK) {
    if (entry.device_major > 0xfff || entry.device_minor > 0xfffff)
      return base::fail(ErrorCode::InvalidArgument, "'{}' has an impossible device number",
                        base::escape_controls(entry.path));
    made.device = (entry.device_minor & 0xff) | (entry.device_major << 8) |
                  ((entry.device_minor & ~0xffu) << 12);
  }
  inodes_.push_back(std::move(made));
  return static_cast<uint32_t>(inodes_.size() - 1);
}

Result<ErofsInode*> ErofsTree::add(const TarEntry& entry) {
  const Place place = TRY(locate(TRY(clamped_pieces(entry.path))));
  if (TRY(take_whiteout(place, entry))) return nullptr;
  if (entry.type == TarType::Directory) {
    TRY(set_directory(place, entry));
    return nullptr;
  }
  if (place.name.empty())
    return base::fail(ErrorCode::InvalidArgument, "'{}' would replace the root by no folder",
                      base::escape_controls(entry.path));
  if (entry.type == TarType::HardLink) {
    TRY(set_hard_link(place, entry));
    return nullptr;
  }
  TRY(account(inode_memory_bytes + place.name.size()));
  const uint32_t id = TRY(new_inode(entry, type_bits_of(entry.type)));
  inodes_[place.folder].folder->children[place.name] = id;
  return entry.type == TarType::File ? &inodes_[id] : nullptr;
}

Result<> ErofsTree::settle_whiteouts() {
  const uint32_t opaque = TRY(intern_xattr(4, "overlay.opaque", "y"));
  const size_t count = inodes_.size();  // those added below hold no folders
  for (uint32_t id = 0; id < count; ++id) {
    if (!inodes_[id].folder) continue;
    for (const std::string& name : inodes_[id].folder->whiteouts) {
      const auto found = inodes_[id].folder->children.find(name);
      if (found != inodes_[id].folder->children.end()) {
        ErofsInode& kept = inodes_[found->second];
        if (kept.folder) kept.folder->opaque = true;
        continue;
      }
      ErofsInode& mark = inodes_.emplace_back();
      mark.mode = S_IFCHR;
      inodes_[id].folder->children[name] = static_cast<uint32_t>(inodes_.size() - 1);
    }
  }
  for (uint32_t id = 0; id < count; ++id)
    if (inodes_[id].folder && inodes_[id].folder->opaque) inodes_[id].xattrs.push_back(opaque);
  return mark_implied();
}

Result<> ErofsTree::mark_implied() {
  const uint32_t implied = TRY(intern_xattr(4, "overlay.implied", "y"));
  const uint32_t passage = TRY(intern_xattr(4, "overlay.implied", "p"));
  std::vector<bool> seen(inodes_.size(), false);
  for (uint32_t id = 0; id < inodes_.size(); ++id) {
    if (!inodes_[id].folder || !inodes_[id].folder->implied) continue;
    // Up to the root, or to where somebody has gone up before.
    for (uint32_t at = id; !seen[at]; at = inodes_[at].folder->parent) {
      seen[at] = true;
      inodes_[at].xattrs.push_back(inodes_[at].folder->implied ? implied : passage);
    }
  }
  return {};
}

}  // namespace image
