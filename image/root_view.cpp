#include "image/root_view.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <optional>
#include <set>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "image/erofs_format.h"

namespace image {
namespace {

using base::ErrorCode;
using base::Result;
using erofs::block_bytes;

constexpr uint64_t folder_bytes_max = 256u << 20;  ///< Of one folder's names.
constexpr size_t link_bytes_max = 4095;
constexpr size_t read_bytes = 1u << 20;
constexpr std::string_view overlay_prefix = "trusted.overlay.";

tl::unexpected<base::Error> damaged(std::string_view what) {
  return base::fail(ErrorCode::Io, "the layer's disk is damaged: {}", what);
}

/// What an inode says, and where its content is.
struct Inode {
  RootNode node;
  uint64_t nid = 0;
  uint64_t data = 0;  ///< Offset of whole blocks in the disk.
  uint64_t tail = 0;  ///< Offset of what follows the whole blocks; inline layout.
  bool inlined = false;
  bool opaque = false;   ///< Hides the folder of the layers below.
  bool implied = false;  ///< Its layer does not list it: it looks as the folder below does.
  bool is_folder() const { return S_ISDIR(node.mode); }
  bool is_whiteout() const {
    return S_ISCHR(node.mode) && node.device_major == 0 && node.device_minor == 0;
  }
};

/// One layer's disk, mapped. Files are replaced, never changed, so the mapping stays true; a disk
/// that is cut short while it is read would be a fault of the store.
class Disk {
 public:
  static Result<std::unique_ptr<Disk>> open(const std::string& path) {
    const base::UniqueFd file = TRY(base::open_file(path, O_RDONLY | O_NOFOLLOW));
    struct stat status {};
    if (::fstat(file.get(), &status) != 0)
      return base::fail_errno(errno, fmt::format("look at '{}'", path));
    if (!S_ISREG(status.st_mode) || status.st_size < static_cast<off_t>(block_bytes))
      return damaged("it is too short");
    auto disk = std::unique_ptr<Disk>(new Disk);
    disk->size_ = static_cast<uint64_t>(status.st_size);
    void* bytes = ::mmap(nullptr, disk->size_, PROT_READ, MAP_SHARED, file.get(), 0);
    if (bytes == MAP_FAILED) return base::fail_errno(errno, fmt::format("map '{}'", path));
    disk->bytes_ = static_cast<const char*>(bytes);
    TRY(disk->read_superblock());
    return disk;
  }
  ~Disk() {
    if (bytes_ != nullptr) ::munmap(const_cast<char*>(bytes_), size_);
  }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  uint64_t root() const { return root_; }
  Result<Inode> inode(uint64_t nid) const;
  /// nullopt: not in this folder.
  Result<std::optional<uint64_t>> lookup(const Inode& folder, std::string_view name) const;
  using Visit = std::function<Result<>(std::string_view name, uint64_t nid)>;
  Result<> for_each(const Inode& folder, const Visit& visit) const;
  Result<> read(const Inode& file, const RootView::Sink& sink) const;

 private:
  Disk() = default;
  Result<std::string_view> bytes(uint64_t offset, uint64_t count) const {
    if (offset > size_ || count > size_ - offset) return damaged("an offset behind its end");
    return std::string_view(bytes_ + offset, count);
  }
  static uint64_t number(std::string_view bytes, size_t at, size_t count) {
    uint64_t value = 0;
    for (size_t i = count; i-- > 0;)
      value = (value << 8) | static_cast<unsigned char>(bytes[at + i]);
    return value;
  }
  Result<> read_superblock();
  Result<> read_xattrs(Inode& inode, uint64_t offset, uint64_t count) const;
  Result<> add_xattr(Inode& inode, uint64_t offset, uint64_t end, uint64_t& used) const;
  Result<> read_block_of_names(std::string_view block, const Visit& visit) const;
  Result<std::string> small_content(const Inode& inode) const;

