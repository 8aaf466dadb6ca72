#include "image/erofs_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "image/erofs_format.h"
#include "image/erofs_metadata.h"

namespace image {
namespace {

using base::ErrorCode;
using base::Result;
using erofs::block_bytes;

constexpr uint64_t buffer_bytes = 1u << 20;

Result<> write_at(int fd, uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return base::fail_errno(errno, "write to the layer disk");
    offset += static_cast<uint64_t>(count);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return {};
}

bool is_zero(std::string_view bytes) {
  return bytes.empty() ||
         (bytes[0] == '\0' && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace

ErofsWriter::ErofsWriter(int fd, const ErofsOptions& options)
    : fd_(fd), options_(options), tree_(options.tree), flushed_(block_bytes) {
  buffer_.reserve(buffer_bytes);
}

/// Writes whole blocks only; runs of zero blocks are left as holes.
Result<> ErofsWriter::flush() {
  const std::string_view whole =
      std::string_view(buffer_).substr(0, buffer_.size() / block_bytes * block_bytes);
  size_t start = 0;
  for (size_t at = 0; at <= whole.size(); at += block_bytes) {
    const bool ends = at == whole.size() || is_zero(whole.substr(at, block_bytes));
    if (!ends) continue;
    TRY(write_at(fd_, flushed_ + start, whole.substr(start, at - start)));
    start = at + block_bytes;
  }
  flushed_ += whole.size();
  buffer_.erase(0, whole.size());
  return {};
}

Result<> ErofsWriter::append(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min<size_t>(bytes.size(), buffer_bytes - buffer_.size());
    buffer_ += bytes.substr(0, count);
    bytes.remove_prefix(count);
    if (buffer_.size() == buffer_bytes) TRY(flush());
  }
  return {};
}

Result<> ErofsWriter::skip_zeros(uint64_t count) {
  const uint64_t to_boundary = (block_bytes - buffer_.size() % block_bytes) % block_bytes;
  const uint64_t head = std::min(count, to_boundary);
  TRY(append(std::string(head, '\0')));
  count -= head;
  if (count >= block_bytes) {
    TRY(flush());
    flushed_ += count / block_bytes * block_bytes;
    count %= block_bytes;
  }
  return append(std::string(count, '\0'));
}

Result<> ErofsWriter::pad_to_block() {
  const uint64_t rest = buffer_.size() % block_bytes;
  return rest == 0 ? Result<>() : append(std::string(block_bytes - rest, '\0'));
}

Result<std::string> ErofsWriter::read_small(const TarEntry& entry, TarReader& content) {
  std::string bytes(static_cast<size_t>(entry.size), '\0');
  TRY(content.read_content([&](uint64_t offset, std::string_view piece) -> Result<> {
    if (offset > bytes.size() || piece.size() > bytes.size() - offset)
      return base::fail(ErrorCode::InvalidArgument, "'{}' is longer than it says",
                        base::escape_controls(entry.path));
    std::copy(piece.begin(), piece.end(), bytes.begin() + static_cast<ptrdiff_t>(offset));
    return {};
  }));
  return bytes;
}

Result<> ErofsWriter::write_file(ErofsInode& inode, const TarEntry& entry, TarReader& content) {
  const auto size = static_cast<uint64_t>(entry.size);
  const uint64_t first = (flushed_ + buffer_.size()) / block_bytes;
  if (first + size / block_bytes + 1 > std::numeric_limits<uint32_t>::max())
    return base::fail(ErrorCode::InvalidArgument, "the layer is larger than its disk can be");
  inode.first_block = static_cast<uint32_t>(first);
  uint64_t at = 0;
  TRY(content.read_content([&](uint64_t offset, std::string_view piece) -> Result<> {
    if (offset < at || offset > size || piece.size() > size - offset)
      return base::fail(ErrorCode::InvalidArgument, "'{}' is longer than it says",
                        base::escape_controls(entry.path));
    TRY(skip_zeros(offset - at));
    TRY(append(piece));
    at = offset + piece.size();
    return {};
  }));
  TRY(skip_zeros(size - at));
  return pad_to_block();
}

Result<> ErofsWriter::add(const TarEntry& entry, TarReader& content) {
  if (entry.type == TarType::File) {
    const uint64_t left = options_.unpacked_bytes_max - content_bytes_;
    if (entry.size < 0 || static_cast<uint64_t>(entry.size) > left)
      return base::fail(ErrorCode::InvalidArgument,
                        "unpacked, the layer has more than {} MiB: '{}' goes over it",
                        options_.unpacked_bytes_max >> 20, base::escape_controls(entry.path));
    content_bytes_ += static_cast<uint64_t>(entry.size);
  }
  ErofsInode* inode = TRY(tree_.add(entry));
  if (inode == nullptr || entry.size == 0) return {};
  inode->size = static_cast<uint64_t>(entry.size);
  if (inode->size > options_.inline_bytes_max) return write_file(*inode, entry, content);
  TRY(tree_.account(inode->size));
  inode->tail = TRY(read_small(entry, content));
  return {};
}

Result<> ErofsWriter::finish(const std::array<uint8_t, 16>& uuid) {
  TRY(tree_.settle_whiteouts());
  const uint64_t first_block = (flushed_ + buffer_.size()) / block_bytes;
  ErofsMetadata metadata(tree_, first_block);
  TRY(metadata.write([&](std::string_view bytes) { return append(bytes); }));
  TRY(flush());
  if (::ftruncate(fd_, static_cast<off_t>(flushed_)) != 0)
    return base::fail_errno(errno, "set the size of the layer disk");
  return write_at(fd_, 0, metadata.superblock(uuid));
}

Result<bool> layer_hides_everything_below(const std::string& path) {
  const base::UniqueFd file = TRY(base::open_file(path, O_RDONLY | O_NOFOLLOW));
  std::array<char, 11> name{};
  const ssize_t count =
      ::pread(file.get(), name.data(), name.size(), static_cast<off_t>(erofs::volume_name_offset));
  if (count < 0) return base::fail_errno(errno, fmt::format("read '{}'", path));
  return std::string_view(name.data(), static_cast<size_t>(count)) == "opaque-root";
}

}  // namespace image
