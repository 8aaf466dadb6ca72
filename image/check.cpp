#include "image/check.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <set>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/layer.h"
#include "image/manifest.h"

namespace image {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;
namespace limits = base::limits;

constexpr size_t piece_bytes = 256u << 10;

Result<std::string> hash_of(int fd) {
  Sha256 hash;
  std::string buffer(piece_bytes, '\0');
  while (const size_t count = TRY(base::read_some(fd, buffer)))
    hash.update(std::string_view(buffer).substr(0, count));
  return hash.finish();
}

class Check {
 public:
  Check(Store& store, const Fetch& fetch, const std::function<bool()>& is_ended)
      : store_(store), fetch_(fetch), is_ended_(is_ended), lease_(store.lease()) {}

  Result<CheckReport> run() {
    TRY(hash_blobs());
    for (const auto& [reference, descriptor] : store_.tags()) {
      TRY(lease_.keep(descriptor.digest));
      TRY(visit(reference, descriptor, true, 0));
    }
    TRY(store_.drop_damaged([&](const std::string& digest) { return store_.has(digest); }));
    for (const auto& [digest, where] : set_aside_)
      if (!store_.has(digest))
        report_.repaired.push_back(
            fmt::format("{} was damaged and is set aside as '{}'", digest, where));
    return std::move(report_);
  }

 private:
  Result<> go_on() const {
    if (!is_ended_ || !is_ended_()) return {};
    return base::fail(ErrorCode::Cancelled, "given up by whoever asked for it");
  }
  Result<> hash_blobs();
  Result<> visit(const std::string& reference, const Descriptor& descriptor, bool required,
                 int depth);
  Result<> visit_manifest(const std::string& reference, const json& document);
  bool is_there(const std::string& reference, const Descriptor& blob);
  Result<> compare_disk(const std::string& reference, const Descriptor& layer,
                        const std::string& diff_id);

  Store& store_;
  const Fetch& fetch_;
  const std::function<bool()>& is_ended_;
  Lease lease_;
  CheckReport report_;
  std::map<std::string, std::string> set_aside_;  ///< Digest: where it is now.
  std::set<std::string> missing_;
  std::set<std::string> seen_;
};

Result<> Check::hash_blobs() {
  for (const std::string& digest : TRY(store_.blobs("sha256:"))) {
    const auto blob = store_.open_blob(digest);
    if (!blob) continue;  // removed meanwhile
    TRY(go_on());
    ++report_.blobs;
    const Result<std::string> found = hash_of(blob->get());
    if (found && *found == digest) continue;
    set_aside_[digest] = TRY(store_.set_aside(digest));
  }
  return {};
}

/// Whether it is in the store, now or after it was fetched; otherwise a problem.
bool Check::is_there(const std::string& reference, const Descriptor& blob) {
  if (store_.has(blob.digest)) return true;
  if (!missing_.insert(blob.digest).second) return false;  // told already
  std::string why;
  // `localhost/…` was made on this machine: no registry has it, and none is waited for.
  const bool made_here = reference.starts_with("localhost/");
  if (fetch_ && made_here)
    why = ", and cannot be fetched again (it was made on this machine, no registry has it)";
  if (fetch_ && !made_here) {
    const Result<> fetched = fetch_(reference, blob);
    if (fetched && store_.has(blob.digest)) {
      report_.repaired.push_back(fmt::format(
          "{} of image '{}' was {} and is fetched again", blob.digest,
          base::escape_controls(reference), set_aside_.contains(blob.digest) ? "damaged" : "gone"));
      return true;
    }
    if (!fetched)
      why = fmt::format(", and cannot be fetched again ({})", fetched.error().to_string());
  }
  const std::string name = base::escape_controls(reference);
  report_.problems.push_back(fmt::format(
      "{} of image '{}' is gone{}; bring the image in again: container {} {}, or container image "
      "load -i FILE",
      blob.digest, name, why, made_here ? "build -t" : "image pull", name));
  return false;
}

Result<> Check::visit(const std::string& reference, const Descriptor& descriptor, bool required,
                      int depth) {
  // Other platforms of an index may never have been here.
  if (!required && !store_.has(descriptor.digest) && !set_aside_.contains(descriptor.digest))
    return {};
  if (depth > limits::image_index_depth_max || !is_there(reference, descriptor)) return {};
  if (!seen_.insert(descriptor.digest).second) return {};
  const Result<json> document = read_json(store_, descriptor, limits::manifest_bytes_max);
  if (!document || !document->is_object()) {
    report_.problems.push_back(fmt::format("{} of image '{}' is no manifest; remove the image",
                                           descriptor.digest, base::escape_controls(reference)));
    return {};
  }
  if (!is_index(*document)) return visit_manifest(reference, *document);
  for (const json& one : document->at("manifests"))
    if (const auto child = descriptor_from_json(one))
      TRY(visit(reference, *child, false, depth + 1));
  return {};
}

Result<> Check::visit_manifest(const std::string& reference, const json& document) {
  const Result<Manifest> manifest = manifest_from_json(document);
  if (!manifest) return {};
  const bool has_config = is_there(reference, manifest->config);
  std::vector<bool> has_layer;
  for (const Descriptor& layer : manifest->layers) has_layer.push_back(is_there(reference, layer));
  if (!has_config || !is_image_config(manifest->config.media_type)) return {};
  const Result<Config> config = read_config(store_, manifest->config);
  if (!config || config->diff_ids.size() != manifest->layers.size()) return {};
  for (size_t i = 0; i < manifest->layers.size(); ++i)
    if (has_layer[i]) TRY(compare_disk(reference, manifest->layers[i], config->diff_ids[i]));
  return {};
}

Result<bool> same_content(int a, int b) {
  std::string left(piece_bytes, '\0');
  std::string right(piece_bytes, '\0');
  for (off_t at = 0;; at += static_cast<off_t>(piece_bytes)) {
    const ssize_t from_a = ::pread(a, left.data(), left.size(), at);
    const ssize_t from_b = ::pread(b, right.data(), right.size(), at);
    if (from_a < 0 || from_b < 0) return base::fail_errno(errno, "read a layer's disk");
    if (from_a != from_b || left != right) return false;
    if (static_cast<size_t>(from_a) < piece_bytes) return true;
  }
}

Result<> Check::compare_disk(const std::string& reference, const Descriptor& layer,
                             const std::string& diff_id) {
  if (!seen_.insert("disk " + diff_id).second) return {};
  TRY(go_on());
  const std::string path = store_.layer_path(diff_id);
  if (!base::path_exists(path)) return {};  // it is made when it is needed
  ++report_.disks;
  Result<Ingest> fresh = write_layer(store_, lease_, layer, diff_id);
  if (!fresh) {
    report_.problems.push_back(fmt::format("layer {} of image '{}' cannot be read: {}",
                                           layer.digest, base::escape_controls(reference),
                                           fresh.error().to_string()));
    return {};
  }
  const auto disk = base::open_file(path, O_RDONLY | O_NOFOLLOW);
  const Result<bool> same = disk ? same_content(disk->get(), fresh->fd()) : Result<bool>(false);
  if (same && *same) return {};
  TRY(store_.replace_layer(std::move(*fresh), diff_id));
  report_.repaired.push_back(
      fmt::format("the disk of layer {} of image '{}' was damaged and is made anew; start the "
                  "containers again that run on it",
                  diff_id, base::escape_controls(reference)));
  return {};
}

}  // namespace

Result<CheckReport> check_store(Store& store, const Fetch& fetch,
                                const std::function<bool()>& is_ended) {
  return Check(store, fetch, is_ended).run();
}

}  // namespace image
