#include "api/builds.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "api/build_images.h"
#include "base/base64.h"
#include "base/deadline.h"
#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/overloaded.h"
#include "base/text.h"
#include "builder/build_limits.h"
#include "builder/copy.h"
#include "builder/root_tree.h"
#include "image/manifest.h"

namespace api {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;
namespace limits = base::limits;

constexpr size_t piece_bytes = 48u << 10;
constexpr int64_t stop_timeout_ms = 60'000;  ///< For cancelled builds to be gone.

std::string line_of(const json& line) { return base::dump_json(line) + "\n"; }

/// Of `builder start`.
Result<> check_settings(const json& settings) {
  if (!settings.is_object())
    return base::fail(ErrorCode::InvalidArgument, "the builder's settings are an object");
  for (const auto& [key, value] : settings.items()) {
    const bool is_good =
        key == "cpus" ? value.is_number_unsigned() && value.get<uint64_t>() >= 1 &&
                            value.get<uint64_t>() <= limits::container_cpus_max
        : key == "memory_bytes" ? value.is_number_unsigned() && value.get<uint64_t>() >= 1
        : key == "dns"
            ? value.is_array() && std::all_of(value.begin(), value.end(),
                                              [](const json& one) { return one.is_string(); })
            : false;
    if (!is_good)
      return base::fail(ErrorCode::InvalidArgument, "'{}' of the builder cannot be {}",
                        base::escape_controls(key), base::escape_controls(value.dump()));
  }
  return {};
}

json event_json(const builder::BuildEvent& event) {
  return std::visit(
      base::overloaded{[](const builder::VertexStarted& started) -> json {
                         return {{"type", "started"}, {"id", started.id}, {"name", started.name}};
                       },
                       [](const builder::VertexEnded& ended) -> json {
                         return {{"type", "ended"},
                                 {"id", ended.id},
                                 {"cached", ended.cached},
                                 {"cancelled", ended.cancelled},
                                 {"problem", ended.problem}};
                       },
                       [](const builder::VertexOutput& output) -> json {
                         return {{"type", "output"},
                                 {"id", output.id},
                                 {"stream", output.stream},
                                 {"data", base::encode_base64(output.bytes)}};
                       },
                       [](const builder::Warned& warned) -> json {
                         return {{"type", "warning"}, {"text", warned.text}};
                       }},
      event);
}

int64_t now_s() { return base::wall_time_ns() / 1'000'000'000; }

}  // namespace

struct Builds::Job {
  BuildOrder order;
  std::string folder;
  std::shared_ptr<ByteStream> stream;
  builder::Cancellation cancellation;
  std::unique_ptr<BuildImages> images;
  uint32_t vertices = 0;  ///< Told so far.

  void tell(const builder::BuildEvent& event) const { stream->write(line_of(event_json(event))); }
};

Builds::Builds(BuildsOptions options, image::Images& images, reconciler::BuildPort& builds,
               PlanRunner runner, RegistryService& registries)
    : options_(std::move(options)),
      images_(images),
      builds_(builds),
      runner_(runner),
      registries_(registries),
      cache_(
          builder::Cache::open(options_.root + "/cache.json", builder::limits::cache_bytes_max)) {}

Result<std::unique_ptr<Builds>> Builds::open(BuildsOptions options, image::Images& images,
                                             reconciler::BuildPort& builds, PlanRunner runner,
                                             RegistryService& registries) {
  // What builds of an earlier daemon left half done.
  TRY(base::remove_tree(options.root + "/running"));
  for (const char* folder : {"/running", "/mounts"})
    TRY(base::make_directories(options.root + folder));
  return std::unique_ptr<Builds>(
      new Builds(std::move(options), images, builds, runner, registries));
}

Builds::~Builds() { stop(); }

void Builds::stop() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  for (const auto& job : jobs_) {
    job->cancellation.cancel();
    job->stream->close();
  }
  for (const auto& stream : ending_) stream->close();
  changed_.wait(lock, [&] { return jobs_.empty() && ending_.empty(); });
}

std::vector<Route> Builds::routes() {
  const auto bound = [this](Result<HttpReply> (Builds::*handler)(const HttpRequest&)) {
    return [this, handler](const HttpRequest& request) { return (this->*handler)(request); };
  };
  return {{.method = "POST",
           .pattern = "/v1/builds",
           .handler = {},
           .upload = [this](const HttpRequest&, ByteStream& body) { return start(body); }},
          {.method = "GET", .pattern = "/v1/builder", .handler = bound(&Builds::builder_state)},
          {.method = "POST", .pattern = "/v1/builder", .handler = bound(&Builds::set_builder)},
          {.method = "POST", .pattern = "/v1/builder/prune", .handler = bound(&Builds::prune)}};
}

