#include "runtime/vm.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/host.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/text.h"
#include "base/trace.h"
#include "guest/protocol/output_frame.h"
#include "runtime/guest_clock.h"
#include "runtime/log/last_words.h"
#include "runtime/template/orders.h"

namespace runtime {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;
using reconciler::ExitStatus;

namespace limits = base::limits;

namespace {

constexpr uint64_t acknowledge_step_bytes = limits::agent_output_unacknowledged_bytes_max / 4;
constexpr int64_t connect_pause_ms = 5'000;
constexpr int64_t full_disk_pause_ms = 1'000;
/// A guest's shutdown, QEMU's end and that of the file server may each take their time; and a rest.
constexpr int64_t finish_timeout_ms = 4 * limits::vm_exit_timeout_ms;
constexpr int32_t exit_code_killed = 128 + SIGKILL;
constexpr int32_t exit_code_vm_died = 255;

Deadline call_deadline() { return Deadline::in_ms(limits::agent_call_timeout_ms); }

reconciler::Health health_of(guest::HealthStatus status) {
  switch (status) {
    case guest::HealthStatus::None: return reconciler::Health::None;
    case guest::HealthStatus::Starting: return reconciler::Health::Starting;
    case guest::HealthStatus::Healthy: return reconciler::Health::Healthy;
    case guest::HealthStatus::Unhealthy: return reconciler::Health::Unhealthy;
  }
  return reconciler::Health::None;
}

/// A time that a guest tells, so that sums with it stay sums.
int64_t bounded_ns(int64_t told_ns) {
  return std::clamp(told_ns, -base::span_ns_max, base::span_ns_max);
}

}  // namespace

Result<std::shared_ptr<Vm>> Vm::watch(IoLoop& loop, VmParts parts) {
  std::shared_ptr<Vm> vm(new Vm(loop, std::move(parts)));
  vm->agent_ = TRY(AgentClient::create(
      loop, {.socket_path = vm->parts_.sockets.agent(), .epoch = vm->parts_.epoch}));
  TRY(vm->begin());
  return vm;
}

Result<> Vm::begin() {
  TRY(base::set_nonblocking(parts_.console.get(), true));
  Result<> made;
  loop_.run([&] {
    const std::weak_ptr<Vm> weak = weak_from_this();
    auto process = LoopWatch::create(loop_, parts_.pidfd.get(), [weak] {
      if (const auto self = weak.lock()) self->on_gone();
    });
    auto console = LoopWatch::create(loop_, parts_.console.get(), [weak] {
      if (const auto self = weak.lock()) self->drain_console();
    });
    if (!process || !console) {
      made = fail(ErrorCode::Io, "cannot watch the virtual machine: {}",
                  (process ? console.error() : process.error()).to_string());
      return;
    }
    process_watch_ = std::move(*process);
    console_watch_ = std::move(*console);
  });
  return made;
}

Vm::~Vm() {
  abandon();
  close_watches();
}

void Vm::close_watches() {
  loop_.run([this] {
    process_watch_.reset();
    console_watch_.reset();
    disk_watch_.reset();
  });
}

void Vm::drain_console() {
  char buffer[16 * 1024];
  for (;;) {
    const ssize_t count = ::read(parts_.console.get(), buffer, sizeof buffer);
    if (count <= 0) {
      if (count == 0) console_watch_.reset();
      return;
    }
    parts_.boot_log->append(std::string_view(buffer, static_cast<size_t>(count)));
  }
}

void Vm::on_gone() {
  drain_console();
  process_watch_.reset();
  console_watch_.reset();
  disk_watch_.reset();
  {
    const std::lock_guard lock(mutex_);
    gone_ = true;
    changed_.notify_all();
  }
  agent_->close("its virtual machine has ended");
}

bool Vm::wait(const Deadline& deadline, const std::function<bool()>& ready) const {
  std::unique_lock lock(mutex_);
  while (!ready()) {
    if (deadline.is_never()) {
      changed_.wait(lock);
    } else {
      if (deadline.passed()) return false;
      changed_.wait_for(lock, std::chrono::milliseconds(deadline.remaining_ms()));
    }
  }
  return true;
}

bool Vm::leaving() const {
  const std::lock_guard lock(mutex_);
  return gone_ || abandoned_;
}

bool Vm::ended() const {
  const std::lock_guard lock(mutex_);
  return ended_.has_value();
}

bool Vm::finished() const {
  const std::lock_guard lock(mutex_);
  return finished_;
}

Result<> Vm::await_finished() const {
  const auto waits_for_room = [this] {
    return !paused_reason_.empty() && !cut_short_ && !forced_ && !gone_;
  };
  if (!wait(Deadline::in_ms(finish_timeout_ms),
            [&] { return finished_ || abandoned_ || waits_for_room(); }))
    return fail(ErrorCode::Timeout,
                "the virtual machine of '{}' (process {}) does not end; try again", parts_.state.id,
                parts_.state.process.pid);
  const std::lock_guard lock(mutex_);
  if (finished_) return {};
  if (!waits_for_room()) return fail(ErrorCode::Cancelled, "the daemon is stopping");
  return fail(ErrorCode::NoSpace, "what '{}' wrote last is not on its disk yet: {}",
              parts_.state.id, paused_reason_);
}

// ---- talking to the agent ----------------------------------------------------------------------

Result<> Vm::await_agent(const Deadline& deadline) {
  const Result<> answered = agent_->await_connected(deadline);
  trace_resume();
  parts_.orders.reset();
  if (answered) return {};
  return fail(answered.error().code(), "{}; the console's last words: {}",
              answered.error().to_string(), last_words(parts_.boot_log->tail(console_end_bytes)));
}

Result<> Vm::configure(const guest::ContainerConfig& config) {
  parts_.state.main = config.process;
  guest::ContainerConfig sent = config;
  sent.wall_ns = base::wall_time_ns();
  sent.entropy_hex = base::random_hex(32);
  sent.trace = base::is_traced(parts_.state.id);
  const int64_t asked_ns = base::boottime_ns();
  const Result<std::string> answer =
      agent_->call("POST", "/v1/container", base::dump_json(guest::to_json(sent)),
                   Deadline::in_ms(limits::vm_boot_timeout_ms));
  if (!answer) return tl::unexpected(explained(answer.error()));
  if (sent.trace) trace_guest(*answer, asked_ns);
  parts_.state.started_wall_ns = base::wall_time_ns();
  return qemu::save(parts_.state_path, parts_.state);
}

/// A connection breaks because its machine has ended, and that says why.
base::Error Vm::explained(const base::Error& error) const {
  if (error.code() != ErrorCode::Io ||
      !wait(Deadline::in_ms(limits::vm_answer_timeout_ms), [this] { return gone_; }))
    return error;
  return {ErrorCode::InvalidState, ended_under_it()};
}

std::string Vm::ended_under_it() const {
  return "its virtual machine ended under it; the console's last words: " +
         last_words(parts_.boot_log->tail(console_end_bytes));
}

void Vm::trace_resume() {
  const std::string& id = parts_.state.id;
  if (!base::is_traced(id)) return;
  int64_t begin_ns = parts_.process_began_ns;
  if (parts_.orders)
    for (base::Span& span : spans_of_resume(parts_.orders.get(), begin_ns)) {
      begin_ns = span.end_ns;
      base::trace(id, std::move(span));
    }
  base::trace(id, {.where = "guest",
                   .what = parts_.orders ? "wakes up, its agent answers" : "boots",
                   .begin_ns = begin_ns,
                   .end_ns = base::boottime_ns()});
}

/// The guest's clock is laid so that its answer lies in the middle of what was on the way.
void Vm::trace_guest(const std::string& answer, int64_t asked_ns) {
  const int64_t heard_ns = base::boottime_ns();
  const std::string& id = parts_.state.id;
  base::trace(id, {.where = "daemon",
                   .what = "the guest makes the container",
                   .begin_ns = asked_ns,
                   .end_ns = heard_ns});
  const auto json = base::parse_json(answer);
  if (!json || !json->contains("spans")) return;
  const auto spans = base::spans_from_json(json->at("spans"));
  if (!spans || spans->empty()) return;
  const int64_t there_ns = bounded_ns(base::json_int_or(*json, "boottime_ns", 0));
  const int64_t inside_ns = there_ns - spans->front().begin_ns;
  const int64_t ahead_ns = there_ns - (heard_ns - (heard_ns - asked_ns - inside_ns) / 2);
  for (base::Span span : *spans) {
    span.begin_ns -= ahead_ns;
    span.end_ns -= ahead_ns;
    base::trace(id, std::move(span));
  }
  guest_wall_ahead_ns_ = bounded_ns(base::json_int_or(*json, "wall_ns", 0)) - (there_ns - ahead_ns);
}

void Vm::trace_exit(const guest::Event& event) {
  if (guest_wall_ahead_ns_ == 0) return;
  // The guest's clock is only known as well as the way to it is short.
  const int64_t now_ns = base::boottime_ns();
  base::trace(parts_.state.id,
              {.where = "guest",
               .what = "its end is told",
               .begin_ns = std::min(bounded_ns(event.wall_ns) - guest_wall_ahead_ns_, now_ns),
               .end_ns = now_ns});
}

Result<std::string> Vm::call(const std::string& method, const std::string& path,
                             const std::string& body) {
  return agent_->call(method, path, body, call_deadline());
}

Result<std::string> Vm::call(const std::string& method, const std::string& path,
                             const std::string& body, const Deadline& deadline) {
  return agent_->call(method, path, body, deadline);
}

Result<std::shared_ptr<AgentStream>> Vm::open(const std::string& method, const std::string& path,
                                              bool upload) {
  return agent_->open(method, path, upload, call_deadline());
}

Result<> Vm::signal(const std::string& process, int number) {
  (void)can_run();  // If there is room by now, it goes on and takes the signal.
  if (const std::string why = paused_reason(); !why.empty()) {
    if (process != guest::main_process_id || number != SIGKILL)
      return fail(ErrorCode::InvalidState, "container '{}' is paused: {}", parts_.state.id, why);
    {
      const std::lock_guard lock(mutex_);
      forced_ = true;
    }
    return base::signal_process(parts_.pidfd.get(), SIGKILL);
  }
  TRY(call("POST", "/v1/processes/" + process + "/signal", base::dump_json({{"signal", number}})));
  return {};
}

void Vm::expect_exit(const std::string& process) {
  const std::lock_guard lock(mutex_);
  exits_.emplace(process, std::nullopt);
}

void Vm::forget_exit(const std::string& process) {
  const std::lock_guard lock(mutex_);
  exits_.erase(process);
}

std::optional<std::string> Vm::death(bool suspected) {
  // A connection that comes back, or that never broke, is that of a machine that lives.
  if (suspected && agent_->await_connected(Deadline::in_ms(limits::vm_answer_timeout_ms)))
    return std::nullopt;
  {
    const std::lock_guard lock(mutex_);
    if (!gone_ && !main_exit_ && !forced_) return std::nullopt;
  }
  wait(Deadline::in_ms(2 * limits::vm_exit_timeout_ms), [this] { return ended_ || abandoned_; });
  const std::lock_guard lock(mutex_);
  if (!ended_) return "it is being ended";
  if (ended_->vm_died) return ended_->reason;
  return fmt::format("it was stopped, with exit code {}", ended_->code);
}

Result<int32_t> Vm::await_exit(const std::string& process, const Deadline& deadline) {
  const bool known = wait(deadline, [&] { return exits_[process] || ended_ || abandoned_; });
  const std::lock_guard lock(mutex_);
  const std::optional<int32_t> code = exits_[process];
  exits_.erase(process);
  if (code) return *code;
  if (!known) return fail(ErrorCode::Timeout, "the process does not end");
  if (ended_) return fail(ErrorCode::InvalidState, "the container ended before the process did");
  return fail(ErrorCode::Cancelled, "the daemon is stopping");
}

// ---- a full disk -------------------------------------------------------------------------------

Result<> Vm::watch_disk() {
  const std::string disk = std::filesystem::path(parts_.exit_path).parent_path().string();
  base::UniqueFd monitor = TRY(base::connect_unix(parts_.sockets.monitor()));
  Result<> made;
  loop_.run([&] {
    auto watch = qemu::FullDiskWatch::create(loop_, std::move(monitor),
                                             {.has_room = [disk] { return qemu::has_room(disk); },
                                              .on_change =
                                                  [weak = weak_from_this()](bool full) {
                                                    if (const auto self = weak.lock())
                                                      self->on_full_disk(full);
                                                  }});
    if (watch)
      disk_watch_ = std::move(*watch);
    else
      made = tl::unexpected(std::move(watch.error()));
  });
  return made;
}

void Vm::on_full_disk(bool full) {
  constexpr uint64_t mebibyte = 1u << 20;
  reconciler::VmEvent told;
  told.kind = reconciler::VmEvent::Kind::Paused;
  told.id = parts_.state.id;
  told.generation = parts_.state.generation;
  if (full)
    told.detail = fmt::format(
        "the host's disk is full, at '{}'; make room there, and it goes on by itself once {} MiB "
        "are free (`container system df` tells what this system takes)",
        parts_.exit_path.substr(0, parts_.exit_path.rfind('/')),
        qemu::full_disk_room_bytes / mebibyte);
  {
    const std::lock_guard lock(mutex_);
    paused_reason_ = told.detail;
    pauses_ += full ? 1 : 0;
    changed_.notify_all();
  }
  parts_.report(told);
}

std::string Vm::paused_reason() const {
  const std::lock_guard lock(mutex_);
  return paused_reason_;
}

uint64_t Vm::pauses() const {
  const std::lock_guard lock(mutex_);
  return pauses_;
}

/// False unless it was held meanwhile and goes on again.
bool Vm::await_room(uint64_t pauses_before) {
  if (pauses() == pauses_before) return false;
  wait(Deadline::never(),
       [this] { return paused_reason_.empty() || gone_ || abandoned_ || forced_ || cut_short_; });
  return paused_reason().empty() && !leaving();
}

void Vm::cut_short() {
  const std::lock_guard lock(mutex_);
  cut_short_ = true;
  changed_.notify_all();
}

bool Vm::can_run() {
  if (paused_reason().empty()) return true;
  bool looked = false;
  loop_.run([&] { looked = disk_watch_ && disk_watch_->look_now(); });
  return looked && wait(Deadline::in_ms(limits::vm_answer_timeout_ms),
                        [this] { return paused_reason_.empty() || gone_; });
}

reconciler::VmObservation Vm::observe() {
  const auto starved = [this] { return base::processor_wait_ns(parts_.state.process.pid); };
  const bool is_asked = paused_reason().empty();  // else nobody could answer
  if (is_asked) {
    const std::lock_guard lock(mutex_);
    silence_.asking(base::boottime_ns(), agent_->heard_ns(), starved());
  }
  if (is_asked && !ended()) ask_for_life();
  const std::lock_guard lock(mutex_);
  const bool hangs =
      paused_reason_.empty() && silence_.hangs(base::boottime_ns(), agent_->heard_ns(), starved());
  reconciler::VmObservation seen;
  seen.id = parts_.state.id;
  seen.generation = parts_.state.generation;
  seen.phase = hangs ? reconciler::VmPhase::Unknown : reconciler::VmPhase::Running;
  seen.health = parts_.state.health;
  seen.started_wall_ns = parts_.state.started_wall_ns;
  seen.pid = parts_.state.process.pid;
  seen.paused_reason = paused_reason_;
  if (!ended_) return seen;
  seen.paused_reason.clear();
  seen.phase = reconciler::VmPhase::Exited;
  seen.exit = ended_;
  return seen;
}

/// What it answers also tells how its clock goes.
void Vm::ask_for_life() {
  const auto deadline = [] { return Deadline::in_ms(limits::vm_answer_timeout_ms); };
  const int64_t asked_ns = base::boottime_ns();
  const Result<std::string> answer = agent_->call("GET", "/v1/state", "", deadline());
  const int64_t heard_wall_ns = base::wall_time_ns();
  const int64_t way_ns = base::boottime_ns() - asked_ns;
  if (!answer) return;
  const auto state = base::parse_json(*answer);
  const int64_t shown_ns = state ? bounded_ns(base::json_int_or(*state, "wall_ns", 0)) : 0;
  if (shown_ns == 0) return;  // an agent that an earlier version started
  const int64_t forward_ns = clock_correction_ns(shown_ns, heard_wall_ns, way_ns);
  if (forward_ns == 0) return;
  // What does not get there is seen by the next question.
  (void)agent_->call("POST", "/v1/time", base::dump_json({{"forward_ns", forward_ns}}), deadline());
}

// ---- the main process's output -----------------------------------------------------------------

void Vm::pump_output() {
  while (!leaving()) {
    const auto stream =
        agent_->open("GET", fmt::format("/v1/processes/main/output?offset={}", stored_bytes_),
                     false, Deadline::in_ms(connect_pause_ms));
    if (!stream) continue;  // `open` waits for the connection
    if (pump_stream(**stream)) return;
  }
}

/// True when everything has been stored.
bool Vm::pump_stream(AgentStream& stream) {
  if (const Result<int> status = stream.status(call_deadline()); !status || *status != 200)
    return false;
  guest::OutputFrameDecoder decoder;
  for (;;) {
    const Result<std::string> bytes = stream.read(Deadline::never());
    if (!bytes) return false;
    if (bytes->empty()) return decoder.at_boundary();
    const Result<> fed = decoder.feed(*bytes, [&](const guest::OutputFrame& frame) -> Result<> {
      if (!store(frame)) return fail(ErrorCode::Cancelled, "leaving");
      return {};
    });
    if (!fed) return false;
    if (stored_bytes_ - acknowledged_bytes_ < acknowledge_step_bytes) continue;
    if (call("POST", "/v1/processes/main/acknowledge",
             base::dump_json({{"offset", stored_bytes_}})))
      acknowledged_bytes_ = stored_bytes_;
  }
}

/// Tries until it is stored: on a full disk the process waits, nothing is lost.
bool Vm::store(const guest::OutputFrame& frame) {
  for (;;) {
    const Result<> appended =
        parts_.log->append(frame.stream, frame.offset, base::wall_time_ns(), frame.payload);
    if (appended) break;
    if (wait(Deadline::in_ms(full_disk_pause_ms), [this] { return abandoned_ || forced_; }))
      return false;
  }
  stored_bytes_ = frame.offset + frame.payload.size();
  return true;
}

// ---- events, and the end -----------------------------------------------------------------------

void Vm::keep() {
  const Result<uint64_t> stored = parts_.log->begin_run(parts_.state.uuid);
  stored_bytes_ = stored.value_or(0);
  acknowledged_bytes_ = 0;
  if (const Result<> watched = watch_disk(); !watched)
    spdlog::warn("a full disk under '{}' will not be noticed: {}", parts_.state.id,
                 watched.error().to_string());
  pump_ = std::thread([this] { pump_output(); });
  keeper_ = std::thread([this] { keep_until_end(); });
}

void Vm::keep_until_end() {
  follow_events();
  pump_.join();
  {
    const std::lock_guard lock(mutex_);
    if (abandoned_) return;
    ending_ = true;
  }
  tell_end();
  power_off();
  finish();
}

void Vm::follow_events() {
  while (!leaving()) {
    const auto stream = agent_->open("GET", fmt::format("/v1/events?after={}", last_event_), false,
                                     Deadline::in_ms(connect_pause_ms));
    if (!stream) continue;
    std::string pending;
    for (;;) {
      const Result<std::string> bytes = (*stream)->read(Deadline::never());
      if (!bytes || bytes->empty()) break;
      pending += *bytes;
      if (pending.size() > limits::agent_message_bytes_max) break;  // a guest that lost its mind
      size_t end = 0;
      while ((end = pending.find('\n')) != std::string::npos) {
        const auto json = base::parse_json(std::string_view(pending).substr(0, end));
        pending.erase(0, end + 1);
        if (!json) continue;
        const auto event = guest::event_from_json(*json);
        if (event && on_event(*event)) return;
      }
    }
  }
}

/// True for the end of the main process.
bool Vm::on_event(const guest::Event& event) {
  if (event.sequence <= last_event_) return false;
  last_event_ = event.sequence;
  if (event.kind == guest::EventKind::Health) report_health(event);
  if (event.kind == guest::EventKind::Exited && event.process == guest::main_process_id)
    trace_exit(event);
  {
    const std::lock_guard lock(mutex_);
    if (event.kind == guest::EventKind::OutOfMemory) out_of_memory_ = true;
    if (event.kind == guest::EventKind::Exited) {
      if (event.process == guest::main_process_id) main_exit_ = event;
      if (const auto found = exits_.find(event.process); found != exits_.end())
        found->second = event.exit_code;
    }
    changed_.notify_all();
    if (main_exit_) return true;  // kept by the agent until its VM is gone
  }
  (void)call("POST", "/v1/events/acknowledge", base::dump_json({{"sequence", last_event_}}));
  return false;
}

void Vm::report_health(const guest::Event& event) {
  {
    const std::lock_guard lock(mutex_);
    parts_.state.health = health_of(event.health);
  }
  (void)qemu::save(parts_.state_path, parts_.state);
  reconciler::VmEvent told;
  told.kind = reconciler::VmEvent::Kind::Health;
  told.id = parts_.state.id;
  told.generation = parts_.state.generation;
  told.health = health_of(event.health);
  told.detail = event.detail;
  parts_.report(told);
}

void Vm::power_off() {
  base::TraceScope span(parts_.state.id, "daemon", "the machine is switched off");
  while (!leaving() && !(alone_ && disk_given_up_)) {
    const uint64_t pauses_before = paused_reason().empty() ? pauses() : 0;
    if (agent_->call("POST", "/v1/shutdown", "{}", Deadline::in_ms(limits::vm_exit_timeout_ms)) ||
        !await_room(pauses_before))
      break;
  }
  if (!disk_given_up_ && !paused_reason().empty())
    spdlog::warn("what '{}' wrote last is lost: the host's disk is full", parts_.state.id);
  destroy();
}

void Vm::destroy() {
  {
    const std::lock_guard lock(mutex_);
    forced_ = true;
    changed_.notify_all();
  }
  (void)base::signal_process(parts_.pidfd.get(), SIGKILL);
  (void)base::await_process(parts_.pidfd.get(), parts_.state.process.pid,
                            Deadline::in_ms(limits::vm_exit_timeout_ms));
  agent_->close("its virtual machine has been ended");
  if (!file_server_) return;
  // It ends by itself, now that its machine has closed the stream.
  if (const auto pidfd = base::open_process(*file_server_))
    (void)base::await_process(pidfd->get(), file_server_->pid,
                              Deadline::in_ms(limits::vm_exit_timeout_ms));
}

ExitStatus Vm::exit_status() const {
  const std::lock_guard lock(mutex_);
  ExitStatus exit;
  exit.finished_wall_ns = base::wall_time_ns();
  exit.out_of_memory = out_of_memory_;
  if (main_exit_) {
    exit.code = main_exit_->exit_code;
    if (main_exit_->wall_ns != 0) exit.finished_wall_ns = main_exit_->wall_ns;
  } else if (forced_) {
    exit.code = exit_code_killed;
  } else {
    exit.code = exit_code_vm_died;
    exit.vm_died = true;
    exit.reason = ended_under_it();
  }
  return exit;
}

/// The exit is written down before anything can interrupt us: what ran must not run again. Then
/// those who keep the books hear of it, and last those who wait for it.
void Vm::tell_end() {
  const qemu::VmState& state = parts_.state;
  base::TraceScope span(state.id, "daemon", "its end is written down");
  const Result<qemu::StoredExit> stored = qemu::load_exit(parts_.exit_path);
  const bool known = stored && stored->generation == state.generation &&
                     stored->started_wall_ns == state.started_wall_ns;
  const ExitStatus exit = known ? stored->exit : exit_status();
  if (!known)
    if (const auto saved =
            qemu::save_exit(parts_.exit_path, state.generation, state.started_wall_ns, exit);
        !saved)
      spdlog::warn("the end of '{}' is not written down: {}", state.id, saved.error().to_string());
  {
    const std::lock_guard lock(mutex_);
    ended_ = exit;
    changed_.notify_all();
  }
  reconciler::VmEvent told;
  told.id = state.id;
  told.generation = state.generation;
  told.exit = exit;
  parts_.report(told);
  parts_.log->end_run({.exit_code = exit.code, .error = {}});
}

void Vm::finish() {
  (void)base::remove_tree(parts_.sockets.folder);
  const int64_t now_ns = base::boottime_ns();
  base::trace(parts_.state.id, {"daemon", std::string(trace_finished), now_ns, now_ns});
  const std::lock_guard lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

Result<> Vm::begin_stop(int number) {
  parts_.log->let_go();
  return signal(std::string(guest::main_process_id), number);
}

Result<ExitStatus> Vm::stop(int number, int64_t grace_ms) {
  parts_.log->let_go();
  const auto ended = [this] { return main_exit_ || gone_ || ended_; };
  if (this->ended()) {
    // One that waits for room has nothing left to stop.
    if (const Result<> finished = await_finished(); !finished && paused_reason().empty())
      return tl::unexpected(finished.error());
    const std::lock_guard lock(mutex_);
    return *ended_;
  }
  const auto tell = [this](int signal) {
    return agent_
        ->call("POST", "/v1/processes/main/signal", base::dump_json({{"signal", signal}}),
               Deadline::in_ms(limits::vm_exit_timeout_ms))
        .has_value();
  };
  // A guest that cannot run, or does not take the signal in time, is not asked again: it is
  // switched off.
  bool told = can_run() && tell(number);
  if (told && number != SIGKILL && !wait(Deadline::in_ms(grace_ms), ended)) {
    told = paused_reason().empty();
    if (told) (void)tell(SIGKILL);
  }
  if (!told || !wait(Deadline::in_ms(limits::vm_exit_timeout_ms), ended)) destroy();
  cut_short();
  TRY(await_finished());
  const std::lock_guard lock(mutex_);
  return *ended_;
}

/// A machine whose end has been told is seen off: its guest may still have to write to its disk.
void Vm::abandon() {
  bool ending = false;
  {
    const std::lock_guard lock(mutex_);
    ending = ending_;
    abandoned_ = !ending;
    cut_short_ = true;
    changed_.notify_all();
  }
  parts_.log->let_go();
  if (ending && keeper_.joinable()) keeper_.join();
  agent_->close("the daemon is stopping");
  if (keeper_.joinable()) keeper_.join();
}

}  // namespace runtime
