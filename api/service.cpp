#include "api/service.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <optional>
#include <thread>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "api/space.h"
#include "api/wire.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "base/trace.h"

namespace api {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;
using reconciler::Ended;
using reconciler::Progress;
namespace limits = base::limits;

namespace {

/// For the record of an end that was told, and the removal after it; then the answer goes without.
constexpr int exit_wait_ms = 5'000;
/// For the last span of a timeline.
constexpr int trace_end_timeout_ms = 10'000;

const char* kind_name(reconciler::ContainerNotice::Kind kind) {
  switch (kind) {
    case reconciler::ContainerNotice::Kind::Created: return "created";
    case reconciler::ContainerNotice::Kind::Started: return "started";
    case reconciler::ContainerNotice::Kind::Exited: return "exited";
    case reconciler::ContainerNotice::Kind::Restarting: return "restarting";
    case reconciler::ContainerNotice::Kind::Health: return "health";
    case reconciler::ContainerNotice::Kind::Paused: return "paused";
    case reconciler::ContainerNotice::Kind::Resumed: return "resumed";
    case reconciler::ContainerNotice::Kind::Removed: return "removed";
  }
  return "unknown";
}

/// Empty for what the wire does not carry.
std::string kind_name(Progress::Kind kind) {
  switch (kind) {
    case Progress::Kind::StepStarted: return "step-started";
    case Progress::Kind::StepDone: return "step-done";
    case Progress::Kind::StepFailed: return "step-failed";
    case Progress::Kind::StepSkipped: return "step-skipped";
    case Progress::Kind::PlanStarted:
    case Progress::Kind::PlanFinished: break;
  }
  return "";
}

bool is_running(const planner::ContainerRecord& record) {
  return record.phase == planner::Phase::Running || record.phase == planner::Phase::Unknown;
}

Result<json> body_of(const HttpRequest& request) {
  if (request.body.empty()) return json::object();
  json body = TRY(base::parse_json(request.body));
  if (!body.is_object()) return fail(ErrorCode::InvalidArgument, "the request is no JSON object");
  return body;
}

std::string line_of(const json& value) { return base::dump_json(value) + "\n"; }

}  // namespace

Service::Service(reconciler::Ports ports, image::Images& images, reconciler::Reconciler& reconciler,
                 SystemFacts facts, std::function<void()> exit)
    : ports_(ports),
      images_(images),
      reconciler_(reconciler),
      facts_(std::move(facts)),
      exit_(std::move(exit)) {}

Service::~Service() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return log_readers_ == 0; });
}

std::vector<Route> Service::routes() {
  const auto bound = [this](Reply (Service::*handler)(const HttpRequest&)) {
    return [this, handler](const HttpRequest& request) { return (this->*handler)(request); };
  };
  const auto route = [&](const char* method, const char* pattern,
                         Reply (Service::*handler)(const HttpRequest&)) {
    return Route{.method = method, .pattern = pattern, .handler = bound(handler), .upload = {}};
  };
  return {
      route("GET", "/v1/ping", &Service::status),
      route("GET", "/v1/system", &Service::status),
      route("POST", "/v1/system/stop", &Service::stop_system),
      route("GET", "/v1/containers", &Service::containers),
      route("GET", "/v1/containers/*", &Service::container),
      route("GET", "/v1/containers/*/logs", &Service::logs),
      route("POST", "/v1/containers/*/attach", &Service::attach),
      route("POST", "/v1/containers/*/exec", &Service::exec),
      route("GET", "/v1/containers/*/trace", &Service::trace),
      route("GET", "/v1/networks", &Service::networks),
      route("GET", "/v1/volumes", &Service::volumes),
      route("POST", "/v1/plan", &Service::plan),
      route("POST", "/v1/apply", &Service::apply),
      route("GET", "/v1/notices", &Service::notices),
  };
}

// ---- the loop ----------------------------------------------------------------------------------

Result<> Service::on_loop(const std::function<void()>& call) {
  struct Wait {
    std::mutex mutex;
    std::condition_variable done;
    bool finished = false;
    bool given_up = false;
  };
  const auto wait = std::make_shared<Wait>();
  ports_.workers.post([wait, call] {
    const std::lock_guard lock(wait->mutex);
    if (wait->given_up) return;  // what `call` refers to is gone
    call();
    wait->finished = true;
    wait->done.notify_all();
  });
  std::unique_lock lock(wait->mutex);
  if (wait->done.wait_for(lock, std::chrono::milliseconds(limits::api_loop_call_timeout_ms),
                          [&] { return wait->finished; }))
    return {};
  wait->given_up = true;
  return fail(ErrorCode::Timeout, "the daemon is too busy to answer; try again");
}

