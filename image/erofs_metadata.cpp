#include "image/erofs_metadata.h"

#include <algorithm>
#include <limits>
#include <utility>

#include <sys/stat.h>

#include "image/erofs_format.h"

namespace image {
namespace {

using base::Result;
using erofs::block_bytes;

constexpr uint32_t not_shared = std::numeric_limits<uint32_t>::max();
constexpr uint64_t root_nid = 2;  ///< Not 0: readers skip names whose inode number is 0.

uint64_t round_up(uint64_t value, uint64_t step) { return (value + step - 1) / step * step; }

/// crc32c as the kernel starts and ends it: all ones, no final inversion.
uint32_t crc32c(std::string_view bytes) {
  constexpr uint32_t polynomial = 0x82F63B78;
  uint32_t crc = 0xFFFFFFFF;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? polynomial : 0);
  }
  return crc;
}

unsigned folder_entry_type(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG: return 1;
    case S_IFDIR: return 2;
    case S_IFCHR: return 3;
    case S_IFBLK: return 4;
    case S_IFIFO: return 5;
    case S_IFSOCK: return 6;
    case S_IFLNK: return 7;
    default: return 0;
  }
}

/// Calls `visit(name)` for all names of a folder, `.` and `..` among them, in byte order.
template <class Visit>
void for_each_name(const ErofsInode::Folder& folder, Visit&& visit) {
  constexpr std::array<std::string_view, 2> dots = {".", ".."};
  size_t dot = 0;
  for (const auto& child : folder.children) {
    while (dot < dots.size() && dots[dot] < child.first) visit(dots[dot++]);
    visit(std::string_view(child.first));
  }
  while (dot < dots.size()) visit(dots[dot++]);
}

}  // namespace

ErofsMetadata::ErofsMetadata(ErofsTree& tree, uint64_t first_block)
    : tree_(tree), first_block_(first_block), plans_(tree.inodes().size()) {
  collect();
  share_xattrs();
  choose_modification_time();
  place();
}

/// What a later entry replaced is not reachable any more, and is left out.
void ErofsMetadata::collect() {
  order_.push_back(ErofsTree::root);
  plans_[ErofsTree::root].links = 2;
  for (size_t at = 0; at < order_.size(); ++at) {
    const uint32_t id = order_[at];
    if (!tree_.inodes()[id].folder) continue;
    for (const auto& [name, child] : tree_.inodes()[id].folder->children) {
      const bool is_folder = tree_.inodes()[child].folder != nullptr;
      if (plans_[child].links == 0) order_.push_back(child);
      plans_[child].links += is_folder ? 2 : 1;
      if (is_folder) ++plans_[id].links;
    }
  }
  for (const uint32_t id : order_) plans_[id].size = tree_.inodes()[id].size;
}

/// Attributes that stand at two inodes or more are stored once.
void ErofsMetadata::share_xattrs() {
  std::vector<uint32_t> uses(tree_.xattrs().size());
  for (const uint32_t id : order_)
    for (const uint32_t xattr : tree_.inodes()[id].xattrs) ++uses[xattr];
  shared_ids_.assign(uses.size(), not_shared);
  for (size_t i = 0; i < uses.size(); ++i) {
    if (uses[i] < 2) continue;
    shared_ids_[i] = static_cast<uint32_t>(shared_table_.size() / 4);
    shared_table_ += tree_.xattrs()[i];
  }
}

/// Short inodes carry no time of their own but share the superblock's: give it the commonest.
void ErofsMetadata::choose_modification_time() {
  std::map<std::pair<int64_t, uint32_t>, uint32_t> uses;
  uint32_t best = 0;
  for (const uint32_t id : order_) {
    const ErofsInode& inode = tree_.inodes()[id];
    const uint32_t count = ++uses[{inode.modified_s, inode.modified_ns}];
    if (count <= best) continue;
    best = count;
    common_s_ = inode.modified_s;
    common_ns_ = inode.modified_ns;
  }
}

uint64_t ErofsMetadata::xattr_bytes(uint32_t id) const {
  const ErofsInode& inode = tree_.inodes()[id];
  if (inode.xattrs.empty()) return 0;
  return xattr_body(id).size();
}

