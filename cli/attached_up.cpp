#include "cli/attached_up.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "api/wire.h"
#include "base/deadline.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "cli/apply.h"
#include "cli/console.h"
#include "cli/file_watch.h"
#include "cli/line_stream.h"
#include "cli/terminal.h"
#include "planner/snapshot.h"

namespace cli {
namespace {

using api::FrameKind;
using base::ErrorCode;
using base::Result;
using nlohmann::json;
namespace limits = base::limits;

constexpr std::array<const char*, 6> colours = {"\x1b[36m", "\x1b[33m", "\x1b[32m",
                                                "\x1b[35m", "\x1b[34m", "\x1b[96m"};
/// After the last container has ended: for lines on their way, and for a restart to be told.
constexpr int drain_ms = 500;

/// One container's connection and its half lines.
struct Source {
  base::UniqueFd socket;
  api::FrameDecoder decoder;
  PrefixedLines out;
  PrefixedLines err;
  bool has_shown = false;  ///< Something of its run.
};

class AttachedUp {
 public:
  AttachedUp(const Context& context, AttachedOptions options, SignalQueue signals)
      : context_(context), options_(std::move(options)), signals_(std::move(signals)) {}

  Result<int> run() {
    Request request;
    request.target = "/v1/notices?project=" + percent_encode(options_.project);
    notices_ = TRY(LineStream::open(context_.client, std::move(request)));
    if (!options_.watched.empty()) {
      watch_.emplace(TRY(FileWatch::open()));
      TRY(watch_->set(options_.watched));
    }
    TRY(begin(std::move(options_.first)));
    while (!exit_code_) TRY(turn());
    return *exit_code_;
  }

 private:
  enum class Stage { Working, Showing, Stopping };

  // ---- rounds ------------------------------------------------------------------------------

  Result<> begin(Round round) {
    shown_ = std::move(round.services);
    notes_told_ = false;
    waiting_ = std::move(round.commands);
    std::reverse(waiting_.begin(), waiting_.end());
    stage_ = Stage::Working;
    settle_ = base::Deadline::never();
    return next_command();
  }

  Result<> next_command() {
    TRY(attach_all());
    const json command = std::move(waiting_.back());
    waiting_.pop_back();
    return carry_out(command);
  }

  Result<> carry_out(const json& command) {
    // The second half of an `up` warns of the same as the first.
    reader_.emplace(std::exchange(notes_told_, true) ? Show::Steps : Show::StepsAndNotes);
    job_.reset();
    job_ = TRY(LineStream::open(context_.client, apply_request(command)));
    return {};
  }

  Result<> take_job() {
    for (const std::string& line : job_->take()) TRY(reader_->take(line));
    const std::optional<Result<>> outcome = job_->outcome();
    if (!outcome) return {};
    job_.reset();
    Result<Applied> applied = reader_->finish();
    if (!applied && !*outcome) applied = tl::unexpected<base::Error>(outcome->error());
    if (applied && applied->problem)
      applied = tl::unexpected<base::Error>(std::move(*applied->problem));
    if (stage_ == Stage::Stopping) return stopped(applied);
    if (!applied) return round_failed(std::move(applied.error()));
    if (!waiting_.empty()) return next_command();
    TRY(attach_all());
    stage_ = Stage::Showing;
    was_up_ = true;
    if (sources_.empty() && !watch_) exit_code_ = 0;
    consider_end();
    return {};
  }

  /// What already ran goes on running; an `up` of files that are watched waits for better ones.
  Result<> round_failed(base::Error error) {
    waiting_.clear();
    if (!watch_ || !was_up_) return tl::unexpected<base::Error>(std::move(error));
    tell_error(error);
    stage_ = Stage::Showing;
    return {};
  }

  Result<> stopped(const Result<Applied>& applied) {
    if (!applied && !killed_) return tl::unexpected<base::Error>(applied.error());
    constexpr int exit_interrupted = 130;
    exit_code_ = killed_ ? exit_interrupted : 0;
    return drain();
  }

  // ---- one turn of the loop ----------------------------------------------------------------

  Result<> turn() {
    std::vector<pollfd> slots;
    const auto add = [&](int fd) { slots.push_back({.fd = fd, .events = POLLIN, .revents = 0}); };
    add(signals_.event());
    add(notices_->event());
    add(job_ ? job_->event() : -1);
    add(watch_ ? watch_->event() : -1);
    std::vector<std::string> ids;
    for (const auto& [id, source] : sources_) {
      add(source.socket.get());
      ids.push_back(id);
    }
    const int ready = ::poll(slots.data(), slots.size(), timeout_ms());
    if (ready < 0 && errno != EINTR) return base::fail_errno(errno, "wait for the services");
    if (ready > 0) {
      // Notices first: what a run's end means depends on whether its beginning is known.
      if (slots[1].revents != 0) TRY(take_notices());
      constexpr size_t first_source = 4;
      for (size_t i = 0; i < ids.size(); ++i)
        if (slots[first_source + i].revents != 0) TRY(take_output(ids[i]));
      if (slots[2].revents != 0 && job_) TRY(take_job());
      if (slots[3].revents != 0) take_changes();
      if (slots[0].revents != 0) TRY(take_signals());
    }
    return check_deadlines();
  }