/// Whoever heard of a process's end finds it in what is asked for next. What does not get written
/// is no reason to wait for long, and whoever asks for some containers waits for no others.
Result<planner::Snapshot> Service::snapshot_after(const std::vector<std::string>& ids,
                                                  Ended ended) {
  struct Wait {
    std::mutex mutex;
    std::condition_variable done;
    std::optional<planner::Snapshot> seen;
    bool given_up = false;
  };
  const auto wait = std::make_shared<Wait>();
  ports_.workers.post([this, wait, ids, ended] {
    reconciler_.when_ended(ids, ended, [this, wait] {
      const std::lock_guard lock(wait->mutex);
      if (wait->given_up) return;
      wait->seen = reconciler_.snapshot();
      wait->done.notify_all();
    });
  });
  {
    std::unique_lock lock(wait->mutex);
    if (wait->done.wait_for(lock, std::chrono::milliseconds(exit_wait_ms),
                            [&] { return wait->seen.has_value(); }))
      return std::move(*wait->seen);
    wait->given_up = true;
  }
  planner::Snapshot snapshot;
  TRY(on_loop([&] { snapshot = reconciler_.snapshot(); }));
  return snapshot;
}

Result<planner::Snapshot> Service::snapshot_for(const Command& command) {
  const auto* create = std::get_if<CreateCommand>(&command);
  // What is made anew needs ports and addresses that others gave back, and its name.
  if (create != nullptr)
    TRY(snapshot_after({create->stack.services.begin()->first}, Ended::Removed));
  planner::Snapshot actual =
      TRY(snapshot_after(containers_of(command), create ? Ended::Noted : Ended::Removed));
  for (const std::string& reference : image_references(command))
    if (Result<std::string> digest = images_.digest_of(reference))
      actual.image_digests.emplace(reference, std::move(*digest));
  return actual;
}

// ---- what there is -----------------------------------------------------------------------------

Service::Reply Service::status(const HttpRequest&) {
  return json_reply({{"status", "running"},
                     {"version", facts_.version},
                     {"pid", ::getpid()},
                     {"epoch", facts_.epoch},
                     {"appRoot", facts_.app_root},
                     {"installRoot", facts_.install_root},
                     {"logRoot", facts_.log_root},
                     {"apiServerVersion", facts_.version},
                     {"apiServerAppName", "container-apiserver"},
                     {"accelerator", facts_.accelerator},
                     {"acceleratorReason", facts_.accelerator_reason},
                     {"wayOut", facts_.way_out ? facts_.way_out() : ""}});
}

Service::Reply Service::containers(const HttpRequest& request) {
  const planner::Snapshot actual = TRY(snapshot());
  json list = json::array();
  for (const auto& [id, record] : actual.containers)
    if (request.flag("all") || is_running(record)) list.push_back(planner::to_json(record));
  return json_reply(list);
}

Service::Reply Service::container(const HttpRequest& request) {
  const planner::Snapshot actual = TRY(snapshot_after({request.segments.at(0)}, Ended::Removed));
  const auto found = actual.containers.find(request.segments.at(0));
  if (found == actual.containers.end())
    return fail(ErrorCode::NotFound, "container '{}' does not exist",
                base::escape_controls(request.segments.at(0)));
  return json_reply(planner::to_json(found->second));
}

Service::Reply Service::networks(const HttpRequest&) {
  const planner::Snapshot actual = TRY(snapshot());
  json list = json::array();
  for (const auto& [name, record] : actual.networks) list.push_back(planner::to_json(record));
  return json_reply(list);
}

Service::Reply Service::volumes(const HttpRequest&) {
  const planner::Snapshot actual = TRY(snapshot());
  json list = json::array();
  for (const auto& [name, record] : actual.volumes) list.push_back(planner::to_json(record));
  return json_reply(list);
}

Result<std::set<std::string>> Service::images_in_use() {
  std::set<std::string> in_use;
  for (const auto& [id, record] : TRY(snapshot()).containers) in_use.insert(record.image_digest);
  return in_use;
}

// ---- plans -------------------------------------------------------------------------------------

