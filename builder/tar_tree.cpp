#include "builder/tar_tree.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/text.h"
#include "image/decompress.h"
#include "image/tar_reader.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;
namespace limits = base::limits;

constexpr size_t block_bytes = 512;
constexpr size_t piece_bytes = 256u << 10;

std::string shown(std::string_view path) { return base::escape_controls(path); }

/// Pieces of a member's name: `..` never leads above the root.
Result<std::vector<std::string>> pieces_of(std::string_view path) {
  std::vector<std::string> pieces;
  for (std::string& piece : base::split(path, '/')) {
    if (piece.empty() || piece == ".") continue;
    if (piece == "..") {
      if (!pieces.empty()) pieces.pop_back();
      continue;
    }
    if (piece.size() > 255 || piece.find('\0') != std::string::npos)
      return base::fail(ErrorCode::InvalidArgument, "the archive has a name that no file can have");
    pieces.push_back(std::move(piece));
  }
  if (pieces.size() > limits::tree_depth_max)
    return base::fail(ErrorCode::InvalidArgument, "the archive has folders more than {} deep",
                      limits::tree_depth_max);
  return pieces;
}

NodeType type_of(image::TarType type) {
  switch (type) {
    case image::TarType::File:
    case image::TarType::HardLink: return NodeType::File;
    case image::TarType::Symlink: return NodeType::Symlink;
    case image::TarType::Directory: return NodeType::Directory;
    case image::TarType::CharacterDevice: return NodeType::CharacterDevice;
    case image::TarType::BlockDevice: return NodeType::BlockDevice;
    case image::TarType::Fifo: return NodeType::Fifo;
  }
  return NodeType::File;
}

/// Where a file's bytes are in the spool: pieces, zeros between them.
struct Piece {
  uint64_t offset = 0;  ///< In the file.
  uint64_t place = 0;   ///< In the spool.
  uint64_t size = 0;
};

class TarTree final : public Tree {
 public:
  TarTree(base::UniqueFd spool, const TarTreeOptions& options)
      : spool_(std::move(spool)), options_(options) {
    inodes_.emplace_back().node = {.type = NodeType::Directory, .mode = 0755};
  }

  Result<> fill(image::TarReader& reader) {
    while (const std::optional<image::TarEntry> entry = TRY(reader.next()))
      TRY(add(*entry, reader));
    for (size_t id = 1; id < inodes_.size(); ++id)
      if (inodes_[id].names > 1) inodes_[id].node.hard_link_id = id;
    return {};
  }

  Result<Node> node(const std::string& path) const override {
    return inodes_[TRY(find(path))].node;
  }

  Result<std::vector<NamedNode>> list(const std::string& path) const override {
    const Inode& folder = inodes_[TRY(find(path))];
    if (folder.node.type != NodeType::Directory)
      return base::fail(ErrorCode::InvalidArgument, "'{}' is no folder", shown(path));
    std::vector<NamedNode> children;
    for (const auto& [name, id] : folder.children) children.push_back({name, inodes_[id].node});
    return children;
  }

  Result<> read(const std::string& path, const Sink& sink) const override {
    const Inode& file = inodes_[TRY(find(path))];
    if (file.node.type != NodeType::File)
      return base::fail(ErrorCode::InvalidArgument, "'{}' is no regular file", shown(path));
    uint64_t at = 0;
    for (const Piece& piece : file.pieces) {
      TRY(zeros(piece.offset - at, sink));
      TRY(from_spool(piece, sink));
      at = piece.offset + piece.size;
    }
    return zeros(file.node.size - at, sink);
  }

 private:
  struct Inode {
    Node node;
    uint32_t names = 0;
    std::map<std::string, size_t, std::less<>> children;
    std::vector<Piece> pieces;
  };

  Result<size_t> find(std::string_view path) const {
    size_t at = 0;
    if (path.empty()) return at;
    for (const std::string& piece : base::split(path, '/')) {
      const auto found = inodes_[at].children.find(piece);
      if (found == inodes_[at].children.end())
        return base::fail(ErrorCode::NotFound, "'{}' is not in the archive", shown(path));
      at = found->second;
    }
    return at;
  }

