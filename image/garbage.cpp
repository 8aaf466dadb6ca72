/// Which content something leads to, and the deletion of the rest.

#include <cerrno>
#include <filesystem>
#include <system_error>

#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "image/manifest.h"
#include "image/store.h"

namespace image {
namespace {

namespace fs = std::filesystem;
using base::Result;
using nlohmann::json;
namespace limits = base::limits;

constexpr std::string_view layer_suffix = ".erofs";

/// The digest that the name of a blob or of a layer's disk stands for.
std::string digest_of_file(const fs::path& path) {
  std::string name = path.filename();
  if (name.ends_with(layer_suffix)) name.resize(name.size() - layer_suffix.size());
  return "sha256:" + name;
}

/// Digests that `digest` names: of manifests, which lead further, and others.
struct Links {
  std::vector<std::string> manifests;
  std::vector<std::string> others;
};

/// What cannot be read leads nowhere.
Links links_of(const Store& store, const std::string& digest) {
  Links links;
  const auto text = store.read(digest, limits::manifest_bytes_max);
  if (!text || !text->starts_with('{')) return links;
  const auto document = base::parse_json(*text);
  if (!document || !document->is_object()) return links;
  const auto subject = document->find("subject");
  if (subject != document->end())
    if (const auto child = descriptor_from_json(*subject)) links.manifests.push_back(child->digest);
  if (is_index(*document)) {
    for (const json& one : document->at("manifests"))
      if (const auto child = descriptor_from_json(one)) links.manifests.push_back(child->digest);
    return links;
  }
  const auto manifest = manifest_from_json(*document);
  if (!manifest) return links;
  links.others.push_back(manifest->config.digest);
  for (const Descriptor& layer : manifest->layers) links.others.push_back(layer.digest);
  if (const auto config = read_config(store, manifest->config))
    links.others.insert(links.others.end(), config->diff_ids.begin(), config->diff_ids.end());
  return links;
}

void mark(const Store& store, const std::set<std::string>& roots, std::set<std::string>& keep) {
  std::vector<std::string> waiting(roots.begin(), roots.end());
  // Not `keep`: one image may call a layer what for another is its manifest.
  std::set<std::string> seen;
  while (!waiting.empty()) {
    const std::string digest = std::move(waiting.back());
    waiting.pop_back();
    if (!seen.insert(digest).second) continue;
    keep.insert(digest);
    Links links = links_of(store, digest);
    keep.insert(links.others.begin(), links.others.end());
    std::move(links.manifests.begin(), links.manifests.end(), std::back_inserter(waiting));
  }
}

}  // namespace

/// With mutex_ held.
std::set<std::string> Store::reachable(const std::set<std::string>& used) const {
  std::set<std::string> roots = used;
  roots.insert(holds_.begin(), holds_.end());
  roots.insert(let_go_.begin(), let_go_.end());
  for (const auto& [name, descriptor] : tags_) roots.insert(descriptor.digest);
  for (const auto& [name, lease] : named_)
    roots.insert(lease->digests.begin(), lease->digests.end());
  for (const auto& lease : unnamed_) roots.insert(lease->digests.begin(), lease->digests.end());
  std::set<std::string> keep;
  mark(*this, roots, keep);
  return keep;
}

/// With mutex_ held. What cannot be deleted stays for the next collect().
void Store::discard_content(const LeaseRecord& lease, const std::set<std::string>& used) {
  if (lease.digests.empty()) return;
  const std::set<std::string> keep = reachable(used);
  std::set<std::string> own;
  mark(*this, lease.digests, own);
  for (const std::string& digest : own) {
    if (keep.contains(digest)) continue;
    ::unlink(blob_path(digest).c_str());
    ::unlink(layer_path(digest).c_str());
  }
  (void)drop_partials();
}

Result<uint64_t> Store::collect() {
  begin_collecting();
  const Result<std::set<std::string>> used = users();
  const std::lock_guard lock(mutex_);
  Result<uint64_t> freed = 0;
  if (used) {
    drop_expired_leases();
    freed = sweep(reachable(*used));
  } else {
    freed = tl::unexpected<base::Error>(
        base::Error(used.error()).during("ask which images are in use"));
  }
  end_collecting();
  return freed;
}

/// With mutex_ held.
Result<uint64_t> Store::sweep(const std::set<std::string>& keep) {
  TRY(drop_partials());
  uint64_t freed = 0;
  for (const char* folder : {"/blobs/sha256", "/layers/sha256"}) {
    std::error_code error;
    for (fs::directory_iterator at(root_ + folder, error), end; !error && at != end;
         at.increment(error)) {
      if (keep.contains(digest_of_file(at->path()))) continue;
      struct stat info {};
      const bool known = ::stat(at->path().c_str(), &info) == 0;
      if (::unlink(at->path().c_str()) != 0)
        return base::fail_errno(errno, fmt::format("delete '{}'", at->path().string()));
      if (known) freed += static_cast<uint64_t>(info.st_blocks) * 512;
    }
    if (error) return base::fail_errno(error.value(), fmt::format("read '{}{}'", root_, folder));
  }
  return freed;
}

}  // namespace image
