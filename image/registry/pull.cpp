#include "image/registry/pull.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "image/layer.h"
#include "image/layer_stream.h"
#include "image/reference.h"
#include "image/registry/client.h"
#include "image/registry/progress.h"
#include "image/registry/side_by_side.h"

namespace image::registry {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;

/// Of all pulls; one at a time, and one that waits can be cancelled.
std::shared_ptr<Slots> turn_at(const std::string& digest) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<Slots>> all;
  const std::lock_guard lock(mutex);
  std::erase_if(all, [](const auto& one) { return one.second.expired(); });
  std::shared_ptr<Slots> turn = all[digest].lock();
  if (!turn) all[digest] = turn = std::make_shared<Slots>(1);
  return turn;
}

bool is_image_config(const std::string& type) {
  return type == config_media_type || type == "application/vnd.docker.container.image.v1+json";
}

/// Archives of files, which a disk can be made of; all else is passed on as it is.
bool is_layer(const std::string& type) {
  return type.starts_with("application/vnd.oci.image.layer.") ||
         type.starts_with("application/vnd.docker.image.rootfs.");
}

bool is_list_type(const std::string& type) {
  return type.ends_with(".image.index.v1+json") || type.ends_with(".manifest.list.v2+json");
}

bool is_manifest(const std::string& type) {
  return is_list_type(type) || type.ends_with(".image.manifest.v1+json") ||
         type.ends_with(".distribution.manifest.v2+json");
}

Platform platform_of(const json& said) {
  Platform platform{.os = base::json_string_or(said, "os", ""),
                    .architecture = base::json_string_or(said, "architecture", ""),
                    .variant = base::json_string_or(said, "variant", "")};
  return normalized(std::move(platform));
}

/// All places of one repository, the preferred one first.
class Sources {
 public:
  static Result<std::unique_ptr<Sources>> open(HttpClient& http, const Access& access,
                                               const Reference& reference, Cancel& cancel) {
    auto sources = std::make_unique<Sources>();
    for (Endpoint& endpoint : TRY(endpoints_of(reference.domain, access, false)))
      sources->all_.push_back(
          std::make_unique<Repository>(http, access, std::move(endpoint), reference.path, cancel));
    return sources;
  }

  const std::vector<std::unique_ptr<Repository>>& all() const { return all_; }

  /// The first success; else the error of the last, which is the registry itself.
  template <class Call>
  std::invoke_result_t<const Call&, Repository&> first(const Call& call) {
    for (size_t i = 0;; ++i) {
      auto result = call(*all_[i]);
      const bool given_up = !result && result.error().code() == ErrorCode::Cancelled;
      if (result || given_up || i + 1 == all_.size()) return result;
    }
  }

 private:
  std::vector<std::unique_ptr<Repository>> all_;
};

struct BlobJob {
  Descriptor blob;
  std::string diff_id;  ///< Set for a layer that becomes a disk.
};

class Puller {
 public:
  Puller(Store& store, Lease& lease, Sources& sources, const Access& access,
         const PullRequest& request, ProgressCounter& progress, Cancel& cancel)
      : store_(store),
        lease_(lease),
        sources_(sources),
        request_(request),
        progress_(progress),
        cancel_(cancel),
        workers_(access.downloads_max),
        slots_(access.downloads_max) {}

  /// One manifest or blob.
  Result<> fetch_one(const Descriptor& descriptor) {
    if (!is_manifest(descriptor.media_type)) return fetch({.blob = descriptor, .diff_id = {}});
    TRY(lease_.keep(descriptor.digest));
    (void)TRY(fetch_document(descriptor));
    return {};
  }

  /// Everything that the reference leads to, as far as it is asked for.
  Result<Descriptor> run(const Reference& reference, const std::string& tag_or_digest) {
    Descriptor root = TRY(fetch_root(tag_or_digest));
    shown_ = reference.display();
    TRY(walk(root, json(), 0));
    if (manifests_.empty()) return tl::unexpected<base::Error>(no_content());
    TRY(fetch_configs());
    TRY(fetch_layers());
    return root;
  }