  /// The folder that holds the last of `pieces`; missing ones are made, other things give way.
  Result<size_t> folder_of(const std::vector<std::string>& pieces) {
    size_t at = 0;
    for (size_t i = 0; i + 1 < pieces.size(); ++i) {
      const auto found = inodes_[at].children.find(pieces[i]);
      if (found != inodes_[at].children.end() &&
          inodes_[found->second].node.type == NodeType::Directory) {
        at = found->second;
        continue;
      }
      const size_t made = TRY(new_inode());
      inodes_[made].node = {.type = NodeType::Directory, .mode = 0755};
      put(at, pieces[i], made);
      at = made;
    }
    return at;
  }

  Result<size_t> new_inode() {
    if (inodes_.size() > limits::context_entries_max)
      return base::fail(ErrorCode::InvalidArgument, "the archive has more than {} members",
                        limits::context_entries_max);
    inodes_.emplace_back();
    return inodes_.size() - 1;
  }

  void put(size_t folder, const std::string& name, size_t id) {
    const auto before = inodes_[folder].children.find(name);
    if (before != inodes_[folder].children.end()) --inodes_[before->second].names;
    inodes_[folder].children[name] = id;
    ++inodes_[id].names;
  }

  Result<> add(const image::TarEntry& entry, image::TarReader& reader) {
    const std::vector<std::string> pieces = TRY(pieces_of(entry.path));
    if (pieces.empty()) {
      if (entry.type == image::TarType::Directory) inodes_[0].node = TRY(node_of(entry));
      return {};
    }
    const size_t folder = TRY(folder_of(pieces));
    if (entry.type == image::TarType::HardLink) {
      const Result<size_t> target = find(base::join(TRY(pieces_of(entry.link)), "/"));
      if (!target || inodes_[*target].node.type == NodeType::Directory)
        return base::fail(ErrorCode::InvalidArgument,
                          "'{}' is a hard link to '{}', which is no file of the archive",
                          shown(entry.path), shown(entry.link));
      put(folder, pieces.back(), *target);
      return {};
    }
    const auto before = inodes_[folder].children.find(pieces.back());
    if (entry.type == image::TarType::Directory && before != inodes_[folder].children.end() &&
        inodes_[before->second].node.type == NodeType::Directory) {
      inodes_[before->second].node = TRY(node_of(entry));
      return {};
    }
    const size_t id = TRY(new_inode());
    inodes_[id].node = TRY(node_of(entry));
    if (entry.type == image::TarType::File) inodes_[id].pieces = TRY(spool(entry, reader));
    put(folder, pieces.back(), id);
    return {};
  }

  Result<Node> node_of(const image::TarEntry& entry) const {
    constexpr int64_t nobody_at_all = 0xffffffff;  // (uid_t)-1
    for (const int64_t id : {entry.user, entry.group})
      if (id < 0 || id >= nobody_at_all)
        return base::fail(ErrorCode::InvalidArgument, "'{}' has the impossible owner {}",
                          shown(entry.path), id);
    Node node;
    node.type = type_of(entry.type);
    node.mode = entry.mode & 07777;
    if (!options_.owned_by_root) {
      node.user = static_cast<uint32_t>(entry.user);
      node.group = static_cast<uint32_t>(entry.group);
    }
    node.size = node.type == NodeType::File ? static_cast<uint64_t>(entry.size) : 0;
    node.modified_s = entry.modified_s;
    node.modified_ns = entry.modified_ns < 1'000'000'000 ? entry.modified_ns : 0;
    if (node.type == NodeType::Symlink) node.link = entry.link;
    node.device_major = entry.device_major;
    node.device_minor = entry.device_minor;
    node.xattrs = entry.xattrs;
    std::sort(node.xattrs.begin(), node.xattrs.end());
    return node;
  }

  Result<std::vector<Piece>> spool(const image::TarEntry& entry, image::TarReader& reader) {
    std::vector<Piece> pieces;
    if (entry.size < 0 || entry.size == 0) return pieces;
    const auto size = static_cast<uint64_t>(entry.size);
    if (size > options_.bytes_max - used_) return too_large();
    TRY(reader.read_content([&](uint64_t offset, std::string_view bytes) -> Result<> {
      const uint64_t at = pieces.empty() ? 0 : pieces.back().offset + pieces.back().size;
      if (offset < at || offset > size || bytes.size() > size - offset)
        return base::fail(ErrorCode::InvalidArgument, "'{}' is longer than it says",
                          shown(entry.path));
      TRY(base::write_all(spool_.get(), bytes));
      if (!pieces.empty() && offset == at)
        pieces.back().size += bytes.size();
      else
        pieces.push_back({offset, used_, bytes.size()});
      used_ += bytes.size();
      return {};
    }));
    return pieces;
  }

