#include "cli/process_link.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <optional>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "api/wire.h"
#include "base/deadline.h"
#include "base/json.h"
#include "base/limits.h"
#include "cli/console.h"

namespace cli {
namespace {

using api::Frame;
using api::FrameKind;
using base::ErrorCode;
using base::Result;
namespace limits = base::limits;

/// A pipe that poll() calls writable takes this much without blocking.
constexpr size_t pipe_piece_bytes = 4096;

class Link {
 public:
  Link(Upgraded connection, SignalQueue& signals, const LinkOptions& options)
      : connection_(std::move(connection)), signals_(signals), options_(options) {}

  Result<int> run() {
    if (options_.starting != nullptr) start_.emplace(Show::Nothing);
    awaits_start_ = options_.awaits_start;
    // Raw only from the start on: until then Ctrl-C is ours.
    if (!is_starting()) begin_terminal();
    if (options_.terminal) send_size();
    decoder_.feed(std::exchange(connection_.first_bytes, {}));
    TRY(take_frames());
    for (;;) {
      if (std::exchange(has_started_, false) && options_.on_started) TRY(options_.on_started());
      if (failed_start_) return tl::unexpected<base::Error>(std::move(*failed_start_));
      if (gave_up_) return give_up();
      if (ended() && (!start_ || last_word_.passed())) break;
      TRY(wait());
    }
    if (problem_) return tl::unexpected<base::Error>(std::move(*problem_));
    return reader_left_ ? 128 + SIGPIPE : exit_code_.value_or(1);
  }

 private:
  enum Slot : size_t { Socket, Stdin, Signals, Start, Output, slot_count };

  bool is_starting() const { return start_ || awaits_start_; }
  /// Nothing more will come, and all that came is written.
  bool ended() const { return (exit_code_ || problem_) && output_.empty(); }

  std::array<pollfd, slot_count> wishes() const {
    const int from_socket = !ended_socket_ && output_.empty() ? POLLIN : 0;
    const int to_socket = outgoing_.empty() || ended_socket_ ? 0 : POLLOUT;
    const auto events = static_cast<short>(from_socket | to_socket);
    const bool reads_stdin = options_.stdin_open && !is_starting() && !stdin_ended_ &&
                             !ended_socket_ &&
                             outgoing_.size() < limits::cli_stdin_unsent_bytes_max;
    const auto slot = [](bool wanted, int fd, short what) {
      return pollfd{.fd = wanted ? fd : -1, .events = what, .revents = 0};
    };
    return {slot(events != 0, connection_.socket.get(), events),
            slot(reads_stdin, STDIN_FILENO, POLLIN), slot(true, signals_.event(), POLLIN),
            slot(start_.has_value(), start_ ? options_.starting->event() : -1, POLLIN),
            slot(!output_.empty(), output_fd_, POLLOUT)};
  }

  int timeout_ms() const {
    int wait = -1;
    if (start_) wait = last_word_.remaining_ms();
    const int kill = kill_.remaining_ms();
    return wait < 0 || (kill >= 0 && kill < wait) ? kill : wait;
  }

  Result<> wait() {
    std::array<pollfd, slot_count> slots = wishes();
    const int ready = ::poll(slots.data(), slots.size(), timeout_ms());
    if (ready < 0 && errno != EINTR) return base::fail_errno(errno, "wait for the container");
    if (kill_.passed()) {
      kill_ = base::Deadline::never();
      send_signal(SIGKILL);
    }
    if (ready <= 0) return {};
    if (slots[Output].revents != 0) write_output();
    if (slots[Signals].revents != 0) take_signals();
    if (slots[Start].revents != 0) TRY(take_start());
    if (slots[Stdin].revents != 0) take_stdin();
    if ((slots[Socket].revents & POLLOUT) != 0) send_outgoing();
    if ((slots[Socket].revents & ~POLLOUT) != 0) TRY(receive());
    return take_frames();
  }

