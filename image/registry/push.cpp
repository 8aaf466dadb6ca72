#include "image/registry/push.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
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

constexpr int upload_sessions_max = 3;  ///< For one blob.

/// A piece of a blob's file as the body of a request.
class FilePiece {
 public:
  FilePiece(int fd, uint64_t begin, uint64_t end) : fd_(fd), begin_(begin), end_(end), at_(begin) {}
  void rewind() { at_ = begin_; }
  Result<size_t> read(std::span<char> buffer) {
    const size_t wanted = static_cast<size_t>(std::min<uint64_t>(buffer.size(), end_ - at_));
    if (wanted == 0) return size_t{0};
    for (;;) {
      const ssize_t count = ::pread(fd_, buffer.data(), wanted, static_cast<off_t>(at_));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return base::fail_errno(errno, "read image content");
      if (count == 0) return fail(ErrorCode::Io, "image content is shorter than it was");
      at_ += static_cast<uint64_t>(count);
      return static_cast<size_t>(count);
    }
  }

 private:
  const int fd_;
  const uint64_t begin_;
  const uint64_t end_;
  uint64_t at_;
};

std::string with_query(const std::string& url, const std::string& query) {
  return url + (url.find('?') == std::string::npos ? "?" : "&") + query;
}

class Pusher {
 public:
  Pusher(Store& store, Lease& lease, Repository& repository, const Access& access,
         ProgressCounter& progress, Cancel& cancel)
      : store_(store),
        lease_(lease),
        repository_(repository),
        progress_(progress),
        cancel_(cancel),
        workers_(access.downloads_max) {}

  Result<> collect(const Descriptor& descriptor, int depth);
  /// Where else on this registry a blob of ours may lie, by what the store's names say.
  void find_neighbours(const Reference& own);
  Result<> send_all(const std::string& tag);
  Pushed counts() const {
    return {.blobs_sent = sent_, .blobs_mounted = mounted_, .blobs_present = present_};
  }

 private:
  struct Document {
    Descriptor descriptor;
    std::string text;
  };
  Result<> collect_blob(const Descriptor& blob);
  void note_neighbour(const Descriptor& descriptor, const std::string& path, int depth);
  Result<> send_blobs();
  Result<> send_blob(const Descriptor& blob);
  Result<std::string> upload_location(const Answer& answer) const;
  Result<> upload(const Descriptor& blob, std::string location);
  Result<std::string> send_chunk(int fd, const Descriptor& blob, uint64_t begin, uint64_t end,
                                 const std::string& location);
  Result<> send_document(const Document& document, const std::string& name);

  Store& store_;
  Lease& lease_;
  Repository& repository_;
  ProgressCounter& progress_;
  Cancel& cancel_;
  const uint32_t workers_;
  std::vector<Document> documents_;  ///< Children before their index; the root last.
  std::vector<Descriptor> blobs_;
  std::set<std::string> seen_;
  std::map<std::string, std::string> neighbours_;  ///< Digest: repository.
  std::atomic<uint32_t> sent_{0};
  std::atomic<uint32_t> mounted_{0};
  std::atomic<uint32_t> present_{0};
};

// ---- what to send ------------------------------------------------------------------------------

Result<> Pusher::collect_blob(const Descriptor& blob) {
  if (!seen_.insert(blob.digest).second) return {};
  TRY(lease_.keep(blob.digest));
  const auto size = store_.size_of(blob.digest);
  if (!size)
    return fail(ErrorCode::NotFound,
                "the image is not complete on this system: {} is missing; pull it again, or push "
                "one platform with --platform",
                blob.digest);
  if (*size != blob.size)
    return fail(ErrorCode::InvalidArgument, "{} has {} bytes where its manifest says {}",
                blob.digest, *size, blob.size);
  blobs_.push_back(blob);
  return {};
}

Result<> Pusher::collect(const Descriptor& descriptor, int depth) {
  if (depth > base::limits::image_index_depth_max || documents_.size() >= limits::manifests_max)
    return fail(ErrorCode::InvalidArgument, "the image has more indexes than can be true");
  if (!seen_.insert(descriptor.digest).second) return {};
  TRY(lease_.keep(descriptor.digest));
  if (!store_.has(descriptor.digest))
    return fail(ErrorCode::NotFound,
                "the image is not complete on this system: {} is missing; pull all its platforms, "
                "or push one with --platform",
                descriptor.digest);
  std::string text = TRY(store_.read(descriptor.digest, base::limits::manifest_bytes_max));
  const json document = TRY(base::parse_json(text));
  if (is_index(document)) {
    for (const json& one : document.at("manifests"))
      TRY(collect(TRY(descriptor_from_json(one)), depth + 1));
  } else {
    const Manifest manifest = TRY(manifest_from_json(document));
    TRY(collect_blob(manifest.config));
    for (const Descriptor& layer : manifest.layers) TRY(collect_blob(layer));
  }
  Descriptor own = descriptor;
  if (own.media_type.empty()) own.media_type = base::json_string_or(document, "mediaType", "");
  if (own.media_type.empty())
    own.media_type = is_index(document) ? index_media_type : manifest_media_type;
  documents_.push_back({.descriptor = std::move(own), .text = std::move(text)});
  return {};
}

