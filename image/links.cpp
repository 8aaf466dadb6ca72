#include "image/links.h"

#include <iterator>

#include <unistd.h>
#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "base/json.h"
#include "base/limits.h"
#include "image/manifest.h"

namespace image {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;
namespace limits = base::limits;

/// Manifests are JSON objects. Most of what is looked at is layers, which need not be read for
/// that.
bool begins_like_json(const Store& store, const std::string& digest) {
  const Result<base::UniqueFd> blob = store.open_blob(digest);
  char first = 0;
  return blob && ::read(blob->get(), &first, 1) == 1 && first == '{';
}

}  // namespace

Links links_of(const Store& store, const std::string& digest) {
  Links links;
  if (!begins_like_json(store, digest)) return links;
  const auto text = store.read(digest, limits::manifest_bytes_max);
  if (!text) return links;
  const auto document = base::parse_json(*text);
  if (!document || !document->is_object()) return links;
  const auto add_manifest = [&](const json& one) {
    if (const auto child = descriptor_from_json(one)) links.manifests.push_back(child->digest);
  };
  if (const auto subject = document->find("subject"); subject != document->end())
    add_manifest(*subject);
  if (is_index(*document)) {
    links.is_manifest = true;
    for (const json& one : document->at("manifests")) add_manifest(one);
    return links;
  }
  const auto manifest = manifest_from_json(*document);
  if (!manifest) return links;
  links.is_manifest = true;
  links.blobs.push_back(manifest->config.digest);
  for (const Descriptor& layer : manifest->layers) links.blobs.push_back(layer.digest);
  if (const auto config = read_config(store, manifest->config)) links.diff_ids = config->diff_ids;
  return links;
}

void add_reachable(const Store& store, const std::set<std::string>& roots,
                   std::set<std::string>& found) {
  std::vector<std::string> waiting(roots.begin(), roots.end());
  // Not `found`: one image may call a layer what for another is its manifest.
  std::set<std::string> seen;
  while (!waiting.empty()) {
    const std::string digest = std::move(waiting.back());
    waiting.pop_back();
    if (!seen.insert(digest).second) continue;
    found.insert(digest);
    Links links = links_of(store, digest);
    found.insert(links.blobs.begin(), links.blobs.end());
    found.insert(links.diff_ids.begin(), links.diff_ids.end());
    std::move(links.manifests.begin(), links.manifests.end(), std::back_inserter(waiting));
  }
}

Result<std::set<std::string>> blobs_of(const Store& store, const std::string& digest) {
  std::set<std::string> found;
  std::vector<std::string> waiting{digest};
  while (!waiting.empty()) {
    const std::string at = std::move(waiting.back());
    waiting.pop_back();
    if (!found.insert(at).second) continue;
    Links links = links_of(store, at);
    for (const std::string& blob : links.blobs) {
      if (!store.has(blob))
        return fail(ErrorCode::NotFound, "{}, of the image {}, is not in the image store", blob,
                    at);
      found.insert(blob);
    }
    for (std::string& child : links.manifests)
      if (store.has(child)) waiting.push_back(std::move(child));
  }
  return found;
}

}  // namespace image