  // ---- what the daemon says ----------------------------------------------------------------

  Result<> receive() {
    char buffer[64 * 1024];
    const ssize_t count = ::recv(connection_.socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (count > 0) {
      decoder_.feed(std::string_view(buffer, static_cast<size_t>(count)));
      return {};
    }
    ended_socket_ = true;
    if (!exit_code_ && !problem_)
      set_problem({ErrorCode::Io,
                   "the daemon went away; the container runs on, and `container system start` "
                   "makes it reachable again"});
    return {};
  }

  /// Decodes only what can be shown at once; the rest waits in the socket.
  Result<> take_frames() {
    while (output_.empty()) {
      std::optional<Frame> frame = TRY_DURING(decoder_.next(), "understand the daemon");
      if (!frame) return {};
      take_frame(std::move(*frame));
    }
    return {};
  }

  void take_frame(Frame frame) {
    switch (frame.kind) {
      case FrameKind::Stdout: return show(STDOUT_FILENO, std::move(frame.payload));
      case FrameKind::Stderr: return show(STDERR_FILENO, std::move(frame.payload));
      case FrameKind::Started: return note_start();
      case FrameKind::Notice: return show_notice(frame.payload);
      case FrameKind::Exit: {
        if (awaits_start_) note_start();  // What has ended had begun.
        const auto exit = base::parse_json(frame.payload);
        exit_code_ = exit ? static_cast<int>(base::json_int_or(*exit, "exit_code", 1)) : 1;
        break;
      }
      case FrameKind::Failure: {
        const auto failure = base::parse_json(frame.payload);
        if (failure)
          set_problem({base::error_code_from_name(base::json_string_or(*failure, "code", "")),
                       base::json_string_or(*failure, "message", "the process failed")});
        else
          set_problem(failure.error());
        break;
      }
      case FrameKind::Stdin:
      case FrameKind::StdinEnd:
      case FrameKind::Resize:
      case FrameKind::Signal: return;  // Ours to send; harmless to hear.
    }
    // The plan's own words come by another way; they may be a moment later.
    ended_socket_ = true;
    last_word_ = base::Deadline::in_ms(limits::cli_last_word_timeout_ms);
  }

  void note_start() {
    if (!std::exchange(awaits_start_, false)) return;
    has_started_ = true;
    begin_terminal();
  }

  void set_problem(base::Error problem) {
    problem_ = std::move(problem);
    last_word_ = base::Deadline::in_ms(limits::cli_last_word_timeout_ms);
  }

  // ---- what we show ------------------------------------------------------------------------

  void show(int fd, std::string bytes) {
    if (fd == STDOUT_FILENO ? reader_left_ : stderr_left_) return;
    output_ = std::move(bytes);
    output_fd_ = fd;
    written_ = 0;
  }

  /// A terminal that passes every key on does not return the carriage by itself either.
  void show_notice(const std::string& payload) {
    const auto notice = base::parse_json(payload);
    const std::string text = notice ? base::json_string_or(*notice, "text", "") : "";
    const char* end = terminal_.is_raw() ? "\r\n" : "\n";
    show(STDERR_FILENO,
         fmt::format("{0}Warning: {1}{2}", terminal_.is_raw() ? end : "", printable(text), end));
  }

  void write_output() {
    const std::string_view piece = std::string_view(output_).substr(written_, pipe_piece_bytes);
    const ssize_t count = ::write(output_fd_, piece.data(), piece.size());
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count < 0) {
      output_.clear();
      return output_fd_ == STDOUT_FILENO ? lose_reader() : void(stderr_left_ = true);
    }
    written_ += static_cast<size_t>(count);
    if (written_ == output_.size()) output_.clear();
  }

  /// As in a pipeline of local programs: who writes for nobody ends.
  void lose_reader() {
    reader_left_ = true;
    send_signal(SIGPIPE);
    kill_ = base::Deadline::in_ms(limits::cli_reader_left_grace_ms);
  }