void Pusher::note_neighbour(const Descriptor& descriptor, const std::string& path, int depth) {
  const auto text = store_.read(descriptor.digest, base::limits::manifest_bytes_max);
  if (!text || depth > base::limits::image_index_depth_max) return;
  const auto document = base::parse_json(*text);
  if (!document) return;
  if (is_index(*document)) {
    for (const json& one : document->at("manifests"))
      if (const auto child = descriptor_from_json(one)) note_neighbour(*child, path, depth + 1);
    return;
  }
  const auto manifest = manifest_from_json(*document);
  if (!manifest) return;
  for (const Descriptor& layer : manifest->layers)
    if (seen_.contains(layer.digest)) neighbours_.emplace(layer.digest, path);
}

void Pusher::find_neighbours(const Reference& own) {
  uint32_t looked_at = 0;
  for (const auto& [name, descriptor] : store_.tags()) {
    const auto other = parse_reference(name);
    if (!other || other->domain != own.domain || other->path == own.path) continue;
    if (++looked_at > limits::manifests_max) return;
    note_neighbour(descriptor, other->path, 0);
  }
}

// ---- sending -----------------------------------------------------------------------------------

Result<> Pusher::send_blobs() {
  uint64_t bytes = 0;
  for (const Descriptor& blob : blobs_) bytes += blob.size;
  progress_.expect(static_cast<uint32_t>(blobs_.size()), bytes);
  std::stable_sort(blobs_.begin(), blobs_.end(), [](const Descriptor& one, const Descriptor& two) {
    return one.size > two.size;
  });
  return side_by_side(blobs_.size(), workers_, cancel_, [&](size_t i) -> Result<> {
    TRY_DURING(send_blob(blobs_[i]), "send {}", blobs_[i].digest);
    return {};
  });
}

/// Where an upload goes on, as the last answer says.
Result<std::string> Pusher::upload_location(const Answer& answer) const {
  const std::string location = answer.head.header("location");
  if (location.empty())
    return fail(ErrorCode::Io, "{} does not say where to send to",
                repository_.endpoint().authority);
  std::string url = TRY(resolve_url(answer.url, location));
  const UrlParts parts = TRY(parse_url(url));
  // Behind a proxy that ends TLS, registries give their own address without it.
  const Endpoint& endpoint = repository_.endpoint();
  if (endpoint.scheme == "https" && parts.scheme == "http") {
    if (parts.authority != endpoint.authority)
      return fail(ErrorCode::Denied, "{} wants the upload sent to {} without TLS; refused",
                  endpoint.registry, without_query(url));
    url.replace(0, 4, "https");
  }
  return url;
}

Result<> Pusher::send_blob(const Descriptor& blob) {
  const auto done = [&](std::atomic<uint32_t>& counter) -> Result<> {
    ++counter;
    progress_.bytes(blob.size);
    progress_.blob_done();
    return {};
  };
  if (TRY(repository_.has_blob(blob.digest))) return done(present_);
  Ask begin{.method = "POST", .path = "blobs/uploads/", .push = true};
  if (const auto neighbour = neighbours_.find(blob.digest); neighbour != neighbours_.end()) {
    begin.path = fmt::format("blobs/uploads/?mount={}&from={}", blob.digest, neighbour->second);
    begin.mount_from = neighbour->second;
  }
  Result<Answer> answer = repository_.send(begin);
  if (!answer && !begin.mount_from.empty() && answer.error().code() == ErrorCode::Denied)
    answer = repository_.send({.method = "POST", .path = "blobs/uploads/", .push = true});
  if (!answer) return tl::unexpected<base::Error>(std::move(answer.error()));
  if (answer->head.status == 201) return done(mounted_);
  // A session that broke in the middle of a piece is of no use: another one begins.
  for (int tries = 0;; ++tries) {
    Result<> uploaded = upload(blob, TRY(upload_location(*answer)));
    if (uploaded) break;
    const bool passing = uploaded.error().code() == ErrorCode::Io;
    if (!passing || tries + 1 >= upload_sessions_max) return uploaded;
    TRY(cancel_.wait_ms(backoff_ms(tries, "", 0)));
    answer = repository_.send({.method = "POST", .path = "blobs/uploads/", .push = true});
    if (!answer) return tl::unexpected<base::Error>(std::move(answer.error()));
  }
  ++sent_;
  progress_.blob_done();
  return {};
}