 private:
  struct Found {
    Descriptor descriptor;
    Platform platform;  ///< As the index says; may be empty.
    json document;
  };

  Result<Descriptor> fetch_root(const std::string& tag_or_digest);
  Result<json> fetch_document(const Descriptor& descriptor);
  Result<> walk(const Descriptor& descriptor, const json& said, int depth);
  Result<> walk_index(const json& document, int depth);
  Result<> check_type(const json& document, const std::string& announced) const;
  base::Error no_content() const;
  Result<> fetch_configs();
  Result<> fetch_layers();
  Result<bool> becomes_disks(const Found& found, const Config& config) const;
  Result<> fetch(const BlobJob& job);
  Result<> fetch_from(Repository& repository, const BlobJob& job);
  Result<> fetch_once(Repository& repository, const BlobJob& job, bool& resumed);

  Store& store_;
  Lease& lease_;
  Sources& sources_;
  const PullRequest& request_;
  ProgressCounter& progress_;
  Cancel& cancel_;
  const uint32_t workers_;
  Slots slots_;
  std::string shown_;
  std::vector<Found> manifests_;
  std::set<std::string> visited_;
  std::set<std::string> offered_;  ///< Platforms that were not asked for.
};

// ---- manifests ---------------------------------------------------------------------------------

/// What the server says it sends must be what it was announced as, and what the text says it is:
/// two readers who believe two of these would see two images.
Result<> Puller::check_type(const json& document, const std::string& announced) const {
  if (!document.is_object()) return fail(ErrorCode::InvalidArgument, "the manifest is no object");
  const std::string said = base::json_string_or(document, "mediaType", "");
  if (!said.empty() && !announced.empty() && said != announced)
    return fail(ErrorCode::InvalidArgument, "a manifest that is sent as '{}' says it is '{}'",
                base::escape_controls(announced), base::escape_controls(said));
  const std::string& type = said.empty() ? announced : said;
  if (!is_manifest(type))
    return fail(ErrorCode::Unsupported,
                "a manifest of type '{}', which is neither OCI's nor Docker's schema 2",
                base::escape_controls(type));
  if (document.contains("manifests") && document.contains("layers"))
    return fail(ErrorCode::InvalidArgument, "a manifest is also an index: it says two things");
  if (is_list_type(type) != is_index(document))
    return fail(ErrorCode::InvalidArgument, "a manifest of type '{}' is of another form",
                base::escape_controls(type));
  return {};
}

Result<Descriptor> Puller::fetch_root(const std::string& tag_or_digest) {
  std::string wanted = tag_or_digest;
  Document document;
  if (!is_digest(wanted)) {
    // What is here already is not fetched, and a HEAD counts against nobody's quota.
    document = TRY(sources_.first([&](Repository& one) { return one.manifest_head(wanted); }));
    wanted = document.digest;
    TRY(lease_.keep(wanted));
    if (const auto size = store_.size_of(wanted))
      return Descriptor{.media_type = document.media_type, .digest = wanted, .size = *size};
  }
  if (document.text.empty())
    document = TRY(sources_.first([&](Repository& one) { return one.manifest(wanted); }));
  const json content = TRY(base::parse_json(document.text));
  TRY(check_type(content, document.media_type));
  // Not every server says it.
  return store_.put_text(lease_, document.text,
                         document.media_type.empty()
                             ? base::json_string_or(content, "mediaType", "")
                             : document.media_type);
}

Result<json> Puller::fetch_document(const Descriptor& descriptor) {
  if (descriptor.size > base::limits::manifest_bytes_max)
    return fail(ErrorCode::InvalidArgument, "a manifest of {} bytes, more than {}", descriptor.size,
                base::limits::manifest_bytes_max);
  TRY(lease_.keep(descriptor.digest));
  if (!store_.has(descriptor.digest)) {
    const Document document =
        TRY(sources_.first([&](Repository& one) { return one.manifest(descriptor.digest); }));
    if (document.text.size() != descriptor.size)
      return fail(ErrorCode::InvalidArgument, "{} has {} bytes where {} were announced",
                  descriptor.digest, document.text.size(), descriptor.size);
    TRY(check_type(TRY(base::parse_json(document.text)), document.media_type));
    (void)TRY(store_.put_text(lease_, document.text, document.media_type));
  }
  json document = TRY(read_json(store_, descriptor, base::limits::manifest_bytes_max));
  TRY(check_type(document, descriptor.media_type));
  return document;
}