  const char* bytes_ = nullptr;
  uint64_t size_ = 0;
  uint64_t root_ = 0;
  uint64_t metadata_ = 0;  ///< Offset of inode 0.
  uint64_t shared_ = 0;    ///< Offset of the shared attributes.
  int64_t common_s_ = 0;
  uint32_t common_ns_ = 0;
};

Result<> Disk::read_superblock() {
  const std::string_view head = TRY(bytes(erofs::superblock_offset, 128));
  if (number(head, 0, 4) != erofs::magic) return damaged("it is no EROFS");
  constexpr size_t incompatible_at = 80;
  if (number(head, 12, 1) != 12 || number(head, incompatible_at, 4) != 0)
    return base::fail(ErrorCode::Unsupported, "the layer's disk has features that are not ours");
  root_ = number(head, 14, 2);
  common_s_ = static_cast<int64_t>(number(head, 24, 8));
  common_ns_ = static_cast<uint32_t>(number(head, 32, 4));
  metadata_ = number(head, 40, 4) * block_bytes;
  shared_ = number(head, 44, 4) * block_bytes;
  return {};
}

Result<Inode> Disk::inode(uint64_t nid) const {
  if (nid > size_ / erofs::slot_bytes) return damaged("an inode behind its end");
  const uint64_t offset = metadata_ + nid * erofs::slot_bytes;
  std::string_view raw = TRY(bytes(offset, erofs::compact_bytes));
  const uint64_t format = number(raw, 0, 2);
  const bool extended = (format & 1) != 0;
  const uint64_t layout = format >> 1;
  if (layout != erofs::layout_plain && layout != erofs::layout_inline)
    return damaged("an inode of a form that is not ours");
  const uint64_t body = extended ? erofs::extended_bytes : erofs::compact_bytes;
  if (extended) raw = TRY(bytes(offset, body));
  Inode inode;
  inode.nid = nid;
  RootNode& node = inode.node;
  node.mode = static_cast<uint32_t>(number(raw, 4, 2));
  node.size = number(raw, 8, extended ? 8 : 4);
  const uint64_t place = number(raw, 16, 4);
  node.user = static_cast<uint32_t>(number(raw, 24, extended ? 4 : 2));
  node.group = static_cast<uint32_t>(extended ? number(raw, 28, 4) : number(raw, 26, 2));
  node.modified_s = extended ? static_cast<int64_t>(number(raw, 32, 8)) : common_s_;
  node.modified_ns = extended ? static_cast<uint32_t>(number(raw, 40, 4)) : common_ns_;
  const uint64_t links = extended ? number(raw, 44, 4) : number(raw, 6, 2);
  const uint64_t xattr_count = number(raw, 2, 2);
  const uint64_t xattrs = xattr_count == 0 ? 0 : erofs::xattr_header_bytes + (xattr_count - 1) * 4;
  if (xattrs != 0) TRY(read_xattrs(inode, offset + body, xattrs));
  inode.data = place * block_bytes;
  inode.inlined = layout == erofs::layout_inline;
  inode.tail = offset + body + xattrs;
  if (S_ISCHR(node.mode) || S_ISBLK(node.mode)) {
    node.device_major = static_cast<uint32_t>((place >> 8) & 0xfff);
    node.device_minor = static_cast<uint32_t>((place & 0xff) | ((place >> 12) & 0xfff00));
    node.size = 0;
  }
  if (S_ISLNK(node.mode)) node.link = TRY(small_content(inode));
  if (!S_ISDIR(node.mode) && links > 1) node.hard_link_id = nid + 1;
  return inode;
}

Result<std::string> Disk::small_content(const Inode& inode) const {
  if (inode.node.size > link_bytes_max) return damaged("a symbolic link that is too long");
  std::string content;
  TRY(read(inode, [&](std::string_view part) -> Result<> {
    content += part;
    return {};
  }));
  return content;
}

Result<> Disk::add_xattr(Inode& inode, uint64_t offset, uint64_t end, uint64_t& used) const {
  const std::string_view head = TRY(bytes(offset, 4));
  const uint64_t name_bytes = number(head, 0, 1);
  const uint64_t prefix = number(head, 1, 1);
  const uint64_t value_bytes = number(head, 2, 2);
  used = (4 + name_bytes + value_bytes + 3) / 4 * 4;
  if (used > end - offset) return damaged("an attribute that is too long");
  const std::string_view body = TRY(bytes(offset + 4, name_bytes + value_bytes));
  constexpr std::array<std::string_view, 7> prefixes = {
      "", "user.",    "system.posix_acl_access", "system.posix_acl_default", "trusted.",
      "", "security."};
  if (prefix >= prefixes.size() || prefixes[prefix].empty())
    return damaged("an attribute of an unknown kind");
  std::string name = std::string(prefixes[prefix]) + std::string(body.substr(0, name_bytes));
  const std::string_view value = body.substr(name_bytes);
  if (name.starts_with(overlay_prefix)) {
    inode.opaque = inode.opaque || (name == "trusted.overlay.opaque" && value == "y");
    inode.implied = inode.implied || (name == "trusted.overlay.implied" && value == "y");
    return {};
  }
  inode.node.xattrs.emplace_back(std::move(name), std::string(value));
  return {};
}

Result<> Disk::read_xattrs(Inode& inode, uint64_t offset, uint64_t count) const {
  const std::string_view body = TRY(bytes(offset, count));
  const uint64_t shared_count = number(body, 4, 1);
  uint64_t at = erofs::xattr_header_bytes + shared_count * 4;
  if (at > count) return damaged("more shared attributes than it has room for");
  uint64_t used = 0;
  for (uint64_t i = 0; i < shared_count; ++i) {
    const uint64_t place =
        shared_ + number(body, static_cast<size_t>(erofs::xattr_header_bytes + i * 4), 4) * 4;
    if (place > size_) return damaged("a shared attribute behind its end");
    TRY(add_xattr(inode, place, size_, used));
  }
  while (count - at >= 4) {
    TRY(add_xattr(inode, offset + at, offset + count, used));
    at += used;
  }
  std::sort(inode.node.xattrs.begin(), inode.node.xattrs.end());
  return {};
}

Result<> Disk::read(const Inode& file, const RootView::Sink& sink) const {
  const uint64_t size = file.node.size;
  const uint64_t whole = file.inlined ? size / block_bytes * block_bytes : size;
  const std::string_view blocks = whole == 0 ? std::string_view() : TRY(bytes(file.data, whole));
  for (uint64_t at = 0; at < whole; at += read_bytes) TRY(sink(blocks.substr(at, read_bytes)));
  if (size == whole) return {};
  return sink(TRY(bytes(file.tail, size - whole)));
}

/// Entries first, then their names, which the entries' offsets cut apart.
Result<> Disk::read_block_of_names(std::string_view block, const Visit& visit) const {
  if (block.size() < erofs::entry_bytes) return damaged("a folder without entries");
  const uint64_t names_at = number(block, 8, 2);
  if (names_at % erofs::entry_bytes != 0 || names_at < erofs::entry_bytes ||
      names_at > block.size())
    return damaged("a folder whose names are nowhere");
  const uint64_t count = names_at / erofs::entry_bytes;
  for (uint64_t i = 0; i < count; ++i) {
    const size_t entry = static_cast<size_t>(i * erofs::entry_bytes);
    const uint64_t from = number(block, entry + 8, 2);
    const uint64_t to =
        i + 1 < count ? number(block, entry + erofs::entry_bytes + 8, 2) : uint64_t{block.size()};
    if (from < names_at || from > to || to > block.size())
      return damaged("a name outside of its folder");
    std::string_view name = block.substr(from, to - from);
    // The last name of a block may be shorter than what is left of it.
    name = name.substr(0, name.find('\0'));
    if (name.empty() || name.find('/') != std::string_view::npos || name.size() > 255)
      return damaged("an impossible name");
    if (name == "." || name == "..") continue;
    TRY(visit(name, number(block, entry, 8)));
  }
  return {};
}

Result<> Disk::for_each(const Inode& folder, const Visit& visit) const {
  if (folder.node.size > folder_bytes_max) return damaged("a folder that is too large");
  const uint64_t size = folder.node.size;
  const uint64_t whole = folder.inlined ? size / block_bytes * block_bytes : size;
  for (uint64_t at = 0; at < whole; at += block_bytes)
    TRY(read_block_of_names(TRY(bytes(folder.data + at, std::min(block_bytes, whole - at))),
                            visit));
  if (size == whole) return {};
  return read_block_of_names(TRY(bytes(folder.tail, size - whole)), visit);
}

Result<std::optional<uint64_t>> Disk::lookup(const Inode& folder, std::string_view name) const {
  std::optional<uint64_t> found;
  TRY(for_each(folder, [&](std::string_view child, uint64_t nid) -> Result<> {
    if (child == name) found = nid;
    return {};
  }));
  return found;
}

/// A name of the merged root: the topmost layer's inode, and the folders it is merged from.
struct Merged {
  Inode top;
  size_t layer = 0;  ///< Of `top`.
  /// Folders that are merged, topmost first: their layer and inode.
  std::vector<std::pair<size_t, Inode>> folders;
};

class MergedView final : public RootView {
 public:
  explicit MergedView(std::vector<std::unique_ptr<Disk>> disks) : disks_(std::move(disks)) {}

