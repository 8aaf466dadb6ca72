#pragma once
/// One process of the container, from its start until its output is stored by the host.
///
/// Its pipes (or its terminal) are read into an OutputRing while there is room, and left alone when
/// there is none, so that the process itself waits. The end is told once: after the exit, and after
/// the pipes have closed or a descendant has held them open for `output_drain_ms`.

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "guest/agent/launch.h"
#include "guest/agent/loop.h"
#include "guest/agent/output_ring.h"
#include "guest/agent/session.h"

namespace agent {

/// Memory that the output of all processes takes together.
struct OutputBudget {
  size_t held_bytes = 0;
};

class Process : public std::enable_shared_from_this<Process> {
 public:
  struct Calls {
    std::function<void(const base::Result<>&)> started;
    std::function<void(int wait_status)> ended;
    std::function<void()> output;  ///< More of it is in the ring. May be empty.
    /// The process has a socket that others serve (Report::listening). May be empty.
    std::function<void(size_t mount, base::UniqueFd socket)> listening;
  };

  Process(Loop& loop, OutputBudget& budget, Calls calls)
      : loop_(loop), budget_(budget), calls_(std::move(calls)) {}
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// `calls.started` follows unless this fails.
  base::Result<> start(const guest::ProcessConfig& config, const Place& place, int timeout_ms);

  pid_t pid() const { return pid_; }
  bool started() const { return started_; }
  bool ended() const { return ended_; }
  int wait_status() const { return exit_status_.value_or(0); }
  const OutputRing& output() const { return ring_; }

  base::Result<> acknowledge(uint64_t offset);
  /// Nobody is going to read its output: what there is and what comes is thrown away.
  void discard_output();
  bool discards_output() const { return discarding_; }
  /// Goes on reading if it was stopped for want of room.
  void resume_reading();
  /// To the process alone, or to its whole process group.
  base::Result<> signal(int number, bool whole_group = false);
  base::Result<> resize(uint16_t rows, uint16_t columns);
  void write_stdin(std::string_view bytes, const ReplyPtr& reply);
  void end_stdin();
  /// `reply` is resumed whenever there is more output, and at the end.
  void add_reader(const ReplyPtr& reply) { readers_.push_back(reply); }

 private:
  struct Stream {
    base::UniqueFd fd;
    uint8_t number = 0;
    bool paused = false;
  };
  struct Input {
    std::string bytes;
    size_t used = 0;
    ReplyPtr reply;
  };

  base::Result<> open_stream(Stream& stream, base::UniqueFd fd, uint8_t number);
  base::Result<> take_terminal(base::UniqueFd terminal);
  void watch_exit();
  void on_report();
  void on_start_timeout();
  void finish_start();
  void pump(Stream& stream);
  void close_stream(Stream& stream);
  size_t room() const;
  void account();
  void on_exit(int wait_status);
  void await_drain();
  void maybe_end();
  void flush_stdin();
  void close_stdin();
  void wake_readers();

  Loop& loop_;
  OutputBudget& budget_;
  Calls calls_;
  pid_t pid_ = -1;
  base::UniqueFd report_fd_;
  Report report_;
  Timer start_timer_ = 0;
  Timer drain_timer_ = 0;
  bool exit_watched_ = false;
  bool started_ = false;
  bool drained_ = false;
  bool ended_ = false;
  bool discarding_ = false;
  std::optional<int> exit_status_;

  OutputRing ring_;
  size_t accounted_bytes_ = 0;
  std::array<Stream, 2> streams_;
  std::vector<std::weak_ptr<Reply>> readers_;

  base::UniqueFd terminal_;
  base::UniqueFd stdin_;
  bool wants_terminal_ = false;
  bool stdin_open_ = false;
  bool stdin_ending_ = false;
  bool stdin_watched_ = false;
  std::deque<Input> input_;
};

}  // namespace agent
