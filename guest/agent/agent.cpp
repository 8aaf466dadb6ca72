#include "guest/agent/agent.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>

#include <nlohmann/json.hpp>

#include "base/deadline.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "guest/agent/container.h"
#include "guest/agent/device_rules.h"
#include "guest/agent/emulation.h"
#include "guest/agent/file_pump.h"
#include "guest/agent/limits.h"
#include "guest/agent/network.h"
#include "guest/agent/system.h"
#include "guest/agent/timeline.h"

namespace agent {

using base::ErrorCode;
using base::fail;
using base::Result;

namespace {

constexpr const char* shares_folder = "/run/shares";
constexpr std::string_view process_prefix = "/v1/processes/";

class StdinSink : public BodySink {
 public:
  StdinSink(std::shared_ptr<Process> process, ReplyPtr reply)
      : process_(std::move(process)), reply_(std::move(reply)) {}
  void bytes(std::string_view piece) override { process_->write_stdin(piece, reply_); }
  void end() override {
    process_->end_stdin();
    reply_->send(nlohmann::json::object());
  }

 private:
  std::shared_ptr<Process> process_;
  ReplyPtr reply_;
};

/// For a body that was refused.
class RefusedSink : public BodySink {
 public:
  explicit RefusedSink(ReplyPtr reply) : reply_(std::move(reply)) {}
  void bytes(std::string_view piece) override { reply_->consumed(piece.size()); }
  void end() override {}

 private:
  ReplyPtr reply_;
};

class OutputSource : public BodySource {
 public:
  OutputSource(std::shared_ptr<Process> process, uint64_t offset, OutputFilter filter)
      : process_(std::move(process)), offset_(offset), filter_(filter) {}
  State fill(std::string& out, size_t bytes_max) override {
    if (process_->output().copy_frames(offset_, filter_, bytes_max, out)) return State::More;
    return process_->ended() ? State::End : State::Wait;
  }

 private:
  std::shared_ptr<Process> process_;
  uint64_t offset_;
  OutputFilter filter_;
};

class EventSource : public BodySource {
 public:
  EventSource(const EventLog& log, uint64_t after) : log_(log), after_(after) {}
  State fill(std::string& out, size_t bytes_max) override {
    const size_t begin = out.size();
    while (out.size() - begin < bytes_max) {
      const guest::Event* event = log_.after(after_);
      if (event == nullptr) break;
      out += base::dump_json(guest::to_json(*event));
      out += '\n';
      after_ = event->sequence;
    }
    return out.size() > begin ? State::More : State::Wait;
  }

 private:
  const EventLog& log_;
  uint64_t after_;
};

Result<uint64_t> query_number(const Request& request, const std::string& key) {
  const auto found = request.query.find(key);
  if (found == request.query.end()) return uint64_t{0};
  uint64_t value = 0;
  const std::string& text = found->second;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size())
    return fail(ErrorCode::InvalidArgument, "'{}' is no number ({})", text, key);
  return value;
}

/// Who has that right and few others wants a time of its own. Who has all of them, as a privileged
/// container does, has not asked for it.
bool sets_its_clock(const std::vector<std::string>& rights) {
  const auto has = [&](const char* right) {
    return std::find(rights.begin(), rights.end(), right) != rights.end();
  };
  return has("CAP_SYS_TIME") && !has("CAP_SYS_ADMIN");
}

Result<uint64_t> body_number(const Request& request, const char* key, uint64_t maximum) {
  const nlohmann::json body = TRY(base::parse_json(request.body));
  const int64_t value = TRY(base::json_int(body, key));
  if (value < 0 || static_cast<uint64_t>(value) > maximum)
    return fail(ErrorCode::InvalidArgument, "'{}' is out of range: {}", key, value);
  return static_cast<uint64_t>(value);
}

/// The id that stands for the `*` of `pattern` in `path`, if it has the form of `pattern`.
std::optional<std::string> match(std::string_view pattern, const std::string& path) {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos)
    return path == pattern ? std::optional<std::string>("") : std::nullopt;
  const std::string_view before = pattern.substr(0, star), behind = pattern.substr(star + 1);
  if (path.size() <= before.size() + behind.size() || !path.starts_with(before) ||
      !path.ends_with(behind))
    return std::nullopt;
  std::string id = path.substr(before.size(), path.size() - before.size() - behind.size());
  if (id.find('/') != std::string::npos) return std::nullopt;
  return id;
}

int exit_code(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

}  // namespace

