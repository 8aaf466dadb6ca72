/// Blobs that are continued where they broke off.

#include <cerrno>
#include <filesystem>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/file.h"
#include "base/text.h"
#include "image/store.h"

namespace image {
namespace {

namespace fs = std::filesystem;
using base::ErrorCode;
using base::fail;
using base::Result;

constexpr size_t piece_bytes = 256u << 10;
constexpr uint64_t writeback_bytes = 8u << 20;

}  // namespace

PartialBlob::PartialBlob(PartialBlob&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)),
      file_(std::move(other.file_)),
      expected_(std::move(other.expected_)),
      buffers_(std::move(other.buffers_)),
      turn_(other.turn_),
      hash_(std::move(other.hash_)),
      size_(other.size_) {}

PartialBlob::~PartialBlob() {
  if (store_ == nullptr) return;
  file_.path_.clear();
  const std::lock_guard lock(store_->mutex_);
  store_->partials_open_.erase(expected_.digest);
}

/// The hash of the last piece goes on while this one comes.
Result<std::string_view> PartialBlob::next_piece(const ByteSource& source) {
  std::vector<char>& buffer = buffers_.at(turn_);
  buffer.resize(piece_bytes);
  const std::string_view piece(buffer.data(), TRY(source(buffer)));
  if (piece.size() > expected_.size - size_)
    return fail(ErrorCode::InvalidArgument, "{} has more than the {} bytes that were announced",
                expected_.digest, expected_.size);
  hash_->settle();
  hash_->begin(piece);
  turn_ ^= 1;
  size_ += piece.size();
  return piece;
}

Result<std::string_view> PartialBlob::take(const ByteSource& source) {
  const uint64_t before = size_;
  const std::string_view piece = TRY(next_piece(source));
  TRY_DURING(base::write_all(file_.fd(), piece), "store image content");
  // The disk works while more comes, so that little is left to wait for at the end. A hint: what
  // fails here fails in fsync, where it counts.
  if (before / writeback_bytes != size_ / writeback_bytes)
    (void)::sync_file_range(file_.fd(), 0, 0, SYNC_FILE_RANGE_WRITE);
  return piece;
}

Result<> PartialBlob::restart() {
  if (::ftruncate(file_.fd(), 0) != 0 || ::lseek(file_.fd(), 0, SEEK_SET) != 0)
    return base::fail_errno(errno, fmt::format("begin {} again", expected_.digest));
  hash_ = std::make_unique<SideHash>();
  size_ = 0;
  return {};
}

Result<PartialBlob> Store::begin_partial(Lease& lease, const Descriptor& expected,
                                         const std::function<Result<>(std::string_view)>& seen) {
  TRY(lease.keep(expected.digest));
  {
    const std::lock_guard lock(mutex_);
    if (!partials_open_.insert(expected.digest).second)
      return fail(ErrorCode::Busy, "{} is being brought in already", expected.digest);
  }
  // The value itself frees the name again, whatever fails from here on.
  PartialBlob partial(this, Ingest(partial_path(expected.digest), {}, lease.record_), expected);
  partial.file_.fd_ = TRY(base::open_file(partial.file_.path_, O_RDWR | O_CREAT | O_NOFOLLOW));
  struct stat info {};
  if (::fstat(partial.file_.fd(), &info) != 0)
    return base::fail_errno(errno, fmt::format("look at what is there of {}", expected.digest));
  if (static_cast<uint64_t>(info.st_size) > expected.size) TRY(partial.restart());  // another's
  const ByteSource there = read_from(partial.file_.fd());
  for (;;) {
    const std::string_view piece = TRY(partial.next_piece(there));
    if (piece.empty()) break;
    if (seen) TRY(seen(piece));
  }
  return partial;
}

Result<> Store::finish_partial(PartialBlob content) {
  const Descriptor expected = content.expected_;
  if (content.size_ != expected.size)
    return fail(ErrorCode::InvalidArgument, "{} ends after {} of {} bytes", expected.digest,
                content.size_, expected.size);
  const std::string path = content.file_.path_;
  if (const std::string found = content.hash_->finish(); found != expected.digest) {
    ::unlink(path.c_str());
    return fail(ErrorCode::InvalidArgument, "content that should be {} is {}: it was damaged",
                expected.digest, found);
  }
  // From here the file is an ordinary ingest, unlinked if it cannot be committed.
  Ingest file(path, std::move(content.file_.fd_), content.file_.lease_);
  return commit(std::move(file), expected.digest, blob_path(expected.digest));
}

void Store::drop_partial(const std::string& digest) {
  const std::lock_guard lock(mutex_);
  if (!partials_open_.contains(digest)) ::unlink(partial_path(digest).c_str());
}

/// Those that no lease keeps: nobody will go on with them.
Result<> Store::drop_partials() {
  std::error_code error;
  for (fs::directory_iterator at(root_ + "/partial", error), end; !error && at != end;
       at.increment(error)) {
    const std::string digest = "sha256:" + at->path().filename().string();
    bool is_kept = partials_open_.contains(digest);
    for (const auto& [name, lease] : named_) is_kept |= lease->digests.contains(digest);
    for (const auto& lease : unnamed_) is_kept |= lease->digests.contains(digest);
    if (!is_kept && ::unlink(at->path().c_str()) != 0)
      return base::fail_errno(errno, fmt::format("delete '{}'", at->path().string()));
  }
  if (error) return base::fail_errno(error.value(), fmt::format("read '{}/partial'", root_));
  return {};
}

}  // namespace image