/// With `access`, images that are not here count as what their registries have now; a note says
/// that `up` fetches them first.
Service::Reply Service::plan(const HttpRequest& request) {
  json body = TRY(body_of(request));
  const json access = body.contains("access") ? body.at("access") : json();
  body.erase("access");
  std::set<std::string> left;
  if (const auto not_pulled = body.find("not_pulled"); not_pulled != body.end()) {
    for (const json& one : *not_pulled)
      if (one.is_string()) left.insert(one.get<std::string>());
    body.erase(not_pulled);
  }
  const CommandRequest asked = TRY(command_from_json(body));
  planner::Snapshot actual = TRY(snapshot_for(asked.command));
  std::vector<planner::Note> notes;
  left.merge(built_images(asked.command));
  for (const std::string& reference : image_references(asked.command)) {
    if (access.is_null() || actual.image_digests.contains(reference) || left.contains(reference))
      continue;
    const std::string digest =
        TRY_DURING(remote_digest_(reference, access), "look for image '{}'", reference);
    actual.image_digests.emplace(reference, digest);
    notes.push_back(
        {.kind = planner::NoteKind::Warning,
         .address = "image." + reference,
         .text = fmt::format("is not on this system; it is pulled first ({})", digest)});
  }
  planner::Plan made = TRY(make_plan(asked.command, actual));
  made.notes.insert(made.notes.begin(), notes.begin(), notes.end());
  return json_reply(planner::to_json(made));
}

Service::Reply Service::apply(const HttpRequest& request) {
  const json body = TRY(body_of(request));
  Job job;
  if (const auto saved = body.find("plan"); saved != body.end()) {
    job.plan = TRY(planner::plan_from_json(*saved));
    job.owner = base::json_string_or(body, "owner", "a saved plan");
    job.wait_for_lock = base::json_bool_or(body, "wait_for_lock", true);
    return run(std::move(job));
  }
  CommandRequest asked = TRY(command_from_json(body));
  const auto* create = std::get_if<CreateCommand>(&asked.command);
  const std::string id = create != nullptr ? create->stack.services.begin()->first : "";
  const bool attach = create != nullptr && create->attach;
  if (create != nullptr && create->trace) base::begin_trace(id);
  base::TraceScope planning(id, "daemon", "the plan is made");
  const planner::Snapshot actual = TRY(snapshot_for(asked.command));
  job.plan = TRY(make_plan(asked.command, actual));
  planning.close();
  if (std::holds_alternative<PruneVolumesCommand>(asked.command)) {
    job.volume_bytes.emplace();
    for (const auto& [step, name] : resource_names(job.plan))
      job.volume_bytes->emplace(name, allocated_tree_bytes(ports_.runtime.volume_path(name)));
  }
  job.owner = asked.owner;
  job.wait_for_lock = asked.wait_for_lock;
  job.replan = [command = std::move(asked.command),
                digests = actual.image_digests](const planner::Snapshot& now) {
    planner::Snapshot with_images = now;
    with_images.image_digests = digests;
    return make_plan(command, with_images);
  };
  return attach ? run_attached(std::move(job), id) : run(std::move(job));
}

Service::Reply Service::trace(const HttpRequest& request) {
  return json_reply(
      base::to_json(TRY(base::end_trace(request.segments.at(0), request.parameter("until"),
                                        base::Deadline::in_ms(trace_end_timeout_ms)))));
}

Service::Reply Service::stop_system(const HttpRequest& request) {
  const json body = TRY(body_of(request));
  StopCommand stop;
  stop.chosen.all = true;
  stop.grace_ms = TRY(read_milliseconds(body, "grace_ms"));
  Job job;
  job.plan = TRY(make_plan(stop, TRY(snapshot())));
  job.owner = "system stop";
  // Whatever ends or is removed by itself meanwhile is no reason to stay.
  job.replan = [stop](const planner::Snapshot& now) { return make_plan(stop, now); };
  job.afterwards = exit_;
  return run(std::move(job));
}

namespace {

/// What the last line tells of a plan, as far as it has got. On the loop only.
struct Effect {
  std::vector<std::string> ids;
  std::map<uint32_t, std::string> names;  ///< By step.
  std::vector<std::string> done;          ///< Of the names, in the order it was done.
  std::optional<std::map<std::string, uint64_t>> volume_bytes;