  tl::unexpected<base::Error> too_large() const {
    return base::fail(ErrorCode::InvalidArgument, "the archive has more than {} MiB",
                      options_.bytes_max >> 20);
  }

  static Result<> zeros(uint64_t count, const Sink& sink) {
    static const std::string some(piece_bytes, '\0');
    while (count > 0) {
      const auto part = static_cast<size_t>(std::min<uint64_t>(count, some.size()));
      TRY(sink(std::string_view(some).substr(0, part)));
      count -= part;
    }
    return {};
  }

  Result<> from_spool(const Piece& piece, const Sink& sink) const {
    std::vector<char> buffer(static_cast<size_t>(std::min<uint64_t>(piece.size, piece_bytes)));
    for (uint64_t done = 0; done < piece.size;) {
      const auto want = static_cast<size_t>(std::min<uint64_t>(piece.size - done, buffer.size()));
      const ssize_t count =
          ::pread(spool_.get(), buffer.data(), want, static_cast<off_t>(piece.place + done));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return base::fail_errno(count < 0 ? errno : EIO, "read the spooled archive");
      TRY(sink(std::string_view(buffer.data(), static_cast<size_t>(count))));
      done += static_cast<uint64_t>(count);
    }
    return {};
  }

  base::UniqueFd spool_;
  TarTreeOptions options_;
  uint64_t used_ = 0;
  std::vector<Inode> inodes_;  ///< The first is the root.
};

/// xz and bzip2, by libarchive; image/ knows the others and is faster.
class RareFilter {
 public:
  static Result<image::ByteSource> open(image::ByteSource source) {
    auto filter = std::make_shared<RareFilter>();
    filter->source_ = std::move(source);
    filter->buffer_.resize(piece_bytes);
    filter->archive_.reset(::archive_read_new());
    archive* handle = filter->archive_.get();
    if (handle == nullptr) return base::fail(ErrorCode::Internal, "no memory for an archive");
    ::archive_read_support_filter_xz(handle);
    ::archive_read_support_filter_bzip2(handle);
    ::archive_read_support_format_raw(handle);
    ::archive_entry* entry = nullptr;
    if (::archive_read_open(handle, filter.get(), nullptr, &pull, nullptr) != ARCHIVE_OK ||
        ::archive_read_next_header(handle, &entry) != ARCHIVE_OK)
      return filter->failed();
    return image::ByteSource([filter](std::span<char> out) { return filter->read(out); });
  }

 private:
  struct Free {
    void operator()(archive* handle) const { ::archive_read_free(handle); }
  };

  static la_ssize_t pull(archive* handle, void* self, const void** buffer) {
    auto& filter = *static_cast<RareFilter*>(self);
    const Result<size_t> count = filter.source_(filter.buffer_);
    *buffer = filter.buffer_.data();
    if (count) return static_cast<la_ssize_t>(*count);
    filter.error_ = count.error();
    ::archive_set_error(handle, EIO, "the source failed");
    return -1;
  }
  Result<size_t> read(std::span<char> out) {
    const la_ssize_t count = ::archive_read_data(archive_.get(), out.data(), out.size());
    if (count < 0) return failed();
    return static_cast<size_t>(count);
  }
  tl::unexpected<base::Error> failed() {
    if (error_) return tl::unexpected<base::Error>(*error_);
    const char* text = ::archive_error_string(archive_.get());
    return base::fail(ErrorCode::InvalidArgument, "the compressed stream is damaged ({})",
                      text == nullptr ? "unknown" : base::escape_controls(text));
  }

  image::ByteSource source_;
  std::vector<char> buffer_;
  std::optional<base::Error> error_;
  std::unique_ptr<archive, Free> archive_;
};

/// `head`, then what `source` still has.
image::ByteSource after(std::string head, image::ByteSource source) {
  return [head = std::move(head), at = size_t{0},
          source = std::move(source)](std::span<char> out) mutable -> Result<size_t> {
    if (at == head.size()) return source(out);
    const size_t count = head.copy(out.data(), out.size(), at);
    at += count;
    return count;
  };
}