const std::vector<Agent::Route>& Agent::routes() {
  static const std::vector<Route> table = {
      {"GET", "/v1/state", &Agent::state},
      {"POST", "/v1/container", &Agent::configure},
      {"POST", "/v1/processes", &Agent::execute},
      {"POST", "/v1/steps", &Agent::step},
      {"GET", "/v1/steps/*/connections", &Agent::connections},
      {"GET", "/v1/layers/*", &Agent::layer},
      {"GET", "/v1/processes/*/output", &Agent::output},
      {"POST", "/v1/processes/*/acknowledge", &Agent::acknowledge},
      {"POST", "/v1/processes/*/signal", &Agent::signal},
      {"POST", "/v1/processes/*/resize", &Agent::resize},
      {"DELETE", "/v1/processes/*", &Agent::forget},
      {"GET", "/v1/events", &Agent::events},
      {"POST", "/v1/events/acknowledge", &Agent::acknowledge_events},
      {"POST", "/v1/health", &Agent::health},
      {"POST", "/v1/hosts", &Agent::hosts},
      {"POST", "/v1/time", &Agent::time},
      {"GET", "/v1/statistics", &Agent::statistics},
      {"POST", "/v1/rehearsal", &Agent::end_rehearsal},
      {"POST", "/v1/shutdown", &Agent::shutdown},
  };
  return table;
}

std::shared_ptr<BodySink> Agent::upload(const Request& request, const ReplyPtr& reply) {
  if (request.method != "POST") return nullptr;
  const auto id = match("/v1/processes/*/stdin", request.path);
  if (!id) {
    auto sink = build_upload(request, reply);
    if (sink) return *sink;
    reply->fail(sink.error());
    return std::make_shared<RefusedSink>(reply);
  }
  const auto process = find(*id);
  if (!process) return nullptr;  // Answered when the request is complete.
  return std::make_shared<StdinSink>(*process, reply);
}

/// Null for requests whose body is collected.
Result<std::shared_ptr<BodySink>> Agent::build_upload(const Request& request,
                                                      const ReplyPtr& reply) {
  const auto layer = match("/v1/layers/*", request.path);
  const auto tree = match("/v1/trees/*", request.path);
  const auto connection = match("/v1/connections/*", request.path);
  if (!layer && !tree && !connection) return nullptr;
  if (!build_) return fail(ErrorCode::InvalidState, "this is no build machine");
  if (layer) return build_->receive_layer(*layer, reply);
  if (tree) return build_->receive_tree(*tree, reply);
  return build_->relay().carry(*connection, reply);
}

void Agent::request(const Request& request, const ReplyPtr& reply) {
  for (const Route& route : routes()) {
    if (request.method != route.method) continue;
    const auto id = match(route.path, request.path);
    if (!id) continue;
    if (const auto done = (this->*route.handler)(request, *id, reply); !done)
      reply->fail(done.error());
    return;
  }
  reply->fail(base::Error(ErrorCode::NotFound,
                          fmt::format("no such request: {} {}", request.method, request.path)));
}

Result<std::shared_ptr<Process>> Agent::find(const std::string& id) const {
  const auto found = processes_.find(id);
  if (found == processes_.end()) return fail(ErrorCode::NotFound, "no process '{}'", id);
  return found->second;
}

Result<> Agent::state(const Request&, const std::string&, const ReplyPtr& reply) {
  guest::AgentState state;
  // The kernel makes it up when it is first read: not before a clone has randomness of its own.
  if (configured_) state.boot_id = TRY(boot_id());
  state.configured = configured_;
  state.build = build_.has_value();
  state.boot_to_ready_ns = machine_.boot_to_ready_ns;
  state.wall_ns = base::wall_time_ns();
  state.last_event = log_.last();
  for (const auto& [id, process] : processes_)
    state.processes.push_back(
        {.id = id,
         .running = process->started() && !process->ended(),
         .exit_code = process->ended() ? exit_code(process->wait_status()) : 0,
         .output_bytes = process->output().end(),
         .acknowledged_bytes = process->output().begin()});
  reply->send(guest::to_json(state));
  return {};
}

Result<> Agent::prepare() {
  TRY(bring_up_loopback());
  return cgroup_.create();
}

