#include "guest/agent/build/tar_reader.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/text.h"

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;

constexpr size_t block_bytes = 512;
constexpr size_t buffer_bytes = 256u << 10;
constexpr uint64_t extension_bytes_max = 1u << 20;
constexpr size_t xattr_bytes_max = 128u << 10;
constexpr std::string_view xattr_record = "SCHILY.xattr.";

// Fields of a header block: offset and length.
struct Field {
  size_t at;
  size_t size;
};
constexpr Field field_name{0, 100}, field_mode{100, 8}, field_user{108, 8}, field_group{116, 8},
    field_size{124, 12}, field_time{136, 12}, field_checksum{148, 8}, field_link{157, 100},
    field_magic{257, 5}, field_major{329, 8}, field_minor{337, 8}, field_prefix{345, 155};
constexpr size_t type_at = 156;

std::string_view raw(std::string_view header, Field field) {
  return header.substr(field.at, field.size);
}

std::string text(std::string_view header, Field field) {
  const std::string_view bytes = raw(header, field);
  return std::string(bytes.substr(0, bytes.find('\0')));
}

tl::unexpected<base::Error> damaged(const char* what) {
  return fail(ErrorCode::InvalidArgument, "the tar stream is damaged: {}", what);
}

/// Octal digits, or (the first bit set) a big-endian number in two's complement.
Result<int64_t> number(std::string_view header, Field field) {
  std::string_view bytes = raw(header, field);
  const auto first = static_cast<unsigned char>(bytes[0]);
  if ((first & 0x80) != 0) {
    const uint64_t sign = (first & 0x40) != 0 ? ~uint64_t{0} : 0;
    uint64_t value = sign << 6 | (first & 0x3f);
    for (size_t i = 1; i < bytes.size(); ++i) {
      if ((value >> 55) != (sign >> 55)) return damaged("a number is too large");
      value = value << 8 | static_cast<unsigned char>(bytes[i]);
    }
    return static_cast<int64_t>(value);
  }
  while (!bytes.empty() && bytes.front() == ' ') bytes.remove_prefix(1);
  int64_t value = 0;
  for (const char c : bytes) {
    if (c == '\0' || c == ' ') break;
    if (c < '0' || c > '7') return damaged("a number has other digits than 0 to 7");
    value = value * 8 + (c - '0');  // twelve digits at most
  }
  return value;
}

bool checksum_fits(std::string_view header, int64_t announced) {
  int64_t plain = 0, with_signs = 0;
  for (size_t i = 0; i < block_bytes; ++i) {
    const bool own = i >= field_checksum.at && i < field_checksum.at + field_checksum.size;
    const char c = own ? ' ' : header[i];
    plain += static_cast<unsigned char>(c);
    with_signs += static_cast<signed char>(c);
  }
  return announced == plain || announced == with_signs;
}

template <class T>
Result<T> decimal(std::string_view digits) {
  T value{};
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc{} || end != digits.data() + digits.size())
    return damaged("an attribute is no number");
  return value;
}

Result<uint32_t> owner(int64_t value) {
  constexpr int64_t nobody_at_all = std::numeric_limits<uint32_t>::max();  // (uid_t)-1
  if (value >= 0 && value < nobody_at_all) return static_cast<uint32_t>(value);
  return fail(ErrorCode::InvalidArgument, "a member has the impossible owner {}", value);
}

/// `1700000000.25`, with any number of digits.
Result<> read_time(std::string_view written, TarEntry& entry) {
  const size_t point = written.find('.');
  entry.modified_s = TRY(decimal<int64_t>(written.substr(0, point)));
  entry.modified_ns = 0;
  if (point == std::string_view::npos) return {};
  std::string digits(written.substr(point + 1, 9));
  digits.resize(9, '0');
  entry.modified_ns = TRY(decimal<uint32_t>(digits));
  // The fraction counts towards the future, also before 1970.
  if (written.starts_with('-') && entry.modified_ns > 0) {
    if (entry.modified_s == std::numeric_limits<int64_t>::min()) return damaged("a time");
    entry.modified_s -= 1;
    entry.modified_ns = 1'000'000'000 - entry.modified_ns;
  }
  return {};
}

