#include "guest/agent/process.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "guest/agent/limits.h"

namespace agent {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr size_t read_bytes_max = 64u << 10;
constexpr char end_of_input = 4;  // What a terminal makes of Ctrl-D.

}  // namespace

Process::~Process() {
  loop_.cancel(start_timer_);
  loop_.cancel(drain_timer_);
  if (report_fd_) loop_.forget(report_fd_.get());
  for (Stream& stream : streams_) close_stream(stream);
  close_stdin();
  budget_.held_bytes -= std::min(budget_.held_bytes, accounted_bytes_);
}

Result<> Process::start(const guest::ProcessConfig& config, const Place& place, int timeout_ms) {
  Launched launched = TRY(launch(config, place));
  pid_ = launched.pid;
  wants_terminal_ = config.terminal;
  stdin_open_ = config.stdin_open;
  report_fd_ = std::move(launched.report);
  stdin_ = std::move(launched.stdin_writer);
  if (place.join_pidfd < 0) watch_exit();
  const std::weak_ptr<Process> self = weak_from_this();
  start_timer_ = loop_.after_ms(timeout_ms, [self] {
    if (const auto process = self.lock()) process->on_start_timeout();
  });
  if (!config.terminal) {
    TRY(open_stream(streams_[0], std::move(launched.stdout_reader), guest::output_stream_stdout));
    TRY(open_stream(streams_[1], std::move(launched.stderr_reader), guest::output_stream_stderr));
  }
  return loop_.watch(report_fd_.get(), EPOLLIN, [self](uint32_t) {
    if (const auto process = self.lock()) process->on_report();
  });
}

void Process::watch_exit() {
  exit_watched_ = true;
  loop_.on_exit(pid_, [self = weak_from_this()](int status) {
    if (const auto process = self.lock()) process->on_exit(status);
  });
}