// ---- one build ---------------------------------------------------------------------------------

Result<HttpReply> Builds::start(ByteStream& body) {
  std::string bytes;
  std::string buffer(piece_bytes, '\0');
  size_t end = std::string::npos;
  while (end == std::string::npos) {
    const size_t count = body.read(buffer, -1);
    bytes.append(buffer, 0, count);
    end = bytes.find('\n');
    if (end == std::string::npos && (count == 0 || bytes.size() > limits::api_request_bytes_max))
      return base::fail(ErrorCode::InvalidArgument, "a build begins with a line of JSON");
  }
  const auto job = std::make_shared<Job>();
  job->order = TRY(
      build_order_from_json(TRY(base::parse_json(bytes.substr(0, end))), options_.architecture));
  size_machine(job->order);
  job->folder = fmt::format("{}/running/{}", options_.root, base::random_hex(8));
  TRY(base::make_directories(job->folder));
  Result<> spooled = spool(bytes.substr(end + 1), body, *job);
  if (!spooled) {
    (void)base::remove_tree(job->folder);
    return tl::unexpected<base::Error>(spooled.error());
  }
  job->stream = TRY(ByteStream::create(limits::api_output_stream_bytes_max));
  job->stream->on_close([weak = std::weak_ptr(job)] {
    if (const auto alive = weak.lock()) alive->cancellation.cancel();
  });
  const std::lock_guard lock(mutex_);
  if (stopping_) return base::fail(ErrorCode::InvalidState, "the system is stopping");
  jobs_.insert(job);
  std::thread([this, job] { run(job); }).detach();
  return HttpReply{.status = 200, .body = {}, .stream = job->stream, .upgrade = {}};
}

Result<> Builds::spool(std::string first_bytes, ByteStream& body, Job& job) const {
  if (!job.order.tar_follows) return {};
  job.order.request.context_tar = job.folder + "/context";
  const base::UniqueFd file =
      TRY(base::open_file(job.order.request.context_tar, O_WRONLY | O_CREAT | O_EXCL));
  uint64_t total = 0;
  // The line may have come alone: only a read that gives nothing is the end.
  std::string piece = std::move(first_bytes);
  do {
    total += piece.size();
    if (total > limits::context_bytes_max)
      return base::fail(ErrorCode::InvalidArgument, "the context is larger than {} GiB",
                        limits::context_bytes_max >> 30);
    TRY_DURING(base::write_all(file.get(), piece), "store the context");
    piece.resize(piece_bytes);
    piece.resize(body.read(piece, -1));
  } while (!piece.empty());
  return {};
}

/// On a thread of its own, from the first event to the result.
void Builds::run(const std::shared_ptr<Job>& job) {
  const Result<json> result = build(*job);
  json line = {{"type", "result"}, {"success", result.has_value()}};
  if (result) {
    line.update(*result);
  } else {
    line["code"] = std::string(base::error_code_name(result.error().code()));
    line["message"] = result.error().to_string();
  }
  if (const auto saved = cache_->save(); !saved) spdlog::warn("{}", saved.error().to_string());
  if (const auto removed = base::remove_tree(job->folder); !removed)
    spdlog::warn("a build's folder stays: {}", removed.error().to_string());
  // Told last: whoever hears of the end may ask for what no build may be running for.
  const std::shared_ptr<ByteStream> stream = job->stream;
  {
    const std::lock_guard lock(mutex_);
    ending_.insert(stream);
    jobs_.erase(job);
    changed_.notify_all();
  }
  stream->write(line_of(line));
  stream->finish();
  const std::lock_guard lock(mutex_);
  ending_.erase(stream);
  changed_.notify_all();
}

Result<json> Builds::build(Job& job) {
  job.images = TRY(BuildImages::create(
      images_, registries_, job.order,
      [stream = job.stream](const json& line) { stream->write(line_of(line)); }, job.cancellation));
  BuildMachines machines(runner_, builds_, job.order.machine, job.order.request.network,
                         job.cancellation);
  const builder::BuildPorts ports{
      .store = images_.store(),
      .cache = *cache_,
      .machines = machines,
      .fetch_image = [&](const builder::ImageWanted& wanted,
                         const builder::StepNote& note) { return job.images->fetch(wanted, note); },
      .work_folder = job.folder,
      .digest_file = options_.root + "/digests",
      .cache_folder = options_.root + "/mounts",
      .now_s = now_s()};
  image::Lease lease = images_.store().lease();
  TRY(import_caches(job, lease));
  job.order.request.vertices_told = job.vertices;
  const builder::BuildResult made = TRY(builder::build(
      job.order.request, ports, [&](const builder::BuildEvent& event) { job.tell(event); },
      job.cancellation));
  job.vertices = made.vertices_told;
  if (job.order.request.check_only) return json{{"warnings", made.warnings}};
  TRY(export_caches(job, made));
  TRY(write_output(job, made));
  return json{{"digest", made.image.digest},
              {"config", made.config_digest},
              {"tags", job.order.request.tags},
              {"warnings", made.warnings}};
}

