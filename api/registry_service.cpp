#include "api/registry_service.h"

#include <map>
#include <optional>
#include <thread>

#include <sys/utsname.h>

#include <nlohmann/json.hpp>

#include "base/deadline.h"
#include "base/json.h"
#include "base/limits.h"
#include "image/check.h"
#include "image/manifest.h"
#include "image/reference.h"
#include "image/registry/access.h"
#include "image/registry/limits.h"

namespace api {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;
namespace registry = image::registry;

namespace {

std::string line_of(const json& value) { return base::dump_json(value) + "\n"; }

Result<json> body_of(const HttpRequest& request) {
  json body = TRY(base::parse_json(request.body));
  if (!body.is_object()) return fail(ErrorCode::InvalidArgument, "the request is no JSON object");
  return body;
}

Result<registry::Access> access_of(const json& body) {
  const auto access = body.find("access");
  if (access == body.end()) return registry::Access();
  return registry::access_from_json(*access);
}

Result<std::optional<image::Platform>> platform_of(const json& body) {
  const std::string text = base::json_string_or(body, "platform", "");
  if (text.empty()) return std::optional<image::Platform>();
  return std::optional(TRY(image::parse_platform(text)));
}

json progress_line(const registry::TransferProgress& now) {
  return {{"type", "progress"},
          {"blobs_done", now.blobs_done},
          {"blobs_total", now.blobs_total},
          {"bytes_done", now.bytes_done},
          {"bytes_total", now.bytes_total}};
}

/// Not more often than anybody could look.
registry::TransferObserver reporter(const std::shared_ptr<ByteStream>& stream) {
  return [stream, next_ns = int64_t{0}](const registry::TransferProgress& now) mutable {
    const int64_t time = base::boottime_ns();
    const bool complete = now.bytes_done == now.bytes_total && now.blobs_done == now.blobs_total;
    if (time < next_ns && !complete) return;
    next_ns = time + registry::limits::progress_interval_ms * 1'000'000;
    stream->push(line_of(progress_line(now)));
  };
}

}  // namespace

image::Platform RegistryService::own_platform() {
  utsname machine{};
  (void)::uname(&machine);
  return image::normalized({.os = "linux", .architecture = machine.machine, .variant = {}});
}

RegistryService::RegistryService(image::Images& images, image::Platform own)
    : images_(images), own_(std::move(own)) {}

Result<std::shared_ptr<registry::HttpClient>> RegistryService::http() {
  const std::lock_guard lock(mutex_);
  if (!http_) http_ = TRY(registry::HttpClient::create());
  return http_;
}

/// Cancelled when the daemon stops, which waits until the returned value is gone.
std::shared_ptr<registry::Cancel> RegistryService::cancel_with_us() {
  const auto cancel = std::make_shared<registry::Cancel>();
  const std::lock_guard lock(mutex_);
  running_.insert(cancel);
  if (stopping_) cancel->cancel();
  return {cancel.get(), [this, cancel](registry::Cancel*) {
            const std::lock_guard again(mutex_);
            running_.erase(cancel);
            changed_.notify_all();
          }};
}

Result<std::string> RegistryService::remote_digest(const std::string& reference,
                                                   const json& access) {
  const registry::Access allowed = TRY(registry::access_from_json(access));
  const std::shared_ptr<registry::Cancel> cancel = cancel_with_us();
  return registry::remote_digest(*TRY(http()), allowed, reference, *cancel);
}

Result<registry::Pulled> RegistryService::pull_image(registry::PullRequest request,
                                                     const registry::Access& access,
                                                     const registry::TransferObserver& observer,
                                                     registry::Cancel& cancel) {
  request.own = own_;
  return registry::pull(images_.store(), *TRY(http()), access, request, observer, cancel);
}

Result<registry::Pushed> RegistryService::push_image(const registry::PushRequest& request,
                                                     const registry::Access& access,
                                                     const registry::TransferObserver& observer,
                                                     registry::Cancel& cancel) {
  return registry::push(images_.store(), *TRY(http()), access, request, observer, cancel);
}

void RegistryService::stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  for (const auto& cancel : running_) cancel->cancel();
}

RegistryService::~RegistryService() {
  stop();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return running_.empty(); });
}

std::vector<Route> RegistryService::routes() {
  const auto route = [this](const char* pattern,
                            Reply (RegistryService::*handler)(const HttpRequest&)) {
    return Route{.method = "POST",
                 .pattern = pattern,
                 .handler = [this, handler](
                                const HttpRequest& request) { return (this->*handler)(request); },
                 .upload = {}};
  };
  return {desk_.route(),
          route("/v1/images/pull", &RegistryService::pull),
          route("/v1/images/push", &RegistryService::push),
          route("/v1/images/check", &RegistryService::check),
          route("/v1/images/present", &RegistryService::present),
          route("/v1/registries/login", &RegistryService::login)};
}