  Result<RootNode> node(std::string_view path) const override { return shown(TRY(find(path))); }

  Result<std::vector<std::pair<std::string, RootNode>>> list(std::string_view path) const override {
    const Merged folder = TRY(find(path));
    if (!folder.top.is_folder())
      return base::fail(ErrorCode::InvalidArgument, "'{}' is no folder",
                        base::escape_controls(path));
    std::map<std::string, RootNode, std::less<>> children;
    std::set<std::string, std::less<>> decided;
    for (const auto& [layer, inode] : folder.folders) {
      const Disk& disk = *disks_[layer];
      TRY(disk.for_each(inode, [&, at = layer](std::string_view name, uint64_t nid) -> Result<> {
        if (!decided.emplace(name).second) return {};  // an upper layer has said what it is
        Merged child{.top = TRY(disk.inode(nid)), .layer = at, .folders = {}};
        if (child.top.implied) {
          std::optional<Merged> whole = TRY(this->child(folder, name));
          if (!whole) return {};
          child = std::move(*whole);
        }
        if (!child.top.is_whiteout()) children.emplace(name, shown(child));
        return {};
      }));
    }
    return std::vector<std::pair<std::string, RootNode>>(std::make_move_iterator(children.begin()),
                                                         std::make_move_iterator(children.end()));
  }