/// Before and behind the steps of the Dockerfile.
Result<> Builds::as_step(Job& job, const std::string& name,
                         const std::function<Result<>(const builder::StepNote&)>& work) {
  const uint32_t id = ++job.vertices;
  job.tell(builder::VertexStarted{.id = id, .name = name});
  Result<> done = work([&](const std::string& line) {
    job.tell(builder::VertexOutput{.id = id, .stream = 2, .bytes = line + "\n"});
  });
  builder::VertexEnded ended{.id = id, .problem = {}};
  if (!done) {
    ended.problem = done.error().to_string();
    ended.cancelled = done.error().code() == ErrorCode::Cancelled;
  }
  job.tell(ended);
  return done;
}

Result<size_t> Builds::import_cache(Job& job, const builder::CachePlace& place, image::Lease& lease,
                                    const builder::StepNote& note) {
  const image::Descriptor packed =
      place.kind == builder::CachePlace::Kind::Local
          ? TRY(builder::read_cache_folder(images_.store(), lease, place.place))
          : TRY(job.images->fetch_cache(place.place, lease, note));
  return builder::unpack_cache(images_.store(), lease, *cache_, packed, now_s());
}

Result<> Builds::import_caches(Job& job, image::Lease& lease) {
  for (const builder::CachePlace& place : job.order.cache_from) {
    const std::string name = base::escape_controls(place.place);
    TRY(as_step(job, "import the cache from " + name,
                [&](const builder::StepNote& note) -> Result<> {
                  const Result<size_t> taken = import_cache(job, place, lease, note);
                  if (taken) {
                    note(fmt::format("{} steps", *taken));
                    return {};
                  }
                  if (taken.error().code() == ErrorCode::Cancelled)
                    return tl::unexpected<base::Error>(taken.error());
                  // A cache that is not there yet is how every cache begins.
                  job.tell(builder::Warned{.text = fmt::format("the cache '{}' is not used: {}\n",
                                                               name, taken.error().to_string())});
                  return {};
                }));
  }
  return {};
}

Result<> Builds::export_caches(Job& job, const builder::BuildResult& result) {
  if (job.order.cache_to.empty()) return {};
  const image::Descriptor packed =
      TRY(builder::pack_cache(images_.store(), *result.lease, *cache_, result.cache_keys));
  for (const builder::CachePlace& place : job.order.cache_to) {
    const std::string name = base::escape_controls(place.place);
    TRY_DURING(as_step(job, "export the cache to " + name,
                       [&](const builder::StepNote& note) {
                         return place.kind == builder::CachePlace::Kind::Local
                                    ? builder::write_cache_folder(images_.store(), packed,
                                                                  place.place)
                                    : job.images->push_cache(place.place, packed, note);
                       }),
               "the image is built, but its cache is not at '{}'", name);
  }
  return {};
}

/// The files of the image as a tar, in pieces, as part of the answer.
Result<> Builds::write_output(Job& job, const builder::BuildResult& result) {
  if (job.order.output != BuildOutput::Tar && job.order.output != BuildOutput::Local) return {};
  image::Store& store = images_.store();
  const image::Manifest manifest = TRY(image::read_manifest(store, result.image));
  const image::Config config = TRY(image::read_config(store, manifest.config));
  std::vector<std::string> disks;
  for (const std::string& diff_id : config.diff_ids) disks.push_back(store.layer_path(diff_id));
  const auto tree = TRY(builder::open_root_tree(disks));
  std::string waiting;
  const auto flush = [&]() -> Result<> {
    const bool heard =
        job.stream->write(line_of({{"type", "file"}, {"data", base::encode_base64(waiting)}}));
    waiting.clear();
    if (heard) return {};
    return base::fail(ErrorCode::Cancelled, "the client left");
  };
  TRY(builder::write_tree(*tree, "", {}, [&](std::string_view bytes) -> Result<> {
    waiting.append(bytes);
    return waiting.size() >= piece_bytes ? flush() : Result<>{};
  }));
  return waiting.empty() ? Result<>{} : flush();
}