  void plan(const planner::Plan& plan) {
    ids = container_ids(plan);
    names = resource_names(plan);
  }
  void note(const Progress& progress) {
    if (progress.kind != Progress::Kind::StepDone) return;
    if (const auto found = names.find(progress.step.value); found != names.end())
      done.push_back(found->second);
  }
  json line(const Result<>& result) const {
    json line = {
        {"type", "result"}, {"success", result.has_value()}, {"ids", ids}, {"names", done}};
    if (!result) {
      line["code"] = std::string(base::error_code_name(result.error().code()));
      line["message"] = result.error().to_string();
    }
    if (!volume_bytes) return line;
    uint64_t reclaimed = 0;
    for (const std::string& name : done)
      if (const auto known = volume_bytes->find(name); known != volume_bytes->end())
        reclaimed += known->second;
    line["reclaimed_bytes"] = reclaimed;
    return line;
  }
};

}  // namespace

/// Lines as the plan is carried out. Whoever hangs up does not want what has not begun.
Service::Reply Service::run(Job job) {
  const std::shared_ptr<ByteStream> stream =
      TRY(ByteStream::create(limits::api_event_stream_bytes_max));
  stream->push(line_of({{"type", "plan"}, {"plan", planner::to_json(job.plan)}}));
  const auto effect = std::make_shared<Effect>();
  effect->plan(job.plan);
  effect->volume_bytes = std::move(job.volume_bytes);
  reconciler::ApplyRequest request;
  request.owner = job.owner;
  request.wait_for_lock = job.wait_for_lock;
  if (job.replan)
    request.replan = [effect, replan = std::move(job.replan)](const planner::Snapshot& now) {
      Result<planner::Plan> plan = replan(now);
      if (plan) effect->plan(*plan);
      return plan;
    };
  request.progress = [this, stream, effect, owner = job.owner](const Progress& progress) {
    effect->note(progress);
    const std::string kind = kind_name(progress.kind);
    if (!kind.empty())
      stream->push(line_of({{"type", "progress"},
                            {"kind", kind},
                            {"step", progress.step.value},
                            {"text", progress.text}}));
    if (stream->closed()) reconciler_.cancel(owner);
  };
  request.finished = [stream, effect,
                      afterwards = std::move(job.afterwards)](const Result<>& result) {
    stream->push(line_of(effect->line(result)));
    stream->finish();
    if (afterwards) afterwards();
  };
  request.plan = std::move(job.plan);
  stream->on_close([this, owner = job.owner] {
    ports_.workers.post([this, owner] { reconciler_.cancel(owner); });
  });
  ports_.workers.post(
      [this, request = std::move(request)]() mutable { reconciler_.apply(std::move(request)); });
  return HttpReply{.status = 200, .body = {}, .stream = stream, .upgrade = {}};
}

// ---- processes ---------------------------------------------------------------------------------

Service::Reply Service::logs(const HttpRequest& request) {
  const std::string id = request.segments.at(0);
  reconciler::LogRequest wanted;
  wanted.follow = request.flag("follow");
  wanted.boot = request.flag("boot");
  if (const std::string last = request.parameter("last"); !last.empty()) {
    if (last.size() > 18 || last.find_first_not_of("0123456789") != std::string::npos)
      return fail(ErrorCode::InvalidArgument, "'last' is a number of lines, not '{}'",
                  base::escape_controls(last));
    wanted.last_lines = std::stoull(last);
  }
  TRY(container(request));
  const std::shared_ptr<ByteStream> stream =
      TRY(ByteStream::create(limits::api_output_stream_bytes_max));
  wanted.cancelled = [stream] { return stream->closed(); };
  {
    const std::lock_guard lock(mutex_);
    ++log_readers_;
  }
  std::thread([this, id, wanted, stream] {
    copy_logs(id, wanted, *stream);
    const std::lock_guard lock(mutex_);
    --log_readers_;
    changed_.notify_all();
  }).detach();
  return HttpReply{.status = 200, .body = {}, .stream = stream, .upgrade = {}};
}

/// Until the reader has everything, or left.
void Service::copy_logs(const std::string& id, const reconciler::LogRequest& wanted,
                        ByteStream& stream) {
  const Result<> copied = ports_.runtime.logs(id, wanted, [&](int which, std::string_view bytes) {
    std::string frames;
    append_frame(frames, which == 2 ? FrameKind::Stderr : FrameKind::Stdout, bytes);
    return stream.write(frames);
  });
  if (!copied && copied.error().code() != ErrorCode::Cancelled) {
    std::string frame;
    append_frame(
        frame, FrameKind::Failure,
        base::dump_json({{"code", std::string(base::error_code_name(copied.error().code()))},
                         {"message", copied.error().to_string()}}));
    (void)stream.write(frame);
  }
  stream.finish();
}