  int timeout_ms() const {
    const int settle = settle_.remaining_ms();
    const int quiet = quiet_.remaining_ms();
    if (settle < 0 || quiet < 0) return std::max(settle, quiet);
    return std::min(settle, quiet);
  }

  Result<> check_deadlines() {
    if (settle_.passed()) {
      settle_ = base::Deadline::never();
      if (all_ended()) exit_code_ = 0;
    }
    if (!quiet_.passed() || stage_ != Stage::Showing) return {};
    quiet_ = base::Deadline::never();
    tell("The stack's files have changed.\n");
    std::optional<Round> round = options_.again(options_.watched);
    TRY(watch_->set(options_.watched));
    return round ? begin(std::move(*round)) : Result<>();
  }

  void take_changes() {
    if (watch_->take()) quiet_ = base::Deadline::in_ms(limits::cli_watch_quiet_ms);
  }

  // ---- notices -----------------------------------------------------------------------------

  Result<> take_notices() {
    for (const std::string& line : notices_->take()) {
      const json notice = TRY_DURING(base::parse_json(line), "understand the daemon");
      const std::string type = base::json_string_or(notice, "type", "");
      const auto container = notice.find("container");
      if (container == notice.end() || !container->is_object()) continue;
      const std::string id = base::json_string_or(*container, "id", "");
      if (!is_shown(base::json_string_or(*container, "service", ""))) continue;
      if (type == "paused")
        tell_between(
            fmt::format("{} is paused: {}\n", printable_line(short_name(id)),
                        printable_line(base::json_string_or(*container, "paused_reason", ""))));
      if (type == "resumed")
        tell_between(fmt::format("{} goes on\n", printable_line(short_name(id))));
      TRY(take_notice(type, id));
    }
    if (notices_->outcome() && stage_ != Stage::Stopping)
      return base::fail(ErrorCode::Io,
                        "the daemon went away; the services run on, and `container system start` "
                        "makes them reachable again");
    consider_end();
    return {};
  }

  Result<> take_notice(const std::string& type, const std::string& id) {
    if (type == "exited" || type == "removed") ended_.insert(id);
    if (type == "restarting" || type == "started") ended_.erase(id);
    if (type == "removed") untold_exits_.erase(id);
    return type == "started" ? run_began(id) : Result<>();
  }

  Result<> run_began(const std::string& id) {
    int& runs = untold_runs_[id];
    runs = std::min(runs + 1, 1);
    if (const auto exit = untold_exits_.find(id); exit != untold_exits_.end()) {
      tell_exit(id, exit->second);
      untold_exits_.erase(exit);
    }
    return sources_.contains(id) ? Result<>() : attach(id, true);
  }

  bool is_shown(const std::string& service) const {
    return shown_.empty() || shown_.contains(service);
  }

  bool all_ended() const {
    return stage_ == Stage::Showing && !watch_ && !known_.empty() &&
           std::all_of(known_.begin(), known_.end(),
                       [&](const std::string& id) { return ended_.contains(id); });
  }

  void consider_end() {
    if (all_ended() && settle_.is_never()) settle_ = base::Deadline::in_ms(drain_ms);
  }

  // ---- output ------------------------------------------------------------------------------

  /// To every container of the project that is shown and not attached yet.
  Result<> attach_all() {
    const json records = TRY(ask(context_, "/v1/containers?all=1"));
    for (const json& entry : records) {
      const planner::ContainerRecord record =
          TRY_DURING(planner::container_record_from_json(entry), "understand the daemon");
      if (record.project != options_.project || record.one_off || !is_shown(record.service))
        continue;
      if (known_.insert(record.id).second && record.phase == planner::Phase::Exited)
        ended_.insert(record.id);
      if (record.phase == planner::Phase::Running) untold_runs_[record.id] = 1;
      if (!sources_.contains(record.id))
        TRY(attach(record.id, record.phase != planner::Phase::Running));
    }
    return {};
  }