/// On a thread of its own, telling how it goes. Whoever hangs up ends it.
RegistryService::Reply RegistryService::run(Work work) {
  const std::shared_ptr<ByteStream> stream =
      TRY(ByteStream::create(base::limits::api_event_stream_bytes_max));
  std::shared_ptr<registry::Cancel> cancel = cancel_with_us();
  stream->on_close([weak = std::weak_ptr(cancel)] {
    if (const auto alive = weak.lock()) alive->cancel();
  });
  std::thread([this, stream, cancel = std::move(cancel), work = std::move(work)]() mutable {
    const registry::TransferObserver observer = reporter(stream);
    const TellLine tell = [&](const json& line) { stream->push(line_of(line)); };
    Result<json> done = work({.observer = observer, .tell = tell, .cancel = *cancel});
    json line = done ? std::move(*done) : json::object();
    line["type"] = "result";
    line["success"] = done.has_value();
    if (!done) {
      line["code"] = std::string(base::error_code_name(done.error().code()));
      line["message"] = done.error().to_string();
    }
    stream->push(line_of(line));
    stream->finish();
    cancel.reset();
  }).detach();
  return HttpReply{.status = 200, .body = {}, .stream = stream, .upgrade = {}};
}

RegistryService::Reply RegistryService::pull(const HttpRequest& request) {
  const json body = TRY(body_of(request));
  registry::PullRequest wanted;
  wanted.reference = TRY(base::json_string(body, "reference"));
  wanted.platform = TRY(platform_of(body));
  wanted.own = own_;
  wanted.digest = base::json_string_or(body, "digest", "");
  if (!wanted.platform && base::json_bool_or(body, "own_platform", false)) wanted.platform = own_;
  auto access = std::make_shared<registry::Access>(TRY(access_of(body)));
  return run([this, wanted = std::move(wanted), access](const Task& task) -> Result<json> {
    const registry::Pulled pulled = TRY(pull_image(wanted, *access, task.observer, task.cancel));
    return json{{"reference", pulled.reference},
                {"digest", pulled.digest},
                {"former_digest", pulled.former_digest}};
  });
}

RegistryService::Reply RegistryService::push(const HttpRequest& request) {
  const json body = TRY(body_of(request));
  registry::PushRequest wanted;
  wanted.reference = TRY(base::json_string(body, "reference"));
  wanted.platform = TRY(platform_of(body));
  auto access = std::make_shared<registry::Access>(TRY(access_of(body)));
  return run([this, wanted = std::move(wanted), access](const Task& task) -> Result<json> {
    const registry::Pushed pushed = TRY(push_image(wanted, *access, task.observer, task.cancel));
    return json{{"reference", pushed.reference},
                {"digest", pushed.digest},
                {"blobs_sent", pushed.blobs_sent},
                {"blobs_mounted", pushed.blobs_mounted},
                {"blobs_present", pushed.blobs_present}};
  });
}

RegistryService::Reply RegistryService::check(const HttpRequest& request) {
  const json body = request.body.empty() ? json::object() : TRY(body_of(request));
  const json access = body.value("access", json());
  return run([this, access](const Task& task) { return repair(access, task); });
}

/// Reads all of the store; what images lack comes from their registries again.
Result<json> RegistryService::repair(const json& access, const Task& task) {
  const auto allowed = TRY(TaskAccess::create(desk_, access, task.tell, task.cancel));
  std::map<std::string, base::Error> unreachable;  // by registry: nobody waits for one twice
  const auto fetch = [&](const std::string& reference, const image::Descriptor& blob) -> Result<> {
    const std::string domain = TRY(image::parse_reference(reference)).domain;
    if (const auto known = unreachable.find(domain); known != unreachable.end())
      return tl::unexpected<base::Error>(known->second);
    Result<> fetched =
        registry::pull_blob(images_.store(), *TRY(http()), TRY(allowed->for_image(reference)),
                            reference, blob, task.cancel);
    if (!fetched &&
        (fetched.error().code() == ErrorCode::Io || fetched.error().code() == ErrorCode::Timeout))
      unreachable.emplace(domain, fetched.error());
    return fetched;
  };
  const image::CheckReport report =
      TRY(image::check_store(images_.store(), fetch, [&] { return task.cancel.cancelled(); }));
  return json{{"blobs", report.blobs},
              {"disks", report.disks},
              {"repaired", report.repaired},
              {"problems", report.problems}};
}

/// Whether the platform of the reference is here, with all that belongs to it.
RegistryService::Reply RegistryService::present(const HttpRequest& request) {
  const json body = TRY(body_of(request));
  const std::string reference = TRY(base::json_string(body, "reference"));
  const image::Platform platform = TRY(platform_of(body)).value_or(own_);
  const std::string pinned = base::json_string_or(body, "digest", "");
  if (!pinned.empty()) return json_reply({{"present", images_.digest_of(pinned).has_value()}});
  const auto here = registry::is_here(images_.store(), reference, platform);
  const bool by_digest = !here && images_.digest_of(reference).has_value();
  return json_reply({{"present", here.value_or(by_digest)}});
}

RegistryService::Reply RegistryService::login(const HttpRequest& request) {
  const json body = TRY(body_of(request));
  const std::string host = TRY(base::json_string(body, "registry"));
  const registry::Access access = TRY(access_of(body));
  const std::shared_ptr<registry::Cancel> cancel = cancel_with_us();
  TRY(registry::check_login(*TRY(http()), access, host, *cancel));
  return json_reply(json::object());
}

}  // namespace api