Result<> Agent::prepare_machine(const guest::ContainerConfig& config) {
  if (config.wall_ns > 0) TRY(set_clock(config.wall_ns));
  if (!config.entropy_hex.empty()) TRY(add_entropy(config.entropy_hex));
  timeline().mark("clock and entropy");
  TRY(write_etc_file("hosts", config.hosts));
  TRY(write_etc_file("resolv.conf", config.resolv_conf));
  TRY(write_etc_file("hostname", config.hostname + "\n"));
  timeline().mark("files of /etc");
  TRY(forget_cached(machine_.scratch_disk));
  TRY(reread_partitions(machine_.image_disk));
  timeline().mark("disks are looked at anew");
  TRY(configure_interfaces(config.interfaces));
  timeline().mark("network interfaces");
  TRY(cgroup_.limit(config, [this] {
    tell({.kind = guest::EventKind::OutOfMemory, .process = std::string(guest::main_process_id)});
  }));
  if (!config.emulator.architecture.empty())
    TRY(set_up_emulation(config.emulator, machine_.image_disk));
  const bool shares = std::any_of(
      config.mounts.begin(), config.mounts.end(),
      [](const guest::GuestMount& mount) { return mount.kind == guest::MountKind::Share; });
  timeline().mark("limits of its cgroup");
  if (shares) TRY(start_file_pump(machine_.files_port, shares_folder));
  if (shares) timeline().mark("shared folders");
  if (!config.build) return {};
  return build_.emplace(loop_).set_up(config, machine_.image_disk, machine_.scratch_disk,
                                      shares_folder);
}

Result<> Agent::configure(const Request& request, const std::string&, const ReplyPtr& reply) {
  if (configured_) return fail(ErrorCode::Exists, "this VM has its container already");
  timeline().begin();
  config_ = TRY(guest::container_config_from_json(TRY(base::parse_json(request.body))));
  configured_ = true;
  if (!config_.trace) timeline().end();
  timeline().mark("the message is understood");
  TRY(prepare_machine(config_));
  if (config_.build) {
    config_.process = {};
    config_.health = {};
    return start_process(std::string(guest::main_process_id), config_.process,
                         idle_place(cgroup_.folder_fd()), limits::process_start_timeout_ms, reply);
  }
  Place place;
  place.cgroup_fd = cgroup_.folder_fd();
  place.init = config_.init;
  place.prepare = [this](int) -> Result<> {
    TRY(enter_container(config_, {.image_disk = machine_.image_disk,
                                  .scratch_disk = machine_.scratch_disk,
                                  .etc_folder = etc_folder,
                                  .shares_folder = shares_folder}));
    if (config_.process.privileged) return {};
    return keep_to_usual_devices(cgroup_.folder_fd());
  };
  return start_process(std::string(guest::main_process_id), config_.process, place,
                       limits::container_start_timeout_ms, reply);
}

Result<> Agent::execute(const Request& request, const std::string&, const ReplyPtr& reply) {
  const guest::ExecConfig config =
      TRY(guest::exec_config_from_json(TRY(base::parse_json(request.body))));
  if (config.id.empty() || config.id.find('/') != std::string::npos ||
      config.id.starts_with(guest::step_process_prefix))
    return fail(ErrorCode::InvalidArgument, "'{}' is no name for a process", config.id);
  if (build_)
    return fail(ErrorCode::InvalidState,
                "this is a build machine: it runs the steps of a build and nothing else");
  TRY(check_room_for(config.id));
  Place place;
  place.cgroup_fd = cgroup_.folder_fd();
  place.join_pidfd = main_pidfd_.get();
  return start_process(config.id, config.process, place, limits::process_start_timeout_ms, reply);
}

Result<> Agent::check_room_for(const std::string& process) const {
  if (processes_.contains(process))
    return fail(ErrorCode::Exists, "there is a process '{}' already", process);
  if (processes_.size() >= limits::processes_max)
    return fail(ErrorCode::InvalidState, "no more than {} processes can be started by `exec`",
                limits::processes_max);
  const auto main = find(std::string(guest::main_process_id));
  if (!main || (*main)->ended() || !main_pidfd_)
    return fail(ErrorCode::InvalidState, "the container is not running");
  return {};
}

Result<> Agent::step(const Request& request, const std::string&, const ReplyPtr& reply) {
  const guest::StepConfig config =
      TRY(guest::step_config_from_json(TRY(base::parse_json(request.body))));
  if (!build_) return fail(ErrorCode::InvalidState, "this is no build machine");
  const std::string process = std::string(guest::step_process_prefix) + config.id;
  TRY(check_room_for(process));
  Place place = TRY(build_->begin_step(config));
  place.cgroup_fd = cgroup_.folder_fd();
  const Result<> started =
      start_process(process, config.process, place, limits::container_start_timeout_ms, reply);
  if (!started) build_->end_step(config.id, false);
  return started;
}