base::Error Puller::no_content() const {
  const std::vector<std::string> others(offered_.begin(), offered_.end());
  const Platform& wanted = request_.platform ? *request_.platform : request_.own;
  return {ErrorCode::NotFound,
          fmt::format("image '{}' has no content for platform {}; available platforms: {}", shown_,
                      wanted.text(), others.empty() ? "none" : base::join(others, ", "))};
}

Result<> Puller::walk_index(const json& document, int depth) {
  for (const json& one : document.at("manifests")) {
    const Descriptor child = TRY(descriptor_from_json(one));
    const auto said = one.find("platform");
    const json platform = said != one.end() && said->is_object() ? *said : json();
    if (request_.platform && platform.is_object() && platform_of(platform) != *request_.platform) {
      if (const Platform other = platform_of(platform); other.os != "unknown")
        offered_.insert(base::escape_controls(other.text()));
      continue;
    }
    TRY(walk(child, platform, depth + 1));
  }
  return {};
}

Result<> Puller::walk(const Descriptor& descriptor, const json& said, int depth) {
  if (depth > base::limits::image_index_depth_max)
    return fail(ErrorCode::InvalidArgument, "the image's indexes are nested more than {} deep",
                base::limits::image_index_depth_max);
  if (!visited_.insert(descriptor.digest).second) return {};
  if (visited_.size() > limits::manifests_max)
    return fail(ErrorCode::InvalidArgument, "the image has more than {} manifests",
                limits::manifests_max);
  json document = TRY(fetch_document(descriptor));
  if (is_index(document)) return walk_index(document, depth);
  manifests_.push_back({.descriptor = descriptor,
                        .platform = said.is_object() ? platform_of(said) : Platform{.os = ""},
                        .document = std::move(document)});
  return {};
}

// ---- blobs -------------------------------------------------------------------------------------

Result<> Puller::fetch_configs() {
  std::vector<BlobJob> jobs;
  std::set<std::string> seen;
  uint64_t bytes = 0;
  for (const Found& found : manifests_) {
    const Manifest manifest = TRY(manifest_from_json(found.document));
    if (!seen.insert(manifest.config.digest).second) continue;
    jobs.push_back({.blob = manifest.config, .diff_id = {}});
    bytes += manifest.config.size;
  }
  progress_.expect(static_cast<uint32_t>(jobs.size()), bytes);
  return side_by_side(jobs.size(), workers_, cancel_, [&](size_t i) { return fetch(jobs[i]); });
}

/// Of the platform that was asked for, else of this machine's.
Result<bool> Puller::becomes_disks(const Found& found, const Config& config) const {
  Platform platform = found.platform;
  if (platform.architecture.empty())
    platform = normalized(
        {.os = config.os, .architecture = config.runtime.architecture, .variant = config.variant});
  if (request_.platform && platform != *request_.platform)
    return tl::unexpected<base::Error>(no_content());
  return platform == (request_.platform ? *request_.platform : request_.own);
}