  Result<> attach(const std::string& id, bool from_start) {
    Request request;
    request.method = "POST";
    request.target = fmt::format("/v1/containers/{}/attach?from_start={}", percent_encode(id),
                                 from_start ? 1 : 0);
    request.upgrade = std::string(api::upgrade_protocol);
    Result<Upgraded> connection = context_.client.upgrade(request);
    // Gone meanwhile: a notice says so, and of the next one with its name as well.
    if (!connection) return {};
    const std::string name = short_name(id);
    const bool out_colour = wants_colour(STDOUT_FILENO);
    const bool err_colour = wants_colour(STDERR_FILENO);
    const auto place = colour_of_.emplace(id, colour_of_.size() % colours.size()).first;
    const char* colour = colours[place->second];
    name_width_ = std::max(name_width_, name.size());
    Source source{
        .socket = std::move(connection->socket),
        .decoder = {},
        .out = PrefixedLines(name, out_colour ? colour : "", ::isatty(STDOUT_FILENO) == 1),
        .err = PrefixedLines(name, err_colour ? colour : "", ::isatty(STDERR_FILENO) == 1)};
    source.decoder.feed(connection->first_bytes);
    sources_.emplace(id, std::move(source));
    return show_frames(id);
  }

  std::string short_name(const std::string& id) const {
    const std::string prefix = options_.project + "-";
    return id.starts_with(prefix) ? id.substr(prefix.size()) : id;
  }