Result<> Agent::layer(const Request&, const std::string& id, const ReplyPtr& reply) {
  if (!build_) return fail(ErrorCode::InvalidState, "this is no build machine");
  return build_->send_layer(id, reply);
}

Result<> Agent::connections(const Request&, const std::string& id, const ReplyPtr& reply) {
  if (!build_) return fail(ErrorCode::InvalidState, "this is no build machine");
  return build_->relay().tell(id, reply);
}

void Agent::end_step(const std::string& process, bool succeeded) {
  if (build_ && process.starts_with(guest::step_process_prefix))
    build_->end_step(process.substr(guest::step_process_prefix.size()), succeeded);
}

Result<> Agent::start_process(const std::string& id, const guest::ProcessConfig& config,
                              const Place& place, int timeout_ms, const ReplyPtr& reply) {
  if (log_.full())
    return fail(ErrorCode::InvalidState, "the host has not stored earlier events yet");
  const auto process = std::make_shared<Process>(
      loop_, budget_,
      Process::Calls{[this, id, reply](const Result<>& result) { on_started(id, result, reply); },
                     [this, id](int wait_status) { on_ended(id, wait_status); },
                     {},
                     [this, id](size_t mount, base::UniqueFd socket) {
                       if (build_)
                         build_->listen(id.substr(guest::step_process_prefix.size()), mount,
                                        std::move(socket));
                     }});
  TRY(process->start(config, place, timeout_ms));
  processes_[id] = process;
  return {};
}

void Agent::on_started(const std::string& id, const Result<>& result, const ReplyPtr& reply) {
  if (!result) {
    end_step(id, false);
    timeline().end();
    reply->fail(result.error());
    processes_.erase(id);
    return;
  }
  if (id == guest::main_process_id) {
    main_pidfd_ = open_pidfd(processes_.at(id)->pid());
    if (auto mounts =
            base::open_file(fmt::format("/proc/{}/ns/mnt", processes_.at(id)->pid()), O_RDONLY))
      main_mounts_ = std::move(*mounts);
    main_started_ns_ = base::boottime_ns();
    set_health(config_.health);
  }
  tell({.kind = guest::EventKind::Started, .process = id});
  nlohmann::json answer = {{"id", id}};
  if (timeline().on()) {
    timeline().mark("its program is loaded");
    answer["spans"] = base::to_json(timeline().spans());
    answer["boottime_ns"] = base::boottime_ns();
    answer["wall_ns"] = base::wall_time_ns();
    timeline().end();
  }
  reply->send(answer);
}

void Agent::on_ended(const std::string& id, int wait_status) {
  if (id == guest::main_process_id) set_health({});
  end_step(id, exit_code(wait_status) == 0);
  tell({.kind = guest::EventKind::Exited,
        .process = id,
        .exit_code = exit_code(wait_status),
        .signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0,
        .output_bytes = processes_.at(id)->output().end()});
  if (processes_.at(id)->discards_output()) processes_.erase(id);
}

/// Only the daemon that started them knows their ids.
void Agent::new_daemon() {
  for (auto entry = processes_.begin(); entry != processes_.end();) {
    const auto& [id, process] = *entry;
    const bool over = id != guest::main_process_id && process->ended();
    if (id != guest::main_process_id && !over) process->discard_output();
    entry = over ? processes_.erase(entry) : std::next(entry);
  }
}

void Agent::tell(guest::Event event) {
  event.wall_ns = base::wall_time_ns();
  log_.append(std::move(event));
  std::erase_if(event_readers_, [](const auto& reader) { return reader.expired(); });
  for (const auto& reader : event_readers_)
    if (const auto reply = reader.lock()) reply->resume();
}

Result<> Agent::output(const Request& request, const std::string& id, const ReplyPtr& reply) {
  const auto process = TRY(find(id));
  const uint64_t offset = TRY(query_number(request, "offset"));
  if (offset < process->output().begin() || offset > process->output().end())
    return fail(ErrorCode::InvalidArgument, "output is kept from {} to {}, not from {}",
                process->output().begin(), process->output().end(), offset);
  OutputFilter filter = OutputFilter::All;
  if (const auto stream = request.query.find("stream"); stream != request.query.end()) {
    if (stream->second == "out") filter = OutputFilter::Out;
    if (stream->second == "err") filter = OutputFilter::Err;
  }
  process->add_reader(reply);
  reply->stream(std::make_shared<OutputSource>(process, offset, filter));
  return {};
}