  // ---- what we send ------------------------------------------------------------------------

  void send_frame(FrameKind kind, std::string_view payload) {
    if (!ended_socket_) api::append_frame(outgoing_, kind, payload);
  }
  void send_signal(int number) {
    send_frame(FrameKind::Signal, base::dump_json({{"signal", number}}));
  }
  void send_size() {
    const TerminalSize size = terminal_size();
    send_frame(FrameKind::Resize,
               base::dump_json({{"rows", size.rows}, {"columns", size.columns}}));
  }

  void send_outgoing() {
    const ssize_t count = ::send(connection_.socket.get(), outgoing_.data(), outgoing_.size(),
                                 MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count > 0) outgoing_.erase(0, static_cast<size_t>(count));
    // The other end has heard enough; what it has to say can still be read.
    if (count < 0 && errno != EAGAIN && errno != EINTR) {
      outgoing_.clear();
      stdin_ended_ = true;
    }
  }

  void take_stdin() {
    char buffer[32 * 1024];
    const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count > 0)
      return send_frame(FrameKind::Stdin, std::string_view(buffer, static_cast<size_t>(count)));
    stdin_ended_ = true;
    send_frame(FrameKind::StdinEnd, "");
  }

  void take_signals() {
    while (const std::optional<int> number = signals_.take()) {
      if (*number == SIGWINCH || *number == SIGCONT) {
        if (*number == SIGCONT && !is_starting()) begin_terminal();
        if (options_.terminal) send_size();
        continue;
      }
      const bool asks_to_end = *number == SIGINT || *number == SIGTERM;
      if (asks_to_end && ++requests_to_end_ == limits::cli_signals_to_give_up) gave_up_ = true;
      send_signal(*number);
    }
  }

  void begin_terminal() {
    if (options_.terminal && options_.stdin_open) terminal_.enter();
  }

  Result<int> give_up() {
    terminal_.leave();
    return base::fail(ErrorCode::Cancelled,
                      "given up after {} signals; the container may run on: `container ls`, "
                      "`container kill`",
                      limits::cli_signals_to_give_up);
  }

  // ---- the start ---------------------------------------------------------------------------

  Result<> take_start() {
    for (const std::string& line : options_.starting->take()) TRY(start_->take(line));
    const std::optional<Result<>> outcome = options_.starting->outcome();
    if (!outcome) return {};
    Result<Applied> applied = start_->finish();
    start_.reset();
    if (!applied)
      failed_start_ = outcome->has_value() ? applied.error() : outcome->error();
    else if (applied->problem)
      failed_start_ = std::move(applied->problem);
    if (failed_start_) return {};
    has_started_ = true;
    begin_terminal();
    return {};
  }

  Upgraded connection_;
  SignalQueue& signals_;
  const LinkOptions options_;
  RawTerminal terminal_;
  std::optional<ApplyReader> start_;
  api::FrameDecoder decoder_;

  std::string output_;  ///< Of one frame, being written.
  int output_fd_ = -1;
  size_t written_ = 0;
  std::string outgoing_;
  bool stdin_ended_ = false;
  bool ended_socket_ = false;
  bool reader_left_ = false;
  bool stderr_left_ = false;
  bool gave_up_ = false;
  bool awaits_start_ = false;
  bool has_started_ = false;  ///< And nobody has been told.
  int requests_to_end_ = 0;
  std::optional<int> exit_code_;
  std::optional<base::Error> problem_;
  std::optional<base::Error> failed_start_;
  base::Deadline last_word_ = base::Deadline::never();
  base::Deadline kill_ = base::Deadline::never();
};

}  // namespace

Result<SignalQueue> link_signals() {
  return SignalQueue::open({SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT});
}

Result<int> talk(Upgraded connection, SignalQueue& signals, const LinkOptions& options) {
  return Link(std::move(connection), signals, options).run();
}

}  // namespace cli