Result<std::string> take_head(const image::ByteSource& source, size_t bytes) {
  std::string head(bytes, '\0');
  size_t size = 0;
  while (size < bytes) {
    const size_t count = TRY(source({head.data() + size, bytes - size}));
    if (count == 0) break;
    size += count;
  }
  head.resize(size);
  return head;
}

Result<image::ByteSource> plain(image::ByteSource source) {
  constexpr std::string_view xz(
      "\xFD"
      "7zXZ\0",
      6);
  std::string head = TRY(take_head(source, xz.size()));
  const bool rare = head == xz || head.starts_with("BZh");
  image::ByteSource whole = after(std::move(head), std::move(source));
  return rare ? RareFilter::open(std::move(whole)) : image::decompressed(std::move(whole));
}

/// The sum of a header's bytes, its own field taken as blanks, as POSIX has it.
bool is_tar_header(std::string_view head) {
  if (head.size() < block_bytes) return false;
  uint64_t sum = 0;
  for (size_t i = 0; i < block_bytes; ++i)
    sum += i >= 148 && i < 156 ? uint64_t{' '} : static_cast<unsigned char>(head[i]);
  uint64_t written = 0;
  for (const char c : head.substr(148, 8)) {
    if (c == ' ' && written == 0) continue;
    if (c < '0' || c > '7') break;
    written = written * 8 + static_cast<uint64_t>(c - '0');
  }
  return written == sum && head[0] != '\0';
}

}  // namespace

Result<std::unique_ptr<Tree>> open_tar_tree(image::ByteSource source,
                                            const TarTreeOptions& options) {
  TarTreeOptions settled = options;
  if (settled.bytes_max == 0) settled.bytes_max = limits::context_bytes_max;
  base::UniqueFd spool = TRY_DURING(base::open_file(settled.spool_folder, O_TMPFILE | O_RDWR, 0600),
                                    "spool the archive");
  auto tree = std::make_unique<TarTree>(std::move(spool), settled);
  uint64_t total = 0;
  image::ByteSource bytes = TRY(plain(std::move(source)));
  // Holes and headers count as well, so that nothing small is read for ever.
  image::ByteSource bounded = [&](std::span<char> out) -> Result<size_t> {
    const size_t count = TRY(bytes(out));
    total += count;
    if (total > settled.bytes_max)
      return base::fail(ErrorCode::InvalidArgument, "the archive has more than {} MiB",
                        settled.bytes_max >> 20);
    return count;
  };
  image::TarReader reader = TRY(image::TarReader::create(bounded));
  TRY(tree->fill(reader));
  return tree;
}

Result<std::unique_ptr<Tree>> open_tar_file(const Tree& tree, const std::string& path,
                                            const TarTreeOptions& options) {
  // Trees push their bytes and archives pull them: a file that nobody else sees is between them.
  const base::UniqueFd file = TRY_DURING(
      base::open_file(options.spool_folder, O_TMPFILE | O_RDWR, 0600), "spool '{}'", shown(path));
  TRY(tree.read(path, [&](std::string_view bytes) { return base::write_all(file.get(), bytes); }));
  if (::lseek(file.get(), 0, SEEK_SET) != 0) return base::fail_errno(errno, "rewind the archive");
  return open_tar_tree(image::read_from(file.get()), options);
}

Result<bool> is_archive(const Tree& tree, const std::string& path) {
  constexpr size_t head_bytes = 1u << 20;  // a block of bzip2 is 900 kB
  std::string head;
  const Result<> taken = tree.read(path, [&](std::string_view bytes) -> Result<> {
    head += bytes.substr(0, head_bytes - head.size());
    if (head.size() == head_bytes) return base::fail(ErrorCode::Cancelled, "enough");
    return {};
  });
  if (!taken && head.size() < head_bytes) return tl::unexpected(taken.error());
  if (is_tar_header(head)) return true;
  image::ByteSource source =
      after(std::move(head), [](std::span<char>) { return Result<size_t>(0); });
  // What does not decompress is a file like any other.
  Result<image::ByteSource> inner = plain(std::move(source));
  if (!inner) return false;
  const Result<std::string> first = take_head(*inner, block_bytes);
  return first && is_tar_header(*first);
}

}  // namespace builder