// ---- the builder -------------------------------------------------------------------------------

/// What `builder start` said, where the build itself says nothing.
void Builds::size_machine(BuildOrder& order) const {
  const auto text =
      base::read_file(options_.root + "/builder.json", builder::limits::settings_bytes_max);
  if (!text) return;
  const auto settings = base::parse_json(*text);
  if (!settings) return;
  if (!order.has_cpus)
    order.machine.cpus = static_cast<double>(
        base::json_int_or(*settings, "cpus", static_cast<int64_t>(order.machine.cpus)));
  if (!order.has_memory)
    order.machine.memory_bytes = static_cast<uint64_t>(base::json_int_or(
        *settings, "memory_bytes", static_cast<int64_t>(order.machine.memory_bytes)));
  const auto dns = settings->find("dns");
  if (order.machine.dns.empty() && dns != settings->end() && dns->is_array())
    for (const json& one : *dns)
      if (one.is_string()) order.machine.dns.push_back(one.get<std::string>());
}

Result<HttpReply> Builds::builder_state(const HttpRequest&) {
  BuildOrder order;
  size_machine(order);
  const std::lock_guard lock(mutex_);
  return json_reply({{"started", base::path_exists(options_.root + "/builder.json")},
                     {"cpus", order.machine.cpus},
                     {"memory_bytes", order.machine.memory_bytes},
                     {"builds", jobs_.size()},
                     {"cache_bytes", cache_->bytes()},
                     {"cache_entries", cache_->entries()}});
}

/// {"start": {cpus, memory_bytes, dns}} or {"stop": true}; "delete" forgets the cache as well.
Result<HttpReply> Builds::set_builder(const HttpRequest& request) {
  const json body = TRY(base::parse_json(request.body));
  const std::string file = options_.root + "/builder.json";
  if (const auto settings = body.find("start"); settings != body.end()) {
    TRY(check_settings(*settings));
    TRY(base::write_file_atomically(file, base::dump_json(*settings)));
    return json_reply({{"started", true}});
  }
  const bool forget = base::json_bool_or(body, "delete", false);
  if (!forget && !base::json_bool_or(body, "stop", false))
    return base::fail(ErrorCode::InvalidArgument, "say start, stop or delete");
  std::unique_lock lock(mutex_);
  if (forget && !jobs_.empty() && !base::json_bool_or(body, "force", false))
    return base::fail(ErrorCode::InvalidState,
                      "{} build(s) are running; wait for them, or use --force", jobs_.size());
  const std::set<std::shared_ptr<Job>> ended = jobs_;
  for (const auto& job : ended) job->cancellation.cancel();
  const auto runs = [&](const std::shared_ptr<Job>& job) { return jobs_.contains(job); };
  if (!changed_.wait_for(lock, std::chrono::milliseconds(stop_timeout_ms),
                         [&] { return std::none_of(ended.begin(), ended.end(), runs); }))
    return base::fail(ErrorCode::Timeout, "a build does not end; try again");
  if (::unlink(file.c_str()) != 0 && errno != ENOENT)
    return base::fail_errno(errno, fmt::format("delete '{}'", file));
  if (forget) {
    if (!jobs_.empty())
      return base::fail(ErrorCode::Busy, "another build has begun; try again when it has ended");
    cache_->prune(std::nullopt);
    TRY(cache_->save());
    TRY(forget_mounts());
  }
  return json_reply({{"started", false}});
}

/// Under the lock, with no build that could use them.
Result<> Builds::forget_mounts() const {
  TRY(base::remove_tree(options_.root + "/mounts"));
  return base::make_directories(options_.root + "/mounts");
}

/// {"all": true}: mounts, too. {"keep_bytes": N}: only what is over.
Result<HttpReply> Builds::prune(const HttpRequest& request) {
  const json body = TRY(base::parse_json(request.body));
  const int64_t keep = base::json_int_or(body, "keep_bytes", 0);
  if (base::json_bool_or(body, "all", false)) {
    const std::lock_guard lock(mutex_);
    if (!jobs_.empty())
      return base::fail(ErrorCode::Busy,
                        "{} build(s) are running and may use cache mounts; wait for them, or leave "
                        "out --all",
                        jobs_.size());
    TRY(forget_mounts());
  }
  const size_t entries =
      keep > 0 ? cache_->shrink(static_cast<uint64_t>(keep)) : cache_->prune(std::nullopt);
  TRY(cache_->save());
  const uint64_t reclaimed = TRY(images_.store().collect()).bytes;
  return json_reply({{"entries", entries}, {"reclaimed_bytes", reclaimed}});
}

}  // namespace api