std::string ErofsMetadata::xattr_body(uint32_t id) const {
  const ErofsInode& inode = tree_.inodes()[id];
  if (inode.xattrs.empty()) return "";
  erofs::Encoder shared;
  std::string own;
  unsigned count = 0;
  for (const uint32_t xattr : inode.xattrs) {
    constexpr unsigned shared_max = 255;
    if (shared_ids_[xattr] == not_shared || count == shared_max) {
      own += tree_.xattrs()[xattr];
      continue;
    }
    shared.u32(shared_ids_[xattr]);
    ++count;
  }
  erofs::Encoder body;
  body.zeros(4);
  body.u8(count);
  body.zeros(7);
  return body.bytes() + shared.bytes() + own;
}

uint64_t ErofsMetadata::body_bytes(uint32_t id) const {
  return (plans_[id].compact ? erofs::compact_bytes : erofs::extended_bytes) + xattr_bytes(id);
}

uint64_t ErofsMetadata::folder_bytes(uint32_t id) const {
  uint64_t whole = 0;
  uint64_t used = 0;
  for_each_name(*tree_.inodes()[id].folder, [&](std::string_view name) {
    const uint64_t need = erofs::entry_bytes + name.size();
    if (used + need > block_bytes) whole += block_bytes, used = 0;
    used += need;
  });
  return whole + used;
}

std::string ErofsMetadata::folder_content(uint32_t id) const {
  const ErofsInode::Folder& folder = *tree_.inodes()[id].folder;
  std::string content;
  std::vector<std::string_view> names;
  uint64_t used = 0;
  const auto nid_of = [&](std::string_view name) {
    if (name == ".") return std::pair{plans_[id].nid, 2u};
    if (name == "..") return std::pair{plans_[folder.parent].nid, 2u};
    const uint32_t child = folder.children.find(name)->second;
    return std::pair{plans_[child].nid, folder_entry_type(tree_.inodes()[child].mode)};
  };
  const auto end_block = [&] {
    erofs::Encoder block;
    uint64_t name_offset = names.size() * erofs::entry_bytes;
    for (const std::string_view name : names) {
      const auto [nid, type] = nid_of(name);
      block.u64(nid);
      block.u16(name_offset);
      block.u8(type);
      block.u8(0);
      name_offset += name.size();
    }
    for (const std::string_view name : names) block.text(name);
    content += block.bytes();
    names.clear();
    used = 0;
  };
  for_each_name(folder, [&](std::string_view name) {
    const uint64_t need = erofs::entry_bytes + name.size();
    if (used + need > block_bytes) {
      end_block();
      content.resize(round_up(content.size(), block_bytes));
    }
    used += need;
    names.push_back(name);
  });
  end_block();
  return content;
}

/// Whole blocks of folders first, then shared attributes, then inodes with their tails.
void ErofsMetadata::place() {
  uint64_t block = first_block_;
  for (const uint32_t id : order_) {
    const ErofsInode& inode = tree_.inodes()[id];
    Plan& plan = plans_[id];
    plan.block = inode.first_block;
    plan.compact = inode.user <= 0xffff && inode.group <= 0xffff && plan.links <= 0xffff &&
                   inode.modified_s == common_s_ && inode.modified_ns == common_ns_ &&
                   plan.size <= std::numeric_limits<uint32_t>::max();
    if (inode.folder) plan.size = folder_bytes(id);
    const uint64_t tail = inode.folder ? plan.size % block_bytes : inode.tail.size();
    plan.inlined = tail > 0 && body_bytes(id) + tail <= block_bytes;
    if (inode.folder || (tail > 0 && !plan.inlined)) {
      plan.block = static_cast<uint32_t>(block);
      block +=
          plan.inlined ? plan.size / block_bytes : round_up(plan.size, block_bytes) / block_bytes;
    }
  }
  shared_block_ = block;
  block += round_up(shared_table_.size(), block_bytes) / block_bytes;
  metadata_block_ = block;
  uint64_t at = root_nid * erofs::slot_bytes;
  for (const uint32_t id : order_) {
    Plan& plan = plans_[id];
    const ErofsInode& inode = tree_.inodes()[id];
    const uint64_t tail = inode.folder ? plan.size % block_bytes : inode.tail.size();
    const uint64_t length = body_bytes(id) + (plan.inlined ? tail : 0);
    // A tail may not cross a block; keeping its inode beside it costs one page less to read.
    if (length <= block_bytes && at % block_bytes + length > block_bytes)
      at = round_up(at, block_bytes);
    plan.nid = at / erofs::slot_bytes;
    at = round_up(at + length, erofs::slot_bytes);
  }
  blocks_ = metadata_block_ + round_up(at, block_bytes) / block_bytes;
}