Result<> Agent::acknowledge(const Request& request, const std::string& id, const ReplyPtr& reply) {
  const auto process = TRY(find(id));
  TRY(process->acknowledge(TRY(body_number(request, "offset", INT64_MAX))));
  for (const auto& [name, each] : processes_) each->resume_reading();
  reply->send(nlohmann::json::object());
  return {};
}

Result<> Agent::signal(const Request& request, const std::string& id, const ReplyPtr& reply) {
  const auto process = TRY(find(id));
  TRY(process->signal(static_cast<int>(TRY(body_number(request, "signal", 64)))));
  reply->send(nlohmann::json::object());
  return {};
}

Result<> Agent::resize(const Request& request, const std::string& id, const ReplyPtr& reply) {
  const auto process = TRY(find(id));
  TRY(process->resize(static_cast<uint16_t>(TRY(body_number(request, "rows", UINT16_MAX))),
                      static_cast<uint16_t>(TRY(body_number(request, "columns", UINT16_MAX)))));
  reply->send(nlohmann::json::object());
  return {};
}

Result<> Agent::forget(const Request&, const std::string& id, const ReplyPtr& reply) {
  const auto process = TRY(find(id));
  if (process->ended())
    processes_.erase(id);
  else if (id == guest::main_process_id)
    return fail(ErrorCode::InvalidState, "process '{}' is running", id);
  else
    process->discard_output();
  reply->send(nlohmann::json::object());
  return {};
}

Result<> Agent::events(const Request& request, const std::string&, const ReplyPtr& reply) {
  const uint64_t after = TRY(query_number(request, "after"));
  event_readers_.push_back(reply);
  reply->stream(std::make_shared<EventSource>(log_, after));
  return {};
}

Result<> Agent::acknowledge_events(const Request& request, const std::string&,
                                   const ReplyPtr& reply) {
  TRY(log_.acknowledge(TRY(body_number(request, "sequence", INT64_MAX))));
  for (const auto& reader : event_readers_)
    if (const auto each = reader.lock()) each->resume();  // A held change of health may be free.
  reply->send(nlohmann::json::object());
  return {};
}

Result<> Agent::health(const Request& request, const std::string&, const ReplyPtr& reply) {
  config_.health = TRY(guest::health_config_from_json(TRY(base::parse_json(request.body))));
  const auto main = find(std::string(guest::main_process_id));
  if (main && (*main)->started() && !(*main)->ended()) set_health(config_.health);
  reply->send(nlohmann::json::object());
  return {};
}

Result<> Agent::hosts(const Request& request, const std::string&, const ReplyPtr& reply) {
  const nlohmann::json body = TRY(base::parse_json(request.body));
  TRY(write_etc_file("hosts", TRY(base::json_string(body, "hosts"))));
  TRY(write_etc_file("resolv.conf", TRY(base::json_string(body, "resolv_conf"))));
  reply->send(nlohmann::json::object());
  return {};
}

Result<> Agent::time(const Request& request, const std::string&, const ReplyPtr& reply) {
  const nlohmann::json body = TRY(base::parse_json(request.body));
  const int64_t forward_ns = TRY(base::json_int(body, "forward_ns"));
  if (!sets_its_clock(config_.process.capabilities)) TRY(move_clock(forward_ns));
  reply->send(nlohmann::json::object());
  return {};
}

Result<> Agent::statistics(const Request&, const std::string&, const ReplyPtr& reply) {
  guest::Statistics statistics = cgroup_.statistics();
  statistics.networks = TRY(interface_statistics());
  reply->send(guest::to_json(statistics));
  return {};
}

/// Everything is again as it was before the first order.
Result<> Agent::end_rehearsal(const Request&, const std::string&, const ReplyPtr& reply) {
  if (!configured_ || !config_.rehearsal)
    return fail(ErrorCode::InvalidState, "there is no rehearsal to end");
  if (!TRY(find(std::string(guest::main_process_id)))->ended())
    return fail(ErrorCode::InvalidState, "the rehearsal's process is running");
  set_health({});
  if (build_) TRY(build_->take_down());
  build_.reset();
  processes_.clear();
  main_pidfd_.reset();
  main_mounts_.reset();
  TRY(forget_interfaces(config_.interfaces));
  TRY(cgroup_.start_over());
  TRY(forget_cached(machine_.scratch_disk));
  log_ = {};
  event_readers_.clear();
  config_ = {};
  configured_ = false;
  reply->send(nlohmann::json::object());
  return {};
}