Result<> Puller::fetch_layers() {
  std::vector<BlobJob> jobs;
  std::map<std::string, size_t> known;  // digest: place in jobs
  for (const Found& found : manifests_) {
    const Manifest manifest = TRY(manifest_from_json(found.document));
    std::vector<std::string> diff_ids(manifest.layers.size());
    if (is_image_config(manifest.config.media_type)) {
      const Config config = TRY(read_config(store_, manifest.config));
      if (TRY(becomes_disks(found, config))) {
        if (config.diff_ids.size() != manifest.layers.size())
          return fail(ErrorCode::InvalidArgument,
                      "the manifest has {} layers and its config names {}", manifest.layers.size(),
                      config.diff_ids.size());
        diff_ids = config.diff_ids;
      }
    }
    for (size_t i = 0; i < manifest.layers.size(); ++i) {
      const Descriptor& layer = manifest.layers[i];
      const std::string diff_id = is_layer(layer.media_type) ? diff_ids[i] : "";
      const auto [at, is_new] = known.emplace(layer.digest, jobs.size());
      if (is_new) jobs.push_back({.blob = layer, .diff_id = diff_id});
      if (!diff_id.empty()) jobs[at->second].diff_id = diff_id;
    }
  }
  uint64_t bytes = 0;
  for (const BlobJob& job : jobs) bytes += job.blob.size;
  progress_.expect(static_cast<uint32_t>(jobs.size()), bytes);
  // The largest first: what begins last ends last.
  std::stable_sort(jobs.begin(), jobs.end(), [](const BlobJob& one, const BlobJob& other) {
    return one.blob.size > other.blob.size;
  });
  return side_by_side(jobs.size(), workers_, cancel_, [&](size_t i) { return fetch(jobs[i]); });
}

Result<> Puller::fetch(const BlobJob& job) {
  TRY(lease_.keep(job.blob.digest));
  // Whoever pulls the same blob at the same time waits for the one who began.
  const std::shared_ptr<Slots> turn = turn_at(job.blob.digest);
  TRY(turn->take(cancel_));
  const std::shared_ptr<void> held(nullptr, [turn](void*) { turn->give(); });
  if (store_.has(job.blob.digest)) {
    if (const uint64_t size = TRY(store_.size_of(job.blob.digest)); size != job.blob.size)
      return fail(ErrorCode::InvalidArgument, "{} has {} bytes where {} were announced",
                  job.blob.digest, size, job.blob.size);
    if (!job.diff_id.empty()) TRY(make_layer(store_, lease_, job.blob, job.diff_id));
    progress_.bytes(job.blob.size);
    progress_.blob_done();
    return {};
  }
  TRY(slots_.take(cancel_));
  Result<> fetched = sources_.first([&](Repository& one) { return fetch_from(one, job); });
  slots_.give();
  if (!fetched)
    return tl::unexpected<base::Error>(
        std::move(fetched.error()).during(fmt::format("fetch {}", job.blob.digest)));
  progress_.blob_done();
  return {};
}

Result<> Puller::fetch_from(Repository& repository, const BlobJob& job) {
  bool resumed = false;
  Result<> fetched = fetch_once(repository, job, resumed);
  // What an earlier pull left may be damaged since. Then it is of no use, and no reason to fail.
  if (fetched || !resumed || fetched.error().code() != ErrorCode::InvalidArgument) return fetched;
  store_.drop_partial(job.blob.digest);
  return fetch_once(repository, job, resumed);
}

Result<> Puller::fetch_once(Repository& repository, const BlobJob& job, bool& resumed) {
  std::unique_ptr<LayerStream> layer;
  if (!job.diff_id.empty()) layer = TRY(LayerStream::begin(store_, lease_, job.diff_id));
  uint64_t counted = 0;
  const auto take = [&](std::string_view bytes) -> Result<> {
    if (layer) TRY(layer->write(bytes));
    counted += bytes.size();
    progress_.bytes(bytes.size());
    return {};
  };
  const auto whole = [&]() -> Result<> {
    PartialBlob partial = TRY(store_.begin_partial(lease_, job.blob, [&](std::string_view bytes) {
      resumed = true;
      return take(bytes);
    }));
    BlobStream stream(repository, job.blob, partial.size(), slots_);
    const ByteSource source = [&](std::span<char> buffer) { return stream.read(buffer); };
    for (;;) {
      const std::string_view piece = TRY(partial.take(source));
      if (piece.empty()) break;
      TRY(take(piece));
    }
    TRY(store_.finish_partial(std::move(partial)));
    if (layer) TRY(layer->finish());
    return {};
  };
  const Result<> fetched = whole();
  if (!fetched) progress_.take_back(counted);
  return fetched;
}

