#include "runtime/log/container_log.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/file.h"

namespace runtime {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;

constexpr std::string_view magic = "CTRLOG1\n";
constexpr size_t run_bytes_max = 36;  ///< A UUID.
constexpr size_t segment_header_bytes = 64;
constexpr size_t record_header_bytes = 24;
constexpr uint32_t record_mark = 0x474f4c7e;
constexpr size_t record_bytes_max = 64 * 1024;
constexpr auto cancel_poll = std::chrono::milliseconds(200);

struct RecordHeader {
  uint32_t length = 0;
  int stream = 1;
  int64_t wall_ns = 0;
  uint64_t offset = 0;
};

/// mark 4, length 3, stream 1, time 8, offset 8: little-endian.
std::array<char, record_header_bytes> encode(const RecordHeader& header) {
  std::array<char, record_header_bytes> bytes{};
  const uint32_t packed = header.length | (static_cast<uint32_t>(header.stream) << 24);
  std::memcpy(bytes.data(), &record_mark, 4);
  std::memcpy(bytes.data() + 4, &packed, 4);
  std::memcpy(bytes.data() + 8, &header.wall_ns, 8);
  std::memcpy(bytes.data() + 16, &header.offset, 8);
  return bytes;
}

std::optional<RecordHeader> decode(const std::array<char, record_header_bytes>& bytes) {
  uint32_t mark = 0;
  uint32_t packed = 0;
  RecordHeader header;
  std::memcpy(&mark, bytes.data(), 4);
  std::memcpy(&packed, bytes.data() + 4, 4);
  std::memcpy(&header.wall_ns, bytes.data() + 8, 8);
  std::memcpy(&header.offset, bytes.data() + 16, 8);
  header.length = packed & 0xffffffu;
  header.stream = static_cast<int>(packed >> 24);
  const bool sane = mark == record_mark && header.length > 0 && header.length <= record_bytes_max &&
                    header.stream >= 1 && header.stream <= 2;
  if (!sane) return std::nullopt;
  return header;
}

Result<bool> read_exactly(int fd, char* target, size_t count, uint64_t at) {
  size_t done = 0;
  while (done < count) {
    const ssize_t got = ::pread(fd, target + done, count - done, static_cast<off_t>(at + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::fail_errno(errno, "read container log");
    if (got == 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

Result<std::optional<RecordHeader>> read_header(int fd, uint64_t at) {
  std::array<char, record_header_bytes> bytes{};
  if (!TRY(read_exactly(fd, bytes.data(), bytes.size(), at))) return std::nullopt;
  return decode(bytes);
}

std::optional<uint64_t> segment_number(const std::string& name) {
  constexpr std::string_view suffix = ".log";
  if (!name.ends_with(suffix)) return std::nullopt;
  uint64_t number = 0;
  const char* end = name.data() + name.size() - suffix.size();
  const auto parsed = std::from_chars(name.data(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return number;
}

}  // namespace

// ---- opening ---------------------------------------------------------------------------------

Result<std::shared_ptr<ContainerLog>> ContainerLog::open(const std::string& folder,
                                                         LogLimits limits) {
  TRY(base::make_directories(folder));
  std::shared_ptr<ContainerLog> log(new ContainerLog(folder, limits));
  TRY_DURING(log->load(), "open the log in '{}'", folder);
  return log;
}

Result<> ContainerLog::load() {
  std::error_code error;
  std::vector<std::pair<uint64_t, std::string>> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().string();
    if (const auto number = segment_number(name)) found.emplace_back(*number, name);
  }
  if (error) return fail(ErrorCode::Io, "read '{}': {}", folder_, error.message());
  std::sort(found.begin(), found.end());
  for (const auto& [number, name] : found) {
    SegmentPtr segment = TRY(load_segment(name, number));
    if (segment) segments_.push_back(std::move(segment));
  }
  return {};
}

/// nullptr for a file that is no segment (a header torn by a loss of power): it is removed.
Result<ContainerLog::SegmentPtr> ContainerLog::load_segment(const std::string& name,
                                                            uint64_t number) {
  auto segment = std::make_shared<Segment>();
  segment->number = number;
  segment->path = folder_ + "/" + name;
  segment->fd = TRY(base::open_file(segment->path, O_RDWR | O_NOFOLLOW));
  std::array<char, segment_header_bytes> header{};
  const bool whole = TRY(read_exactly(segment->fd.get(), header.data(), header.size(), 0));
  if (!whole || std::string_view(header.data(), magic.size()) != magic) {
    ::unlink(segment->path.c_str());
    return nullptr;
  }
  const char* run = header.data() + magic.size() + 1;
  segment->starts_mid_line = header[magic.size()] != 0;
  segment->run.assign(run, ::strnlen(run, run_bytes_max));
  struct stat info {};
  if (::fstat(segment->fd.get(), &info) != 0) return base::fail_errno(errno, "stat log segment");
  const auto size = static_cast<uint64_t>(info.st_size);
  uint64_t at = segment_header_bytes;
  while (at < size) {
    const auto record = TRY(read_header(segment->fd.get(), at));
    if (!record || at + record_header_bytes + record->length > size) break;
    at += record_header_bytes + record->length;
  }
  // A record that was being written when the power went: it was never acknowledged.
  if (at < size && ::ftruncate(segment->fd.get(), static_cast<off_t>(at)) != 0)
    return base::fail_errno(errno, "cut torn log record");
  segment->bytes = at;
  return segment;
}

// ---- writing ---------------------------------------------------------------------------------

Result<ContainerLog::SegmentPtr> ContainerLog::new_segment(const std::string& run) {
  auto segment = std::make_shared<Segment>();
  segment->number = segments_.empty() ? 1 : segments_.back()->number + 1;
  segment->path = fmt::format("{}/{:010}.log", folder_, segment->number);
  segment->run = run;
  segment->starts_mid_line = ends_mid_line_ && run == run_ && stored_ > 0;
  segment->fd = TRY(base::open_file(segment->path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW));
  std::string header(segment_header_bytes, '\0');
  header.replace(0, magic.size(), magic);
  header[magic.size()] = segment->starts_mid_line ? 1 : 0;
  header.replace(magic.size() + 1, std::min(run.size(), run_bytes_max), run, 0, run_bytes_max);
  const Result<> written = base::write_all(segment->fd.get(), header);
  if (!written) {
    ::unlink(segment->path.c_str());
    return tl::unexpected(written.error());
  }
  segment->bytes = header.size();
  return segment;
}

void ContainerLog::drop_oldest() {
  ::unlink(segments_.front()->path.c_str());
  segments_.pop_front();
}

bool ContainerLog::oldest_is_held() const {
  if (!held_) return false;
  const uint64_t oldest = segments_.front()->number;
  return std::any_of(attached_.begin(), attached_.end(), [&](const LogReader* reader) {
    return reader->awaits_run_ <= runs_begun_ && reader->segment_ <= oldest;
  });
}

Result<> ContainerLog::rotate(std::unique_lock<std::mutex>& lock) {
  while (segments_.size() >= limits_.segments_max) {
    // Unbounded on purpose: this wait is what holds the guest back for an attached reader. It ends
    // when the reader moves on or goes away, or when the container must end.
    changed_.wait(lock, [&] { return !oldest_is_held() || !running_; });
    if (segments_.size() >= limits_.segments_max) drop_oldest();
  }
  segments_.push_back(TRY(new_segment(run_)));
  return {};
}

Result<uint64_t> ContainerLog::begin_run(const std::string& run) {
  std::unique_lock lock(mutex_);
  if (erased_) return fail(ErrorCode::InvalidState, "the log was removed with its container");
  run_ = run;
  stored_ = 0;
  held_ = true;
  ends_mid_line_ = false;
  run_first_segment_ = 0;
  for (const SegmentPtr& segment : segments_) {
    if (segment->run != run) continue;
    if (run_first_segment_ == 0) run_first_segment_ = segment->number;
    for (uint64_t at = segment_header_bytes; at < segment->bytes;) {
      const auto record = TRY(read_header(segment->fd.get(), at));
      if (!record) break;
      stored_ = std::max(stored_, record->offset + record->length);
      at += record_header_bytes + record->length;
    }
  }
  if (run_first_segment_ == 0) {
    while (segments_.size() >= limits_.segments_max) drop_oldest();
    segments_.push_back(TRY(new_segment(run)));
    run_first_segment_ = segments_.back()->number;
  }
  running_ = true;
  ++runs_begun_;
  changed_.notify_all();
  return stored_;
}

Result<> ContainerLog::append(int stream, uint64_t offset, int64_t wall_ns,
                              std::string_view bytes) {
  std::unique_lock lock(mutex_);
  if (erased_ || segments_.empty())
    return fail(ErrorCode::InvalidState, "the log was removed with its container");
  if (offset + bytes.size() <= stored_) return {};
  if (offset < stored_) {
    bytes.remove_prefix(stored_ - offset);
    offset = stored_;
  }
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, record_bytes_max);
    if (segments_.back()->bytes + record_header_bytes + piece.size() > limits_.segment_bytes_max)
      TRY(rotate(lock));
    const SegmentPtr segment = segments_.back();
    const auto header = encode({.length = static_cast<uint32_t>(piece.size()),
                                .stream = stream,
                                .wall_ns = wall_ns,
                                .offset = offset});
    const iovec parts[] = {{const_cast<char*>(header.data()), header.size()},
                           {const_cast<char*>(piece.data()), piece.size()}};
    const ssize_t written =
        ::pwritev(segment->fd.get(), parts, 2, static_cast<off_t>(segment->bytes));
    if (written != static_cast<ssize_t>(header.size() + piece.size()))
      return base::fail_errno(written < 0 ? errno : ENOSPC, "write container log");
    segment->bytes += static_cast<uint64_t>(written);
    offset += piece.size();
    stored_ = offset;
    ends_mid_line_ = piece.back() != '\n';
    bytes.remove_prefix(piece.size());
    changed_.notify_all();
  }
  return {};
}

void ContainerLog::end_run(RunEnd end) {
  const std::lock_guard lock(mutex_);
  last_end_ = std::move(end);
  // A start that failed before its run began must wake those who attached to it, too.
  if (!running_) ++runs_begun_;
  running_ = false;
  changed_.notify_all();
}

void ContainerLog::let_go() {
  const std::lock_guard lock(mutex_);
  held_ = false;
  changed_.notify_all();
}

Result<> ContainerLog::erase() {
  const std::lock_guard lock(mutex_);
  erased_ = true;
  running_ = false;
  changed_.notify_all();
  return base::remove_tree(folder_);
}

bool ContainerLog::run_goes_on() const {
  const std::lock_guard lock(mutex_);
  return running_;
}

// ---- reading ---------------------------------------------------------------------------------

std::unique_ptr<LogReader> ContainerLog::read(LogStart start, LogReaderKind kind) {
  std::unique_ptr<LogReader> reader(new LogReader(shared_from_this()));
  const std::lock_guard lock(mutex_);
  reader->awaits_run_ = start != LogStart::Oldest && !running_ ? runs_begun_ + 1 : 0;
  if (start == LogStart::Run) {
    reader->from_run_start_ = true;
    reader->segment_ = running_ ? run_first_segment_ : 0;
  } else if (start == LogStart::Now && !segments_.empty()) {
    reader->segment_ = segments_.back()->number;
    reader->position_ = segments_.back()->bytes;
  }
  if (kind == LogReaderKind::Attached) {
    reader->attached_ = true;
    attached_.insert(reader.get());
  }
  return reader;
}

LogReader::~LogReader() {
  const std::lock_guard lock(log_->mutex_);
  log_->attached_.erase(this);
  log_->changed_.notify_all();
}

bool LogReader::over() const { return !log_->running_ && awaits_run_ <= log_->runs_begun_; }

RunEnd LogReader::end() const {
  const std::lock_guard lock(log_->mutex_);
  if (log_->erased_ && !log_->last_end_.exit_code && log_->last_end_.error.empty())
    return {.exit_code = std::nullopt, .error = "the container was removed"};
  return log_->last_end_;
}

ContainerLog::SegmentPtr LogReader::locate() {
  if (awaits_run_ > log_->runs_begun_) return nullptr;
  if (from_run_start_ && segment_ < log_->run_first_segment_) {
    segment_ = log_->run_first_segment_;
    position_ = 0;
  }
  for (const ContainerLog::SegmentPtr& segment : log_->segments_) {
    if (segment->number < segment_) continue;
    if (segment->number > segment_) {
      // Rotation may have dropped segments between; then a line may begin in the middle.
      const bool gap = segment->number != segment_ + 1;
      if (segment->starts_mid_line && gap) drop_partial_[1] = drop_partial_[2] = true;
      segment_ = segment->number;
      position_ = 0;
      log_->changed_.notify_all();  // the writer may wait for us to leave the segment before
    }
    position_ = std::max<uint64_t>(position_, segment_header_bytes);
    if (position_ < segment->bytes) return segment;
  }
  return nullptr;
}

Result<std::optional<LogChunk>> LogReader::read_record(const ContainerLog::SegmentPtr& segment) {
  const auto header = TRY(read_header(segment->fd.get(), position_));
  if (!header) return fail(ErrorCode::Io, "the log segment '{}' is damaged", segment->path);
  LogChunk chunk{.stream = header->stream, .wall_ns = header->wall_ns, .bytes = {}};
  chunk.bytes.resize(header->length);
  if (!TRY(read_exactly(segment->fd.get(), chunk.bytes.data(), chunk.bytes.size(),
                        position_ + record_header_bytes)))
    return fail(ErrorCode::Io, "the log segment '{}' is cut short", segment->path);
  position_ += record_header_bytes + header->length;
  bool& drop = drop_partial_[chunk.stream];
  if (drop) {
    const size_t line_end = chunk.bytes.find('\n');
    if (line_end == std::string::npos) return std::nullopt;
    chunk.bytes.erase(0, line_end + 1);
    drop = false;
    if (chunk.bytes.empty()) return std::nullopt;
  }
  return chunk;
}

Result<std::optional<LogChunk>> LogReader::next(Wait wait, const std::function<bool()>& cancelled) {
  for (;;) {
    ContainerLog::SegmentPtr segment;
    {
      std::unique_lock lock(log_->mutex_);
      while (!(segment = locate())) {
        if (wait == Wait::Never || over() || log_->erased_) return std::nullopt;
        if (cancelled && cancelled()) return fail(ErrorCode::Cancelled, "cancelled");
        log_->changed_.wait_for(lock, cancel_poll);
      }
    }
    if (cancelled && cancelled()) return fail(ErrorCode::Cancelled, "cancelled");
    auto chunk = TRY(read_record(segment));
    if (chunk) return chunk;
  }
}

Result<uint64_t> count_lines(LogReader& reader, const std::function<bool()>& cancelled) {
  LineFilter filter(~0ull);
  for (;;) {
    const auto chunk = TRY(reader.next(LogReader::Wait::Never, cancelled));
    if (!chunk) return filter.begun();
    filter.pass(*chunk, [](int, std::string_view) { return true; });
  }
}

bool LineFilter::pass(const LogChunk& chunk, const LogSink& sink) {
  std::string_view rest = chunk.bytes;
  const auto stream = static_cast<size_t>(chunk.stream);
  while (!rest.empty()) {
    if (!inside_[stream]) {
      number_[stream] = begun_++;
      inside_[stream] = true;
    }
    if (number_[stream] >= first_) break;
    const size_t line_end = rest.find('\n');
    if (line_end == std::string_view::npos) return true;
    inside_[stream] = false;
    rest.remove_prefix(line_end + 1);
  }
  if (rest.empty()) return true;
  // From here on every line of this stream is wanted: numbers only grow.
  const auto newlines = static_cast<uint64_t>(std::count(rest.begin(), rest.end(), '\n'));
  const bool ended = rest.back() == '\n';
  begun_ += newlines - (ended ? 1 : 0);
  inside_[stream] = !ended;
  if (!ended) number_[stream] = begun_ - 1;
  return sink(chunk.stream, rest);
}

}  // namespace runtime