Result<TarType> type_of(char type, const std::string& path) {
  switch (type) {
    case '\0':
    case '0':
    case '7': return path.ends_with('/') ? TarType::Directory : TarType::File;
    case '1': return TarType::HardLink;
    case '2': return TarType::Symlink;
    case '3': return TarType::CharacterDevice;
    case '4': return TarType::BlockDevice;
    case '5': return TarType::Directory;
    case '6': return TarType::Fifo;
    default:
      return fail(ErrorCode::Unsupported, "'{}' is a tar member of the unknown type '{}'",
                  base::escape_controls(path), base::escape_controls({&type, 1}));
  }
}

}  // namespace

TarReader::TarReader(Source source) : source_(std::move(source)), buffer_(buffer_bytes) {}

/// True when `wanted` bytes (at most the buffer) lie in the buffer.
Result<bool> TarReader::fill(size_t wanted) {
  while (end_ - begin_ < wanted && !source_ended_) {
    if (begin_ > 0) {
      std::copy(buffer_.begin() + static_cast<ptrdiff_t>(begin_),
                buffer_.begin() + static_cast<ptrdiff_t>(end_), buffer_.begin());
      end_ -= begin_;
      begin_ = 0;
    }
    const size_t got = TRY(source_(buffer_.data() + end_, buffer_.size() - end_));
    end_ += got;
    source_ended_ = got == 0;
  }
  return end_ - begin_ >= wanted;
}

Result<std::optional<std::string_view>> TarReader::block() {
  if (!TRY(fill(block_bytes))) {
    if (begin_ != end_) return damaged("it ends in the middle of a member's header");
    return std::optional<std::string_view>();
  }
  const std::string_view bytes(buffer_.data() + begin_, block_bytes);
  begin_ += block_bytes;
  return std::optional<std::string_view>(bytes);
}

Result<> TarReader::skip(uint64_t bytes) {
  while (bytes > 0) {
    if (!TRY(fill(1))) return damaged("it ends in the middle of a member");
    const size_t piece = static_cast<size_t>(std::min<uint64_t>(bytes, end_ - begin_));
    begin_ += piece;
    bytes -= piece;
  }
  return {};
}

Result<std::string_view> TarReader::content() {
  if (content_left_ == 0) return std::string_view();
  if (!TRY(fill(1))) return damaged("it ends in the middle of a member");
  const size_t piece = static_cast<size_t>(std::min<uint64_t>(content_left_, end_ - begin_));
  const std::string_view bytes(buffer_.data() + begin_, piece);
  begin_ += piece;
  content_left_ -= piece;
  return bytes;
}

Result<std::string> TarReader::text_member(uint64_t size) {
  if (size > extension_bytes_max) return damaged("a name or attribute is too long");
  std::string bytes;
  while (bytes.size() < size) {
    if (!TRY(fill(1))) return damaged("it ends in the middle of a member");
    const size_t piece = std::min(static_cast<size_t>(size) - bytes.size(), end_ - begin_);
    bytes.append(buffer_.data() + begin_, piece);
    begin_ += piece;
  }
  TRY(skip((block_bytes - size % block_bytes) % block_bytes));
  return bytes;
}

/// `27 path=a/name\n`…: the length counts the whole record, its own digits included.
Result<TarReader::Records> TarReader::records(uint64_t size) {
  const std::string bytes = TRY(text_member(size));
  Records result;
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const size_t space = rest.find(' ');
    if (space == std::string_view::npos || space > 10) return damaged("an attribute has no length");
    const auto length = TRY(decimal<uint32_t>(rest.substr(0, space)));
    if (length < space + 3 || length > rest.size() || rest[length - 1] != '\n')
      return damaged("an attribute has a wrong length");
    const std::string_view record = rest.substr(space + 1, length - space - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) return damaged("an attribute has no value");
    result.insert_or_assign(std::string(record.substr(0, equals)),
                            std::string(record.substr(equals + 1)));
    rest.remove_prefix(length);
  }
  return result;
}

/// True if the member only says something about the next one.
Result<bool> TarReader::take_extension(char type, uint64_t size) {
  const auto until_zero = [](std::string bytes) { return bytes.substr(0, bytes.find('\0')); };
  switch (type) {
    case 'x': records_ = TRY(records(size)); return true;
    case 'g': TRY(records(size)); return true;  // remarks about the whole archive
    case 'L': long_path_ = until_zero(TRY(text_member(size))); return true;
    case 'K': long_link_ = until_zero(TRY(text_member(size))); return true;
    default: return false;
  }
}