void Process::on_report() {
  if (const auto heard = read_report(report_fd_.get(), report_); !heard) {
    report_.result = heard;
    report_.done = true;
  }
  if (report_.pid > 0 && !exit_watched_) {
    pid_ = report_.pid;
    watch_exit();
    // It waits until somebody is there to hear of its end.
    (void)::send(report_fd_.get(), "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  if (report_.terminal)
    if (const auto taken = take_terminal(std::move(report_.terminal)); !taken)
      report_.result = taken;
  for (auto& [mount, socket] : report_.listening)
    if (calls_.listening) calls_.listening(mount, std::move(socket));
  report_.listening.clear();
  if (report_.done) finish_start();
}

void Process::on_start_timeout() {
  report_.result = fail(ErrorCode::Timeout, "the process was not running in time");
  ::kill(pid_, SIGKILL);
  finish_start();
}

void Process::finish_start() {
  if (started_ || ended_) return;
  loop_.cancel(start_timer_);
  loop_.forget(report_fd_.get());
  report_fd_.reset();
  const std::shared_ptr<Process> held = shared_from_this();
  if (!report_.result) {
    ended_ = true;
    for (Stream& stream : streams_) close_stream(stream);
    close_stdin();
    calls_.started(report_.result);
    wake_readers();
    return;
  }
  started_ = true;
  calls_.started(report_.result);
  maybe_end();
}

Result<> Process::open_stream(Stream& stream, UniqueFd fd, uint8_t number) {
  stream.fd = std::move(fd);
  stream.number = number;
  stream.paused = true;
  resume_reading();
  return {};
}

/// Two descriptors of one terminal, since each is watched for one thing.
Result<> Process::take_terminal(UniqueFd terminal) {
  TRY(base::set_nonblocking(terminal.get(), true));
  UniqueFd reader(::fcntl(terminal.get(), F_DUPFD_CLOEXEC, 3));
  if (!reader) return fail_errno(errno, "duplicate the terminal");
  if (stdin_open_) {
    stdin_.reset(::fcntl(terminal.get(), F_DUPFD_CLOEXEC, 3));
    if (!stdin_) return fail_errno(errno, "duplicate the terminal");
  }
  terminal_ = std::move(terminal);
  TRY(open_stream(streams_[0], std::move(reader), guest::output_stream_stdout));
  flush_stdin();
  return {};
}

size_t Process::room() const {
  size_t room = ring_.room();
  if (budget_.held_bytes >= limits::output_total_bytes_max)
    room = std::min(room, limits::output_share_bytes -
                              std::min(limits::output_share_bytes, ring_.held_bytes()));
  return std::min(room, read_bytes_max);
}

void Process::account() {
  budget_.held_bytes -= std::min(budget_.held_bytes, accounted_bytes_);
  accounted_bytes_ = ring_.held_bytes();
  budget_.held_bytes += accounted_bytes_;
}

void Process::pump(Stream& stream) {
  const size_t wanted = room();
  if (wanted == 0) {
    loop_.forget(stream.fd.get());
    stream.paused = true;
    return;
  }
  std::string bytes(wanted, '\0');
  const ssize_t count = ::read(stream.fd.get(), bytes.data(), bytes.size());
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (count > 0) {
    ring_.append(stream.number, std::string_view(bytes).substr(0, static_cast<size_t>(count)));
    if (discarding_) (void)ring_.acknowledge(ring_.end());
    account();
    if (calls_.output) calls_.output();
    wake_readers();
    return;
  }
  close_stream(stream);  // A terminal ends with EIO.
  maybe_end();
}

void Process::close_stream(Stream& stream) {
  if (!stream.fd) return;
  loop_.forget(stream.fd.get());
  stream.fd.reset();
}

void Process::resume_reading() {
  for (Stream& stream : streams_) {
    if (!stream.fd || !stream.paused || room() == 0) continue;
    const auto watched =
        loop_.watch(stream.fd.get(), EPOLLIN, [self = weak_from_this(), which = &stream](uint32_t) {
          if (const auto process = self.lock()) process->pump(*which);
        });
    if (watched) stream.paused = false;
  }
}

Result<> Process::acknowledge(uint64_t offset) {
  TRY(ring_.acknowledge(offset));
  account();
  resume_reading();
  return {};
}

void Process::discard_output() {
  discarding_ = true;
  (void)acknowledge(ring_.end());  // Its own end is always reached.
}

void Process::on_exit(int wait_status) {
  exit_status_ = wait_status;
  close_stdin();
  await_drain();
  maybe_end();
}

void Process::await_drain() {
  drain_timer_ = loop_.after_ms(limits::output_drain_ms, [self = weak_from_this()] {
    const auto process = self.lock();
    if (!process || process->ended_) return;
    const bool waits_for_host =
        std::any_of(process->streams_.begin(), process->streams_.end(),
                    [](const Stream& stream) { return stream.fd && stream.paused; });
    if (waits_for_host) return process->await_drain();  // Nothing may be lost.
    process->drained_ = true;
    process->maybe_end();
  });
}

void Process::maybe_end() {
  if (ended_ || !started_ || !exit_status_) return;
  const bool open = std::any_of(streams_.begin(), streams_.end(),
                                [](const Stream& stream) { return bool(stream.fd); });
  if (open && !drained_) return;
  ended_ = true;
  for (Stream& stream : streams_) close_stream(stream);
  const std::shared_ptr<Process> held = shared_from_this();
  calls_.ended(*exit_status_);
  wake_readers();
}

void Process::wake_readers() {
  std::erase_if(readers_, [](const auto& reader) { return reader.expired(); });
  for (const auto& reader : readers_)
    if (const auto reply = reader.lock()) reply->resume();
}

Result<> Process::signal(int number, bool whole_group) {
  if (pid_ <= 0 || exit_status_ || ended_)
    return fail(ErrorCode::InvalidState, "the process is not running");
  if (number < 1 || number > SIGRTMAX)
    return fail(ErrorCode::InvalidArgument, "there is no signal {}", number);
  if (::kill(whole_group ? -pid_ : pid_, number) != 0 && errno != ESRCH)
    return fail_errno(errno, fmt::format("send signal {}", number));
  return {};
}

Result<> Process::resize(uint16_t rows, uint16_t columns) {
  if (!terminal_) return fail(ErrorCode::InvalidState, "the process has no terminal");
  const winsize size{rows, columns, 0, 0};
  if (::ioctl(terminal_.get(), TIOCSWINSZ, &size) != 0)
    return fail_errno(errno, "resize the terminal");
  return {};
}

void Process::write_stdin(std::string_view bytes, const ReplyPtr& reply) {
  if (!stdin_open_ || ended_ || stdin_ending_) {
    reply->consumed(bytes.size());
    return;
  }
  input_.push_back({std::string(bytes), 0, reply});
  flush_stdin();
}

void Process::end_stdin() {
  if (stdin_ending_) return;
  stdin_ending_ = true;
  flush_stdin();
}

void Process::flush_stdin() {
  if (!stdin_ && wants_terminal_ && !started_ && !ended_) return;  // It comes with the report.
  while (!input_.empty() && stdin_) {
    Input& first = input_.front();
    const ssize_t count =
        ::write(stdin_.get(), first.bytes.data() + first.used, first.bytes.size() - first.used);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      if (stdin_watched_) return;
      stdin_watched_ =
          bool(loop_.watch(stdin_.get(), EPOLLOUT, [self = weak_from_this()](uint32_t) {
            const auto process = self.lock();
            if (!process) return;
            process->loop_.forget(process->stdin_.get());
            process->stdin_watched_ = false;
            process->flush_stdin();
          }));
      return;
    }
    if (count < 0) return close_stdin();  // Nobody reads it any more.
    first.used += static_cast<size_t>(count);
    first.reply->consumed(static_cast<size_t>(count));
    if (first.used == first.bytes.size()) input_.pop_front();
  }
  if (!stdin_ending_ || !stdin_) return;
  if (wants_terminal_) (void)!::write(stdin_.get(), &end_of_input, 1);
  close_stdin();
}

void Process::close_stdin() {
  for (const Input& each : input_) each.reply->consumed(each.bytes.size() - each.used);
  input_.clear();
  stdin_ending_ = true;
  if (!stdin_) return;
  if (std::exchange(stdin_watched_, false)) loop_.forget(stdin_.get());
  stdin_.reset();
}

}  // namespace agent
