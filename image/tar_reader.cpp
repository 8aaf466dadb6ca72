#include "image/tar_reader.h"

#include <optional>

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>

#include "base/text.h"

namespace image {

using base::ErrorCode;
using base::Result;

namespace {

constexpr size_t buffer_bytes = 256u << 10;

}  // namespace

struct TarReader::State {
  PieceSource source;
  archive* reader = nullptr;
  archive_entry* entry = nullptr;
  std::optional<base::Error> source_error;  ///< libarchive carries only a text.

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { archive_read_free(reader); }

  tl::unexpected<base::Error> failure() {
    if (source_error) return tl::unexpected<base::Error>(*source_error);
    const char* text = archive_error_string(reader);
    return base::fail(ErrorCode::InvalidArgument, "the tar stream is damaged ({})",
                      base::escape_controls(text != nullptr ? text : "unknown error"));
  }

  static la_ssize_t read(archive*, void* self, const void** bytes) {
    auto* state = static_cast<State*>(self);
    Result<std::string_view> piece = state->source();
    if (!piece) {
      state->source_error = std::move(piece.error());
      return -1;
    }
    *bytes = piece->data();
    return static_cast<la_ssize_t>(piece->size());
  }
};

TarReader::TarReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
TarReader::~TarReader() = default;
TarReader::TarReader(TarReader&&) noexcept = default;

Result<TarReader> TarReader::create(ByteSource source) {
  auto buffer = std::make_shared<std::vector<char>>(buffer_bytes);
  return create(PieceSource([source = std::move(source), buffer]() -> Result<std::string_view> {
    return std::string_view(buffer->data(), TRY(source(*buffer)));
  }));
}

Result<TarReader> TarReader::create(PieceSource source) {
  auto state = std::make_unique<State>();
  state->source = std::move(source);
  state->reader = archive_read_new();
  archive_read_support_filter_none(state->reader);
  archive_read_support_format_tar(state->reader);
  archive_read_support_format_empty(state->reader);
  if (archive_read_open2(state->reader, state.get(), nullptr, &State::read, nullptr, nullptr) !=
      ARCHIVE_OK)
    return state->failure();
  return TarReader(std::move(state));
}

namespace {

std::string text_or_empty(const char* text) { return text == nullptr ? "" : text; }

Result<TarType> type_of(archive_entry* entry) {
  if (archive_entry_hardlink(entry) != nullptr) return TarType::HardLink;
  switch (archive_entry_filetype(entry)) {
    case AE_IFREG: return TarType::File;
    case AE_IFLNK: return TarType::Symlink;
    case AE_IFDIR: return TarType::Directory;
    case AE_IFCHR: return TarType::CharacterDevice;
    case AE_IFBLK: return TarType::BlockDevice;
    case AE_IFIFO: return TarType::Fifo;
    default:
      return base::fail(ErrorCode::InvalidArgument, "'{}' has a type no tar member has",
                        base::escape_controls(text_or_empty(archive_entry_pathname(entry))));
  }
}

void read_xattrs(archive_entry* entry, TarEntry& result) {
  archive_entry_xattr_reset(entry);
  const char* name = nullptr;
  const void* value = nullptr;
  size_t size = 0;
  while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK)
    if (name != nullptr)
      result.xattrs.emplace_back(name, std::string(static_cast<const char*>(value), size));
}

}  // namespace

Result<std::optional<TarEntry>> TarReader::next() {
  // A warning is about the character set of a name; the raw bytes are kept, as we want them.
  const int status = archive_read_next_header(state_->reader, &state_->entry);
  if (status == ARCHIVE_EOF) return std::optional<TarEntry>();
  if (status != ARCHIVE_OK && status != ARCHIVE_WARN) return state_->failure();
  archive_entry* entry = state_->entry;
  TarEntry result;
  result.type = TRY(type_of(entry));
  result.path = text_or_empty(archive_entry_pathname(entry));
  if (result.path.empty())
    return base::fail(ErrorCode::InvalidArgument, "a tar member has no readable name");
  result.link = text_or_empty(result.type == TarType::HardLink ? archive_entry_hardlink(entry)
                                                               : archive_entry_symlink(entry));
  result.mode = archive_entry_perm(entry) & 07777u;
  result.user = archive_entry_uid(entry);
  result.group = archive_entry_gid(entry);
  result.modified_s = archive_entry_mtime(entry);
  result.modified_ns = static_cast<uint32_t>(archive_entry_mtime_nsec(entry));
  result.size = archive_entry_size(entry);
  result.device_major = static_cast<uint32_t>(archive_entry_rdevmajor(entry));
  result.device_minor = static_cast<uint32_t>(archive_entry_rdevminor(entry));
  read_xattrs(entry, result);
  return std::optional<TarEntry>(std::move(result));
}

Result<> TarReader::read_content(const Sink& sink) {
  for (;;) {
    const void* bytes = nullptr;
    size_t count = 0;
    la_int64_t offset = 0;
    const int status = archive_read_data_block(state_->reader, &bytes, &count, &offset);
    if (status == ARCHIVE_EOF) return {};
    if (status != ARCHIVE_OK && status != ARCHIVE_WARN) return state_->failure();
    if (count == 0) continue;
    TRY(sink(static_cast<uint64_t>(offset),
             std::string_view(static_cast<const char*>(bytes), count)));
  }
}

}  // namespace image