Result<std::string> Pusher::send_chunk(int fd, const Descriptor& blob, uint64_t begin, uint64_t end,
                                       const std::string& location) {
  auto piece = std::make_shared<FilePiece>(fd, begin, end);
  const bool last = end == blob.size;
  const bool only = last && begin == 0;
  Ask ask{.method = last ? "PUT" : "PATCH", .path = location, .push = true};
  if (last) ask.path = with_query(location, "digest=" + blob.digest);
  ask.headers = {"Content-Type: application/octet-stream"};
  if (!only && end > begin)
    ask.headers.push_back(fmt::format("Content-Range: {}-{}", begin, end - 1));
  uint64_t counted = 0;
  ask.upload = [&, piece](std::span<char> buffer) -> Result<size_t> {
    const size_t count = TRY(piece->read(buffer));
    counted += count;
    progress_.bytes(count);
    return count;
  };
  ask.rewind = [&, piece] {
    piece->rewind();
    progress_.take_back(counted);
    counted = 0;
  };
  ask.upload_bytes = end - begin;
  Result<Answer> sent = repository_.send(ask);
  if (!sent) {
    progress_.take_back(counted);
    return tl::unexpected<base::Error>(std::move(sent.error()));
  }
  const Answer answer = std::move(*sent);
  const std::string said = answer.head.header("docker-content-digest");
  if (last && is_digest(said) && said != blob.digest)
    return fail(ErrorCode::Io, "{} stored {} in place of {}", repository_.endpoint().authority,
                said, blob.digest);
  return last ? std::string() : TRY(upload_location(answer));
}

/// Whole where it is small, else in pieces, so that a broken connection costs one of them.
Result<> Pusher::upload(const Descriptor& blob, std::string location) {
  const base::UniqueFd file = TRY(store_.open_blob(blob.digest));
  uint64_t at = 0;
  do {
    const uint64_t end = std::min(blob.size, at + limits::upload_chunk_bytes);
    Result<std::string> next = send_chunk(file.get(), blob, at, end, location);
    if (!next) {
      progress_.take_back(at);
      return tl::unexpected<base::Error>(std::move(next.error()));
    }
    location = std::move(*next);
    at = end;
  } while (at < blob.size);
  return {};
}

Result<> Pusher::send_document(const Document& document, const std::string& name) {
  const Answer answer =
      TRY(repository_.send({.method = "PUT",
                            .path = "manifests/" + name,
                            .headers = {"Content-Type: " + document.descriptor.media_type},
                            .body = document.text,
                            .push = true}));
  const std::string said = answer.head.header("docker-content-digest");
  if (is_digest(said) && said != document.descriptor.digest)
    return fail(ErrorCode::Io, "{} stored {} in place of {}", repository_.endpoint().authority,
                said, document.descriptor.digest);
  return {};
}

Result<> Pusher::send_all(const std::string& tag) {
  TRY(send_blobs());
  for (size_t i = 0; i + 1 < documents_.size(); ++i)
    TRY(send_document(documents_[i], documents_[i].descriptor.digest));
  return send_document(documents_.back(), tag);
}

}  // namespace

Result<Pushed> push(Store& store, HttpClient& http, const Access& access,
                    const PushRequest& request, const TransferObserver& observer, Cancel& cancel) {
  const Reference reference = TRY(parse_reference(request.reference));
  const std::string full = reference.full();
  Lease lease = store.lease();
  Descriptor root;
  if (request.root) {
    root = *request.root;
  } else {
    const auto tags = store.tags();
    const auto found = tags.find(full);
    if (found == tags.end())
      return fail(ErrorCode::NotFound,
                  "image not found: {}; give it this name first with: container image tag",
                  base::escape_controls(request.reference));
    root = found->second;
  }
  if (request.platform) root = TRY(choose_variant(store, full, root, *request.platform)).descriptor;
  std::vector<Endpoint> endpoints = TRY(endpoints_of(reference.domain, access, true));
  Repository repository(http, access, std::move(endpoints.back()), reference.path, cancel);
  ProgressCounter progress(observer);
  Pusher pusher(store, lease, repository, access, progress, cancel);
  TRY(pusher.collect(root, 0));
  pusher.find_neighbours(reference);
  TRY(pusher.send_all(reference.digest.empty() ? reference.tag : reference.digest));
  Pushed pushed = pusher.counts();
  pushed.reference = full;
  pushed.digest = root.digest;
  return pushed;
}

}  // namespace image::registry