  Result<> read(std::string_view path, const Sink& sink) const override {
    const Merged file = TRY(find(path));
    if (!S_ISREG(file.top.node.mode))
      return base::fail(ErrorCode::InvalidArgument, "'{}' is no regular file",
                        base::escape_controls(path));
    return disks_[file.layer]->read(file.top, sink);
  }

 private:
  /// Names are numbered within their layer; the layer keeps numbers of two apart.
  static RootNode shown(const Merged& merged) {
    RootNode node = merged.top.node;
    if (node.hard_link_id != 0) node.hard_link_id += static_cast<uint64_t>(merged.layer) << 48;
    if (merged.top.is_folder()) node.size = 0;
    return node;
  }

  Result<Merged> root() const {
    Merged merged;
    merged.top.node.mode = S_IFDIR | 0755;
    for (size_t layer = disks_.size(); layer-- > 0;) {
      Inode inode = TRY(disks_[layer]->inode(disks_[layer]->root()));
      if (!inode.is_folder()) return damaged("a root that is no folder");
      if (merged.folders.empty()) {
        merged.top = inode;
        merged.layer = layer;
      }
      const bool opaque = inode.opaque;
      merged.folders.emplace_back(layer, std::move(inode));
      if (opaque) break;
    }
    look_as_below(merged);
    return merged;
  }

  /// Owner, mode, time and attributes of a folder come from the topmost layer that lists it.
  static void look_as_below(Merged& merged) {
    for (const auto& [layer, inode] : merged.folders) {
      if (inode.implied) continue;
      merged.top.node = inode.node;
      return;
    }
  }

  /// The child of a merged folder; nullopt if it has none of that name.
  Result<std::optional<Merged>> child(const Merged& folder, std::string_view name) const {
    std::optional<Merged> merged;
    for (const auto& [layer, inode] : folder.folders) {
      const std::optional<uint64_t> nid = TRY(disks_[layer]->lookup(inode, name));
      if (!nid) continue;
      Inode found = TRY(disks_[layer]->inode(*nid));
      if (found.is_whiteout()) break;
      if (merged && !found.is_folder()) break;  // hidden by the folder above
      const bool ends = !found.is_folder() || found.opaque;
      if (!merged) merged = Merged{.top = found, .layer = layer, .folders = {}};
      if (found.is_folder()) merged->folders.emplace_back(layer, std::move(found));
      if (ends) break;
    }
    if (merged) look_as_below(*merged);
    return merged;
  }

  Result<Merged> find(std::string_view path) const {
    Merged at = TRY(root());
    if (path.empty()) return at;
    for (const std::string& piece : base::split(path, '/')) {
      std::optional<Merged> next = TRY(child(at, piece));
      if (!next)
        return base::fail(ErrorCode::NotFound, "'/{}' does not exist", base::escape_controls(path));
      at = std::move(*next);
    }
    return at;
  }

  std::vector<std::unique_ptr<Disk>> disks_;  ///< Lowest first.
};

}  // namespace

Result<std::unique_ptr<RootView>> RootView::open(const std::vector<std::string>& disks) {
  std::vector<std::unique_ptr<Disk>> opened;
  for (const std::string& path : disks)
    opened.push_back(TRY_DURING(Disk::open(path), "open the layer disk '{}'", path));
  return std::make_unique<MergedView>(std::move(opened));
}

}  // namespace image