Service::Reply Service::talk_to(std::unique_ptr<reconciler::ProcessSession> session,
                                const std::string& container) {
  HttpReply reply;
  // Copyable, as a std::function must be.
  std::shared_ptr<reconciler::ProcessSession> shared = std::move(session);
  reply.upgrade = [this, shared, container](int socket, std::string first_bytes) {
    serve_process(socket, std::move(first_bytes), *shared, {attached_, container});
  };
  return reply;
}

namespace {

Result<reconciler::ExecRequest> read_exec(const json& body) {
  reconciler::ExecRequest request;
  for (const auto& [key, into] : {std::pair{"arguments", &request.arguments},
                                  std::pair{"environment", &request.environment}}) {
    const auto list = body.find(key);
    if (list == body.end()) continue;
    if (!list->is_array()) return fail(ErrorCode::InvalidArgument, "'{}' must be a list", key);
    for (const json& one : *list) {
      if (!one.is_string()) return fail(ErrorCode::InvalidArgument, "'{}' holds no text", key);
      into->push_back(one.get<std::string>());
    }
  }
  if (request.arguments.empty()) return fail(ErrorCode::InvalidArgument, "say what to run");
  if (const std::string folder = base::json_string_or(body, "working_dir", ""); !folder.empty())
    request.working_dir = folder;
  if (const std::string user = base::json_string_or(body, "user", ""); !user.empty())
    request.user = user;
  request.terminal = base::json_bool_or(body, "terminal", false);
  request.stdin_open = base::json_bool_or(body, "stdin_open", false);
  const auto size = [&](const char* key, int64_t fallback) {
    return static_cast<uint16_t>(
        std::clamp<int64_t>(base::json_int_or(body, key, fallback), 1, UINT16_MAX));
  };
  request.rows = size("rows", 24);
  request.columns = size("columns", 80);
  return request;
}

}  // namespace

Service::Reply Service::attach(const HttpRequest& request) {
  const std::string& id = request.segments.at(0);
  return talk_to(TRY(ports_.runtime.attach(id, request.flag("from_start"))), id);
}

Service::Reply Service::exec(const HttpRequest& request) {
  const reconciler::ExecRequest wanted = TRY(read_exec(TRY(body_of(request))));
  TRY(container(request));
  const std::string& id = request.segments.at(0);
  return talk_to(TRY(ports_.runtime.exec(id, wanted)), id);
}

// ---- notices -----------------------------------------------------------------------------------

Service::Reply Service::notices(const HttpRequest& request) {
  const std::shared_ptr<ByteStream> stream =
      TRY(ByteStream::create(limits::api_event_stream_bytes_max));
  stream->push(line_of({{"type", "ready"}}));
  const std::lock_guard lock(mutex_);
  listeners_.push_back({.stream = stream, .project = request.parameter("project")});
  return HttpReply{.status = 200, .body = {}, .stream = stream, .upgrade = {}};
}

void Service::tell(const reconciler::ContainerNotice& notice) {
  const planner::ContainerRecord& record = notice.record;
  if (notice.kind == reconciler::ContainerNotice::Kind::Paused)
    attached_.tell(record.id,
                   fmt::format("container '{}' is paused: {}", record.id, record.paused_reason));
  if (notice.kind == reconciler::ContainerNotice::Kind::Resumed)
    attached_.tell(record.id, fmt::format("container '{}' goes on", record.id));
  const std::lock_guard lock(mutex_);
  std::erase_if(listeners_, [](const Listener& listener) {
    const auto stream = listener.stream.lock();
    return !stream || stream->closed();
  });
  if (listeners_.empty()) return;
  const std::string line = line_of({{"type", kind_name(notice.kind)},
                                    {"container", planner::to_json(notice.record)},
                                    {"restart_in_ms", notice.restart_in_ms}});
  for (const Listener& listener : listeners_)
    if (listener.project.empty() || listener.project == notice.record.project)
      if (const auto stream = listener.stream.lock()) stream->push(line);
}

}  // namespace api
