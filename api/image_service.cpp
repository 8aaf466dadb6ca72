#include "api/image_service.h"

#include <memory>
#include <thread>

#include <nlohmann/json.hpp>

#include "api/space.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"

namespace api {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;
namespace limits = base::limits;

json to_json(const reconciler::ImageSummary& image) {
  return {{"reference", image.reference},       {"digest", image.digest},
          {"created", image.created},           {"os", image.os},
          {"architecture", image.architecture}, {"size_bytes", image.size_bytes}};
}

Result<json> body_of(const HttpRequest& request) {
  json body = TRY(base::parse_json(request.body));
  if (!body.is_object()) return fail(ErrorCode::InvalidArgument, "the request is no JSON object");
  return body;
}

Result<std::vector<std::string>> references_of(const json& body) {
  std::vector<std::string> references;
  const auto list = body.find("references");
  if (list == body.end() || !list->is_array() || list->empty())
    return fail(ErrorCode::InvalidArgument, "'references' must be a list of images");
  for (const json& one : *list) {
    if (!one.is_string()) return fail(ErrorCode::InvalidArgument, "'references' holds no text");
    references.push_back(one.get<std::string>());
  }
  return references;
}

HttpReply removed_reply(const image::Removed& removed) {
  return json_reply(
      {{"deleted", removed.references}, {"reclaimed_bytes", removed.reclaimed_bytes}});
}

bool is_up(const planner::ContainerRecord& record) {
  return record.phase == planner::Phase::Running || record.phase == planner::Phase::Unknown;
}

json to_json(const DiskUse& use) {
  return {{"total", use.total},
          {"active", use.active},
          {"sizeInBytes", use.bytes},
          {"reclaimable", use.reclaimable_bytes}};
}

}  // namespace

ImageService::ImageService(image::Images& images, runtime::Folders folders, Snapshots snapshot)
    : images_(images), folders_(std::move(folders)), snapshot_(std::move(snapshot)) {}

ImageService::~ImageService() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return writers_ == 0; });
}

std::vector<Route> ImageService::routes() {
  const auto route = [this](const char* method, const char* pattern,
                            Reply (ImageService::*handler)(const HttpRequest&)) {
    return Route{.method = method,
                 .pattern = pattern,
                 .handler = [this, handler](
                                const HttpRequest& request) { return (this->*handler)(request); },
                 .upload = {}};
  };
  std::vector<Route> table{route("GET", "/v1/images", &ImageService::list),
                           route("GET", "/v1/images/inspect", &ImageService::inspect),
                           route("DELETE", "/v1/images", &ImageService::remove),
                           route("POST", "/v1/images/tag", &ImageService::tag),
                           route("POST", "/v1/images/prune", &ImageService::prune),
                           route("POST", "/v1/images/save", &ImageService::save),
                           route("GET", "/v1/system/df", &ImageService::disk_use)};
  table.push_back({.method = "POST",
                   .pattern = "/v1/images/load",
                   .handler = {},
                   .upload = [this](const HttpRequest& request, ByteStream& body) {
                     return load(request, body);
                   }});
  return table;
}

ImageService::Reply ImageService::list(const HttpRequest& request) {
  json list = json::array();
  for (const reconciler::ImageSummary& image : TRY(images_.list())) {
    json& one = list.emplace_back(to_json(image));
    if (!request.flag("verbose")) continue;
    one["variants"] = json::array();
    // One that is removed meanwhile, or damaged, hides no other.
    if (const auto details = images_.inspect(image.reference))
      one["variants"] = details->at("variants");
    for (json& variant : one["variants"]) variant.erase("config");
  }
  return json_reply(list);
}

ImageService::Reply ImageService::inspect(const HttpRequest& request) {
  return json_reply(TRY(images_.inspect(request.parameter("reference"))));
}

ImageService::Reply ImageService::load(const HttpRequest& request, ByteStream& body) {
  const auto source = [&](char* buffer, size_t capacity) -> Result<size_t> {
    return body.read({buffer, capacity}, -1);
  };
  const image::Loaded loaded =
      TRY(images_.load(source, {.skip_invalid_members = request.flag("force")}));
  return json_reply({{"loaded", loaded.references}, {"notes", loaded.notes}});
}

ImageService::Reply ImageService::save(const HttpRequest& request) {
  const json body = TRY(body_of(request));
  const image::ArchiveWriter write =
      TRY(images_.save(TRY(references_of(body)), base::json_string_or(body, "platform", "")));
  const std::shared_ptr<ByteStream> stream =
      TRY(ByteStream::create(limits::api_output_stream_bytes_max));
  {
    const std::lock_guard lock(mutex_);
    ++writers_;
  }
  std::thread([this, write, stream] {
    const Result<> written = write([&](std::string_view bytes) -> Result<> {
      if (stream->write(bytes)) return {};
      return fail(ErrorCode::Cancelled, "the client hung up");
    });
    if (written)
      stream->finish();
    else
      stream->close();  // the client sees that it is cut
    const std::lock_guard lock(mutex_);
    --writers_;
    changed_.notify_all();
  }).detach();
  return HttpReply{.status = 200, .body = {}, .stream = stream, .upgrade = {}};
}

ImageService::Reply ImageService::tag(const HttpRequest& request) {
  const json body = TRY(body_of(request));
  const std::string reference = TRY(
      images_.tag(TRY(base::json_string(body, "source")), TRY(base::json_string(body, "target"))));
  return json_reply({{"reference", reference}});
}

ImageService::Reply ImageService::remove(const HttpRequest& request) {
  return removed_reply(TRY(images_.remove(request.parameter("reference"), request.flag("force"))));
}

ImageService::Reply ImageService::prune(const HttpRequest& request) {
  return removed_reply(TRY(images_.prune(base::json_bool_or(TRY(body_of(request)), "all", false))));
}

ImageService::Reply ImageService::disk_use(const HttpRequest&) {
  const planner::Snapshot actual = TRY(snapshot_());
  const image::ImageUse images = TRY(images_.use());
  DiskUse containers;
  std::set<std::string> mounted;
  for (const auto& [id, record] : actual.containers) {
    containers.add(allocated_tree_bytes(folders_.container(id)), is_up(record));
    mounted.insert(record.anonymous_volumes.begin(), record.anonymous_volumes.end());
    for (const spec::Mount& mount : record.applied.volumes)
      if (mount.type == spec::MountType::Volume) mounted.insert(mount.source);
  }
  DiskUse volumes;
  for (const auto& [name, record] : actual.volumes)
    volumes.add(allocated_tree_bytes(folders_.volume_data(name)), mounted.contains(name));
  return json_reply(
      {{"images", to_json(DiskUse{.total = images.total,
                                  .active = images.active,
                                  .bytes = images.space.bytes,
                                  .reclaimable_bytes = images.space.reclaimable_bytes})},
       {"containers", to_json(containers)},
       {"volumes", to_json(volumes)}});
}

}  // namespace api