/// After lies nothing is kept to go on from.
bool may_resume(const base::Error& error) {
  return error.code() == ErrorCode::Io || error.code() == ErrorCode::Timeout ||
         error.code() == ErrorCode::Cancelled || error.code() == ErrorCode::Busy ||
         error.code() == ErrorCode::NoSpace;
}

}  // namespace

Result<Pulled> pull(Store& store, HttpClient& http, const Access& access,
                    const PullRequest& request, const TransferObserver& observer, Cancel& cancel) {
  const Reference reference = TRY(parse_reference(request.reference));
  const std::string full = reference.full();
  const std::unique_ptr<Sources> sources = TRY(Sources::open(http, access, reference, cancel));
  Lease lease = TRY(store.lease("pull " + full));
  ProgressCounter progress(observer);
  Puller puller(store, lease, *sources, access, request, progress, cancel);
  std::string wanted = reference.digest.empty() ? reference.tag : reference.digest;
  if (!request.digest.empty()) wanted = request.digest;
  const Result<Descriptor> root = puller.run(reference, wanted);
  if (!root) {
    if (may_resume(root.error())) lease.leave();
    return tl::unexpected<base::Error>(root.error());
  }
  const auto tags = store.tags();
  const auto former = tags.find(full);
  Pulled pulled{.reference = full, .digest = root->digest, .former_digest = {}};
  if (former != tags.end() && former->second.digest != root->digest)
    pulled.former_digest = former->second.digest;
  if (request.keeper != nullptr)
    TRY(request.keeper->keep(root->digest));
  else
    TRY(store.tag({{full, *root}}));
  return pulled;
}

Result<> pull_blob(Store& store, HttpClient& http, const Access& access,
                   const std::string& reference, const Descriptor& blob, Cancel& cancel) {
  const Reference parsed = TRY(parse_reference(reference));
  const std::unique_ptr<Sources> sources = TRY(Sources::open(http, access, parsed, cancel));
  Lease lease = TRY(store.lease("pull " + parsed.full()));
  PullRequest request;
  request.reference = reference;
  const TransferObserver nobody;
  ProgressCounter progress(nobody);
  const Result<> fetched =
      Puller(store, lease, *sources, access, request, progress, cancel).fetch_one(blob);
  if (!fetched && may_resume(fetched.error())) lease.leave();
  return fetched;
}

Result<std::string> remote_digest(HttpClient& http, const Access& access,
                                  const std::string& reference, Cancel& cancel) {
  const Reference parsed = TRY(parse_reference(reference));
  if (!parsed.digest.empty()) return parsed.digest;
  const std::unique_ptr<Sources> sources = TRY(Sources::open(http, access, parsed, cancel));
  const Document head =
      TRY(sources->first([&](Repository& one) { return one.manifest_head(parsed.tag); }));
  return head.digest;
}

Result<bool> is_here(Store& store, const std::string& reference, const Platform& platform) {
  const std::string full = TRY(parse_reference(reference)).full();
  const auto tags = store.tags();
  const auto found = tags.find(full);
  if (found == tags.end()) return fail(ErrorCode::NotFound, "'{}' is not here", full);
  const auto variant = choose_variant(store, full, found->second, platform);
  if (!variant) return false;
  const auto manifest = read_manifest(store, variant->descriptor);
  if (!manifest || !store.has(manifest->config.digest)) return false;
  return std::all_of(manifest->layers.begin(), manifest->layers.end(),
                     [&](const Descriptor& layer) { return store.has(layer.digest); });
}

Result<> check_login(HttpClient& http, const Access& access, const std::string& registry,
                     Cancel& cancel) {
  const std::vector<Endpoint> endpoints = TRY(endpoints_of(registry, access, true));
  Repository repository(http, access, endpoints.back(), "", cancel);
  return repository.ping();
}

}  // namespace image::registry