uint16_t ErofsMetadata::layout_of(uint32_t id) const {
  return plans_[id].inlined ? erofs::layout_inline : erofs::layout_plain;
}

std::string ErofsMetadata::inode_bytes(uint32_t id) const {
  const ErofsInode& inode = tree_.inodes()[id];
  const Plan& plan = plans_[id];
  const uint32_t type = inode.mode & S_IFMT;
  const uint32_t location = type == S_IFCHR || type == S_IFBLK ? inode.device : plan.block;
  const uint64_t xattrs = xattr_bytes(id);
  erofs::Encoder out;
  out.u16(static_cast<unsigned>(layout_of(id) << 1) | (plan.compact ? 0u : 1u));
  out.u16(xattrs == 0 ? 0 : (xattrs - erofs::xattr_header_bytes) / 4 + 1);
  out.u16(inode.mode);
  out.u16(plan.compact ? plan.links : 0);
  if (plan.compact) {
    out.u32(plan.size);
    out.zeros(4);
  } else {
    out.u64(plan.size);
  }
  out.u32(location);
  out.u32(plan.nid);
  if (plan.compact) {
    out.u16(inode.user);
    out.u16(inode.group);
    out.zeros(4);
    return out.bytes();
  }
  out.u32(inode.user);
  out.u32(inode.group);
  out.u64(static_cast<uint64_t>(inode.modified_s));
  out.u32(inode.modified_ns);
  out.u32(plan.links);
  out.zeros(16);
  return out.bytes();
}

Result<> ErofsMetadata::write(const Sink& sink) {
  const auto padded = [&](std::string content) {
    content.resize(round_up(content.size(), block_bytes));
    return sink(content);
  };
  for (const uint32_t id : order_) {
    const ErofsInode& inode = tree_.inodes()[id];
    const Plan& plan = plans_[id];
    if (!inode.folder) {
      if (!inode.tail.empty() && !plan.inlined) TRY(padded(inode.tail));
      continue;
    }
    std::string content = folder_content(id);
    if (plan.inlined) content.resize(content.size() / block_bytes * block_bytes);
    if (!content.empty()) TRY(padded(std::move(content)));
  }
  TRY(padded(shared_table_));
  uint64_t at = 0;
  const auto emit = [&](std::string_view bytes) {
    at += bytes.size();
    return sink(bytes);
  };
  for (const uint32_t id : order_) {
    const Plan& plan = plans_[id];
    const ErofsInode& inode = tree_.inodes()[id];
    TRY(emit(std::string(plan.nid * erofs::slot_bytes - at, '\0')));
    TRY(emit(inode_bytes(id) + xattr_body(id)));
    if (!plan.inlined) continue;
    if (!inode.folder) {
      TRY(emit(inode.tail));
      continue;
    }
    const std::string content = folder_content(id);
    TRY(emit(std::string_view(content).substr(content.size() / block_bytes * block_bytes)));
  }
  return emit(std::string(round_up(at, block_bytes) - at, '\0'));
}

std::string ErofsMetadata::superblock(const std::array<uint8_t, 16>& uuid) const {
  const auto encode = [&](uint32_t checksum) {
    erofs::Encoder out;
    out.u32(erofs::magic);
    out.u32(checksum);
    out.u32(erofs::compat_checksum | erofs::compat_mtime);
    out.u8(12);
    out.u8(0);
    out.u16(root_nid);
    out.u64(order_.size());
    out.u64(static_cast<uint64_t>(common_s_));
    out.u32(common_ns_);
    out.u32(blocks_);
    out.u32(metadata_block_);
    out.u32(shared_table_.empty() ? 0 : shared_block_);
    for (const uint8_t byte : uuid) out.u8(byte);
    out.text(tree_.root_is_opaque() ? std::string_view("opaque-root\0\0\0\0\0", 16)
                                    : std::string_view("layer\0\0\0\0\0\0\0\0\0\0\0", 16));
    out.zeros(block_bytes - erofs::superblock_offset - out.bytes().size());
    return out.bytes();
  };
  return std::string(erofs::superblock_offset, '\0') + encode(crc32c(encode(0)));
}

}  // namespace image