Result<> TarReader::apply_records(TarEntry& entry) const {
  size_t xattr_bytes = 0;
  for (const auto& [key, value] : records_) {
    if (key == "path") entry.path = value;
    if (key == "linkpath") entry.link = value;
    if (key == "size") entry.size = TRY(decimal<uint64_t>(value));
    if (key == "uid") entry.user = TRY(owner(TRY(decimal<int64_t>(value))));
    if (key == "gid") entry.group = TRY(owner(TRY(decimal<int64_t>(value))));
    if (key == "mtime") TRY(read_time(value, entry));
    if (key.starts_with("GNU.sparse."))
      return fail(ErrorCode::Unsupported, "'{}' is a sparse member",
                  base::escape_controls(entry.path));
    if (!key.starts_with(xattr_record)) continue;
    xattr_bytes += key.size() + value.size();
    if (xattr_bytes > xattr_bytes_max) return damaged("extended attributes are too large");
    entry.xattrs.emplace_back(key.substr(xattr_record.size()), value);
  }
  return {};
}

Result<TarEntry> TarReader::entry_of(std::string_view header, char type) {
  TarEntry entry;
  entry.path = text(header, field_name);
  const bool has_prefix = raw(header, field_magic) == "ustar" && header[262] == '\0';
  if (const std::string prefix = text(header, field_prefix); has_prefix && !prefix.empty())
    entry.path = prefix + "/" + entry.path;
  entry.link = text(header, field_link);
  entry.mode = static_cast<uint32_t>(TRY(number(header, field_mode))) & 07777u;
  entry.user = TRY(owner(TRY(number(header, field_user))));
  entry.group = TRY(owner(TRY(number(header, field_group))));
  entry.modified_s = TRY(number(header, field_time));
  const int64_t size = TRY(number(header, field_size));
  if (size < 0) return damaged("a member has a negative size");
  entry.size = static_cast<uint64_t>(size);
  if (!long_path_.empty()) entry.path = std::exchange(long_path_, {});
  if (!long_link_.empty()) entry.link = std::exchange(long_link_, {});
  TRY(apply_records(entry));
  records_.clear();
  if (entry.path.empty()) return damaged("a member has no name");
  if (entry.path.find('\0') != std::string::npos || entry.link.find('\0') != std::string::npos)
    return damaged("a name holds a zero byte");
  entry.type = TRY(type_of(type, entry.path));
  if (entry.type == TarType::CharacterDevice || entry.type == TarType::BlockDevice) {
    const int64_t major = TRY(number(header, field_major));
    const int64_t minor = TRY(number(header, field_minor));
    if (major < 0 || major > 0xfff || minor < 0 || minor > 0xfffff)
      return damaged("a device has an impossible number");
    entry.device_major = static_cast<uint32_t>(major);
    entry.device_minor = static_cast<uint32_t>(minor);
  }
  return entry;
}

Result<std::optional<TarEntry>> TarReader::next() {
  TRY(skip(content_left_));
  TRY(skip(padding_left_));
  content_left_ = padding_left_ = 0;
  for (;;) {
    const auto header = TRY(block());
    if (!header || std::all_of(header->begin(), header->end(), [](char c) { return c == '\0'; }))
      return std::optional<TarEntry>();
    if (!checksum_fits(*header, TRY(number(*header, field_checksum))))
      return damaged("a header's checksum is wrong");
    const char type = (*header)[type_at];
    const int64_t size = TRY(number(*header, field_size));
    if (size < 0) return damaged("a member has a negative size");
    // The header lies in the buffer, which reading on would change.
    const std::string copy(*header);
    if (TRY(take_extension(type, static_cast<uint64_t>(size)))) continue;
    TarEntry entry = TRY(entry_of(copy, type));
    // A hard link's size is that of the file it names; only files have content.
    if (entry.type == TarType::File) {
      content_left_ = entry.size;
      padding_left_ = (block_bytes - entry.size % block_bytes) % block_bytes;
    } else {
      entry.size = 0;
    }
    return std::optional<TarEntry>(std::move(entry));
  }
}

Result<> TarReader::drain() {
  TRY(skip(content_left_));
  content_left_ = 0;
  while (TRY(fill(1))) begin_ = end_;
  return {};
}

}  // namespace agent
