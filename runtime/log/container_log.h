#pragma once
/// A container's output on disk, written as it arrives, read by any number of readers.
///
/// Segments hold records (stream, time, offset, bytes) and are rotated: the oldest goes when there
/// are `limits::log_segments_max`. Records of one start of the container form a run, which begins
/// with a segment of its own. What `append` has returned for is written: it survives this process,
/// and only then may the guest forget it.
///
/// Two kinds of readers. A follower loses what rotation drops before it came. An attached reader
/// loses nothing: while it still needs the oldest segment, `append` waits, and so, in the end, does
/// the process in the guest.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/result.h"

namespace runtime {

struct LogLimits {
  uint64_t segment_bytes_max = base::limits::log_segment_bytes_max;
  uint32_t segments_max = base::limits::log_segments_max;
};

/// How a run ended, for those attached to it.
struct RunEnd {
  std::optional<int32_t> exit_code;
  std::string error;  ///< If there is no exit code.
};

struct LogChunk {
  int stream = 1;
  int64_t wall_ns = 0;
  std::string bytes;
};

enum class LogStart {
  Oldest,  ///< All that is kept, of every run.
  Run,     ///< From the first byte of the current run, or of the next if none goes on.
  Now,     ///< What comes after this moment.
};
enum class LogReaderKind { Follower, Attached };

class LogReader;

class ContainerLog : public std::enable_shared_from_this<ContainerLog> {
 public:
  static base::Result<std::shared_ptr<ContainerLog>> open(const std::string& folder,
                                                          LogLimits limits = {});

  /// Starts a run (`run` names it: the VM's uuid), or goes on with it after a restart of ours.
  /// Returns how many of the run's bytes are stored already.
  base::Result<uint64_t> begin_run(const std::string& run);
  /// Stores bytes that begin at `offset` of the run's combined output; what is stored already is
  /// skipped. May block for attached readers, until `let_go` or `end_run`.
  base::Result<> append(int stream, uint64_t offset, int64_t wall_ns, std::string_view bytes);
  void end_run(RunEnd end);
  /// Attached readers hold nothing back any more (the container must end now).
  void let_go();
  /// Deletes the files. Readers keep what is open.
  base::Result<> erase();

  std::unique_ptr<LogReader> read(LogStart start, LogReaderKind kind);
  bool run_goes_on() const;

 private:
  friend class LogReader;
  struct Segment {
    uint64_t number = 0;
    std::string path;
    std::string run;
    bool starts_mid_line = false;
    base::UniqueFd fd;
    uint64_t bytes = 0;  ///< Written and complete; guarded by the log's mutex.
  };
  using SegmentPtr = std::shared_ptr<Segment>;

  ContainerLog(std::string folder, LogLimits limits)
      : folder_(std::move(folder)), limits_(limits) {}
  base::Result<> load();
  base::Result<SegmentPtr> load_segment(const std::string& name, uint64_t number);
  base::Result<SegmentPtr> new_segment(const std::string& run);
  base::Result<> rotate(std::unique_lock<std::mutex>& lock);
  void drop_oldest();
  bool oldest_is_held() const;

  const std::string folder_;
  const LogLimits limits_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<SegmentPtr> segments_;
  std::set<LogReader*> attached_;
  std::string run_;
  uint64_t run_first_segment_ = 0;
  uint64_t stored_ = 0;      ///< Bytes of the run.
  uint64_t runs_begun_ = 0;  ///< Since we opened the log.
  bool running_ = false;
  bool held_ = true;
  bool ends_mid_line_ = false;
  bool erased_ = false;
  RunEnd last_end_;
};

class LogReader {
 public:
  ~LogReader();
  LogReader(const LogReader&) = delete;
  LogReader& operator=(const LogReader&) = delete;

  enum class Wait { Never, ForRunEnd };
  /// The next piece; nullopt at the end (with Wait::ForRunEnd: after the run's end). Asks
  /// `cancelled` at least every 200 ms while it waits, and returns Cancelled if so.
  base::Result<std::optional<LogChunk>> next(Wait wait, const std::function<bool()>& cancelled);
  /// How the awaited run ended; after next() returned nullopt with Wait::ForRunEnd.
  RunEnd end() const;

 private:
  friend class ContainerLog;
  explicit LogReader(std::shared_ptr<ContainerLog> log) : log_(std::move(log)) {}
  /// Finds where to read on, under the log's mutex; nullptr if there is nothing now.
  ContainerLog::SegmentPtr locate();
  base::Result<std::optional<LogChunk>> read_record(const ContainerLog::SegmentPtr& segment);
  bool over() const;

  std::shared_ptr<ContainerLog> log_;
  bool attached_ = false;
  uint64_t awaits_run_ = 0;  ///< Value of runs_begun_ from which on there is something to read.
  bool from_run_start_ = false;
  uint64_t segment_ = 0;
  uint64_t position_ = 0;
  bool drop_partial_[3] = {false, false, false};
};

/// Gives the last `lines` lines (all if absent) of what is stored now to `sink`.
using LogSink = std::function<bool(int stream, std::string_view bytes)>;
/// Number of lines begun so far, by reading once through.
base::Result<uint64_t> count_lines(LogReader& reader, const std::function<bool()>& cancelled);

/// Passes only bytes of lines numbered `first` and up, counting begun lines over both streams.
class LineFilter {
 public:
  explicit LineFilter(uint64_t first) : first_(first) {}
  /// False if `sink` refused.
  bool pass(const LogChunk& chunk, const LogSink& sink);
  uint64_t begun() const { return begun_; }

 private:
  uint64_t first_;
  uint64_t begun_ = 0;
  bool inside_[3] = {false, false, false};
  uint64_t number_[3] = {0, 0, 0};
};

}  // namespace runtime
