/// Which content something leads to, and the deletion of the rest.

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "image/links.h"
#include "image/store.h"

namespace image {
namespace {

namespace fs = std::filesystem;
using base::Result;

constexpr std::string_view layer_suffix = ".erofs";

/// The digest that the name of a blob or of a layer's disk stands for.
std::string digest_of_file(const fs::path& path) {
  std::string name = path.filename();
  if (name.ends_with(layer_suffix)) name.resize(name.size() - layer_suffix.size());
  return "sha256:" + name;
}

uint64_t allocated_bytes(const fs::path& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
}

}  // namespace

/// With mutex_ held.
void Store::add_leases(std::set<std::string>& roots) const {
  roots.insert(holds_.begin(), holds_.end());
  roots.insert(let_go_.begin(), let_go_.end());
  for (const auto& [name, lease] : named_)
    roots.insert(lease->digests.begin(), lease->digests.end());
  for (const auto& lease : unnamed_) roots.insert(lease->digests.begin(), lease->digests.end());
}

/// With mutex_ held.
std::set<std::string> Store::reachable(const std::set<std::string>& used) const {
  std::set<std::string> roots = used;
  add_leases(roots);
  for (const auto& [name, descriptor] : tags_) roots.insert(descriptor.digest);
  std::set<std::string> keep;
  add_reachable(*this, roots, keep);
  return keep;
}

/// With mutex_ held. What cannot be deleted stays for the next collect().
void Store::discard_content(const LeaseRecord& lease, const std::set<std::string>& used) {
  if (lease.digests.empty()) return;
  const std::set<std::string> keep = reachable(used);
  std::set<std::string> own;
  add_reachable(*this, lease.digests, own);
  for (const std::string& digest : own) {
    if (keep.contains(digest)) continue;
    ::unlink(blob_path(digest).c_str());
    ::unlink(layer_path(digest).c_str());
  }
  (void)drop_partials();
}

Result<Collected> Store::collect() {
  begin_collecting();
  const Result<std::set<std::string>> used = users();
  const std::lock_guard lock(mutex_);
  Result<Collected> collected = Collected{};
  if (used) {
    drop_expired_leases();
    collected = sweep(reachable(*used));
  } else {
    collected = tl::unexpected<base::Error>(
        base::Error(used.error()).during("ask which images are in use"));
  }
  end_collecting();
  return collected;
}

/// With mutex_ held.
Result<Collected> Store::sweep(const std::set<std::string>& keep) {
  TRY(drop_partials());
  Collected collected;
  for (const fs::path& path : TRY(content_files())) {
    const std::string digest = digest_of_file(path);
    if (keep.contains(digest)) continue;
    const uint64_t bytes = allocated_bytes(path);
    const bool is_manifest =
        path.extension() != layer_suffix && links_of(*this, digest).is_manifest;
    if (::unlink(path.c_str()) != 0)
      return base::fail_errno(errno, fmt::format("delete '{}'", path.string()));
    collected.bytes += bytes;
    if (is_manifest) collected.manifests.push_back(digest);
  }
  return collected;
}

Result<std::vector<fs::path>> Store::content_files() const {
  std::vector<fs::path> files;
  for (const char* folder : {"/blobs/sha256", "/layers/sha256"}) {
    std::error_code error;
    for (fs::directory_iterator at(root_ + folder, error), end; !error && at != end;
         at.increment(error))
      files.push_back(at->path());
    if (error) return base::fail_errno(error.value(), fmt::format("read '{}{}'", root_, folder));
  }
  std::sort(files.begin(), files.end());
  return files;
}

Result<Space> Store::space() {
  const std::set<std::string> used = TRY(users());
  std::set<std::string> keep;
  {
    const std::lock_guard lock(mutex_);
    std::set<std::string> roots = used;
    add_leases(roots);
    add_reachable(*this, roots, keep);
  }
  Space space;
  for (const fs::path& path : TRY(content_files())) {
    const uint64_t bytes = allocated_bytes(path);
    space.bytes += bytes;
    if (!keep.contains(digest_of_file(path))) space.reclaimable_bytes += bytes;
  }
  return space;
}

}  // namespace image