/// Disks are written by a child, since a file server that hangs would hold up who does it.
Result<> Agent::shutdown(const Request&, const std::string&, const ReplyPtr& reply) {
  const auto write_disks = [this, reply] {
    if (build_) return reply->send(nlohmann::json::object());  // Nobody reads them again.
    const pid_t child = ::fork();
    if (child == 0) {
      ::sync();
      ::_exit(0);
    }
    const auto answer = [reply] { reply->send(nlohmann::json::object()); };
    const Timer deadline = loop_.after_ms(limits::shutdown_step_timeout_ms, answer);
    loop_.on_exit(child, [this, deadline, answer](int) {
      loop_.cancel(deadline);
      answer();
    });
  };
  set_health({});
  if (cgroup_.folder_fd() < 0) {
    write_disks();
    return {};
  }
  return cgroup_.kill_all(write_disks);
}

void Agent::set_health(guest::HealthConfig config) {
  ++probe_generation_;
  loop_.cancel(probe_timer_);
  loop_.cancel(probe_deadline_);
  if (probe_ && !probe_->ended()) (void)probe_->signal(SIGKILL, true);
  probe_.reset();
  monitor_.reset();
  health_config_ = std::move(config);
  if (health_config_.test.empty()) return;
  monitor_.emplace(health_config_, main_started_ns_);
  tell({.kind = guest::EventKind::Health,
        .process = std::string(guest::main_process_id),
        .health = guest::HealthStatus::Starting});
  schedule_probe();
}

void Agent::schedule_probe() {
  const int64_t wait_ns = std::max<int64_t>(0, monitor_->next_probe_ns() - base::boottime_ns());
  probe_timer_ = loop_.after_ms(wait_ns / 1'000'000, [this] { run_probe(); });
}

void Agent::run_probe() {
  const int64_t began_ns = base::boottime_ns();
  const uint64_t generation = probe_generation_;
  const auto finish = [this, began_ns, generation](bool succeeded) {
    if (generation == probe_generation_) finish_probe(succeeded, began_ns);
  };
  probe_ = std::make_shared<Process>(
      loop_, budget_,
      Process::Calls{[finish](const Result<>& result) {
                       if (!result) finish(false);
                     },
                     [finish](int wait_status) { finish(exit_code(wait_status) == 0); },
                     [this] {
                       // Only the end of it is of interest.
                       const uint64_t end = probe_ ? probe_->output().end() : 0;
                       if (end > limits::probe_output_bytes_max)
                         (void)probe_->acknowledge(end - limits::probe_output_bytes_max);
                     },
                     {}});
  guest::ProcessConfig process = config_.process;
  process.arguments = health_config_.test;
  process.terminal = false;
  process.stdin_open = false;
  Place place;
  place.cgroup_fd = cgroup_.folder_fd();
  place.join_pidfd = main_pidfd_.get();
  const auto timeout_ms =
      static_cast<int>(std::clamp<int64_t>(health_config_.timeout_ns / 1'000'000, 1, 86'400'000));
  if (!probe_->start(process, place, timeout_ms)) return finish(false);
  probe_deadline_ = loop_.after_ms(timeout_ms, [this] {
    if (probe_ && !probe_->ended()) (void)probe_->signal(SIGKILL, true);
  });
}

void Agent::finish_probe(bool succeeded, int64_t began_ns) {
  loop_.cancel(probe_deadline_);
  std::string detail;
  uint64_t offset = probe_->output().begin();
  std::string frames;
  while (probe_->output().copy_frames(offset, OutputFilter::All, SIZE_MAX, frames)) {
  }
  guest::OutputFrameDecoder decoder;
  (void)decoder.feed(frames, [&](const guest::OutputFrame& frame) -> Result<> {
    detail += frame.payload;
    return {};
  });
  if (detail.size() > limits::probe_output_bytes_max)
    detail.erase(0, detail.size() - limits::probe_output_bytes_max);
  const auto changed = monitor_->probe_finished(succeeded, began_ns, base::boottime_ns());
  if (changed)
    tell({.kind = guest::EventKind::Health,
          .process = std::string(guest::main_process_id),
          .health = *changed,
          .detail = std::move(detail)});
  // Not at once: we are inside a call of the probe itself.
  loop_.soon([this, generation = probe_generation_] {
    if (generation != probe_generation_) return;
    probe_.reset();
    schedule_probe();
  });
}

}  // namespace agent