  Result<> take_output(const std::string& id) {
    const auto found = sources_.find(id);
    if (found == sources_.end()) return {};
    char buffer[64 * 1024];
    const ssize_t count = ::recv(found->second.socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (count <= 0) return detach(id);
    found->second.decoder.feed(std::string_view(buffer, static_cast<size_t>(count)));
    return show_frames(id);
  }

  Result<> show_frames(const std::string& id) {
    Source& source = sources_.at(id);
    while (const auto frame = TRY_DURING(source.decoder.next(), "understand the daemon")) {
      source.has_shown =
          source.has_shown || frame->kind == FrameKind::Stdout || frame->kind == FrameKind::Stderr;
      if (frame->kind == FrameKind::Stdout) {
        TRY(show(source.out.feed(frame->payload, name_width_)));
      } else if (frame->kind == FrameKind::Stderr) {
        tell_between(source.err.feed(frame->payload, name_width_));
      } else if (frame->kind == FrameKind::Exit) {
        return run_ended(id, frame->payload);
      } else if (frame->kind == FrameKind::Failure) {
        return detach(id);
      }
      // What a `Notice` says, the notices of the project say as well.
    }
    return {};
  }

  /// Waits for the container's next run at once, so that a restart misses nothing. An end without a
  /// known beginning is either one that came before its notice, or the last one told again because
  /// the container is being removed: the notice of a beginning, or of the removal, decides.
  Result<> run_ended(const std::string& id, const std::string& payload) {
    const Result<json> exit = base::parse_json(payload);
    const int64_t code = exit ? base::json_int_or(*exit, "exit_code", 1) : 1;
    const bool has_begun = sources_.at(id).has_shown || untold_runs_[id] > 0;
    TRY(detach(id));
    if (!has_begun) {
      untold_exits_[id] = code;
      return {};
    }
    tell_exit(id, code);
    return exit_code_ ? Result<>() : attach(id, true);
  }

  void tell_exit(const std::string& id, int64_t code) {
    --untold_runs_[id];
    tell_between(
        fmt::format("{} exited with code {}\n", base::escape_controls(short_name(id)), code));
  }

  Result<> detach(const std::string& id) {
    Source& source = sources_.at(id);
    const Result<> shown = show(source.out.finish(name_width_));
    tell_between(source.err.finish(name_width_));
    sources_.erase(id);
    return shown;
  }

  /// Where nobody reads any more, the services are stopped as by Ctrl-C.
  Result<> show(const std::string& text) {
    if (text.empty() || reader_left_) return {};
    if (reader_) reader_->hide();
    reader_left_ = !base::write_all(STDOUT_FILENO, text);
    if (reader_) reader_->show();
    if (!reader_left_) return {};
    return stage_ == Stage::Stopping ? Result<>() : begin_stop();
  }

  void tell_between(const std::string& text) {
    if (text.empty()) return;
    if (reader_) reader_->hide();
    tell(text);
    if (reader_) reader_->show();
  }

  /// What has arrived by now; the stop itself is over.
  Result<> drain() {
    std::vector<std::string> ids;
    for (const auto& [id, source] : sources_) ids.push_back(id);
    const base::Deadline deadline = base::Deadline::in_ms(drain_ms);
    for (const std::string& id : ids)
      while (sources_.contains(id) && !deadline.passed()) {
        pollfd slot{.fd = sources_.at(id).socket.get(), .events = POLLIN, .revents = 0};
        if (::poll(&slot, 1, 0) <= 0) break;
        TRY(take_output(id));
      }
    return {};
  }

  // ---- the end -----------------------------------------------------------------------------

  Result<> take_signals() {
    while (const std::optional<int> number = signals_.take()) {
      if (*number == SIGWINCH) {
        if (reader_) reader_->resize();
        continue;
      }
      if (stage_ != Stage::Stopping)
        TRY(begin_stop());
      else if (!std::exchange(killed_, true))
        kill_all();
      else
        return base::fail(ErrorCode::Cancelled, "given up; `container ls` tells what still runs");
    }
    return {};
  }

  Result<> begin_stop() {
    tell("Gracefully stopping… (press Ctrl+C again to force)\n");
    stage_ = Stage::Stopping;
    waiting_.clear();
    job_.reset();  // Hanging up keeps what has not begun from beginning.
    const std::vector<std::string> ids = TRY(existing_ids());
    if (ids.empty()) {
      exit_code_ = 0;
      return {};
    }
    json command = {
        {"command", "stop"}, {"owner", owner_text("stop", options_.project)}, {"ids", ids}};
    if (options_.stop_grace_ms) command["grace_ms"] = *options_.stop_grace_ms;
    return carry_out(command);
  }

  Result<std::vector<std::string>> existing_ids() {
    std::vector<std::string> ids;
    const json records = TRY(ask(context_, "/v1/containers?all=1"));
    for (const json& entry : records)
      if (base::json_string_or(entry, "project", "") == options_.project &&
          !base::json_bool_or(entry, "one_off", false) &&
          is_shown(base::json_string_or(entry, "service", "")))
        ids.push_back(base::json_string_or(entry, "id", ""));
    return ids;
  }

  void kill_all() {
    tell("Killing…\n");
    std::string bytes;
    api::append_frame(bytes, FrameKind::Signal, base::dump_json({{"signal", SIGKILL}}));
    for (const auto& [id, source] : sources_)
      (void)::send(source.socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }

  const Context& context_;
  AttachedOptions options_;
  SignalQueue signals_;
  std::unique_ptr<LineStream> notices_;
  std::unique_ptr<LineStream> job_;
  std::optional<ApplyReader> reader_;
  std::optional<FileWatch> watch_;

  Stage stage_ = Stage::Working;
  std::vector<json> waiting_;  ///< The next one last.
  std::set<std::string> shown_;
  std::set<std::string> known_;  ///< Containers that are shown.
  std::set<std::string> ended_;
  std::map<std::string, int> untold_runs_;       ///< 1: begun; -1: told before its beginning was.
  std::map<std::string, int64_t> untold_exits_;  ///< Codes of ends without a known beginning.
  std::map<std::string, Source> sources_;
  std::map<std::string, size_t> colour_of_;
  size_t name_width_ = 0;
  base::Deadline settle_ = base::Deadline::never();
  base::Deadline quiet_ = base::Deadline::never();
  bool notes_told_ = false;
  bool was_up_ = false;
  bool killed_ = false;
  bool reader_left_ = false;
  std::optional<int> exit_code_;
};

}  // namespace

PrefixedLines::PrefixedLines(std::string name, std::string colour, bool terminal)
    : name_(std::move(name)), colour_(std::move(colour)), terminal_(terminal) {}

std::string PrefixedLines::line(std::string_view text, size_t name_width) const {
  while (text.ends_with('\r')) text.remove_suffix(1);
  const char* end_of_colour = colour_.empty() ? "" : "\x1b[0m";
  return fmt::format("{}{:<{}} |{} {}\n", colour_, name_, name_width + 1, end_of_colour,
                     terminal_ ? printable_line(text) : std::string(text));
}

std::string PrefixedLines::feed(std::string_view bytes, size_t name_width) {
  std::string out;
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const size_t room = limits::cli_log_line_bytes_max - partial_.size();
    const size_t taken = std::min(std::min(end, bytes.size()), room);
    partial_ += bytes.substr(0, taken);
    bytes.remove_prefix(taken);
    const bool at_end = bytes.starts_with('\n');
    if (!at_end && partial_.size() < limits::cli_log_line_bytes_max) break;
    if (at_end) bytes.remove_prefix(1);
    out += line(std::exchange(partial_, {}), name_width);
  }
  return out;
}

std::string PrefixedLines::finish(size_t name_width) {
  if (partial_.empty()) return {};
  return line(std::exchange(partial_, {}), name_width);
}

Result<int> show_attached(const Context& context, AttachedOptions options) {
  SignalQueue signals = TRY(SignalQueue::open({SIGINT, SIGTERM, SIGHUP, SIGWINCH}));
  return AttachedUp(context, std::move(options), std::move(signals)).run();
}

}  // namespace cli
