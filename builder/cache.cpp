#include "builder/cache.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "builder/build_limits.h"
#include "image/digest.h"
#include "image/manifest.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

json to_json(const std::string& key, const CacheEntry& entry) {
  return {{"key", key},
          {"diff_id", entry.layer.diff_id},
          {"digest", entry.layer.blob.digest},
          {"media_type", entry.layer.blob.media_type},
          {"size", entry.layer.blob.size},
          {"created", entry.created},
          {"used", entry.used_s}};
}

Result<std::pair<std::string, CacheEntry>> from_json(const json& one) {
  const std::string key = TRY(base::json_string(one, "key"));
  CacheEntry entry;
  entry.layer.diff_id = TRY(base::json_string(one, "diff_id"));
  entry.created = base::json_string_or(one, "created", "");
  entry.used_s = base::json_int_or(one, "used", 0);
  if (!image::is_digest(key))
    return base::fail(ErrorCode::InvalidArgument, "a cache entry's key is no digest");
  if (entry.layer.diff_id.empty()) return std::pair{key, std::move(entry)};
  entry.layer.blob.digest = TRY(base::json_string(one, "digest"));
  entry.layer.blob.media_type = base::json_string_or(one, "media_type", "");
  entry.layer.blob.size = static_cast<uint64_t>(base::json_int_or(one, "size", 0));
  if (!image::is_digest(entry.layer.diff_id) || !image::is_digest(entry.layer.blob.digest))
    return base::fail(ErrorCode::InvalidArgument, "a cache entry names no layer");
  return std::pair{key, std::move(entry)};
}

}  // namespace

std::unique_ptr<Cache> Cache::open(const std::string& path, uint64_t bytes_max) {
  std::unique_ptr<Cache> cache(new Cache(path, bytes_max));
  cache->load();
  return cache;
}

void Cache::load() {
  const Result<std::string> text = base::read_file(path_, limits::cache_file_bytes_max);
  if (!text) return;
  const Result<json> document = base::parse_json(*text);
  if (!document || !document->is_object() || !document->contains("entries")) return;
  if (auto entries = parse_entries(document->at("entries"))) entries_ = std::move(*entries);
}

Result<std::map<std::string, CacheEntry>> Cache::parse_entries(const json& list) {
  if (!list.is_array())
    return base::fail(ErrorCode::InvalidArgument, "the cache's entries are no list");
  std::map<std::string, CacheEntry> entries;
  for (const json& one : list) entries.insert(TRY(from_json(one)));
  return entries;
}

std::optional<CacheEntry> Cache::find(const std::string& key, int64_t now_s) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return std::nullopt;
  // Written at most once a minute: a build that finds everything changes nothing on the disk.
  constexpr int64_t worth_noting_s = 60;
  if (now_s - found->second.used_s >= worth_noting_s) {
    found->second.used_s = now_s;
    changed_ = true;
  }
  return found->second;
}

void Cache::put(const std::string& key, CacheEntry entry) {
  const std::lock_guard lock(mutex_);
  entries_[key] = std::move(entry);
  changed_ = true;
}

Result<> Cache::save() {
  const std::lock_guard lock(mutex_);
  if (shrink_locked(bytes_max_) > 0) changed_ = true;
  if (!changed_) return {};
  json list = json::array();
  for (const auto& [key, entry] : entries_) list.push_back(to_json(key, entry));
  TRY_DURING(base::write_file_atomically(path_, base::dump_json({{"entries", std::move(list)}})),
             "save the build cache");
  changed_ = false;
  return {};
}

std::set<std::string> Cache::digests() const {
  const std::lock_guard lock(mutex_);
  std::set<std::string> digests;
  for (const auto& [key, entry] : entries_) {
    if (entry.layer.diff_id.empty()) continue;
    digests.insert(entry.layer.diff_id);
    digests.insert(entry.layer.blob.digest);
  }
  return digests;
}

size_t Cache::prune(std::optional<int64_t> before_s) {
  const std::lock_guard lock(mutex_);
  const size_t forgotten = std::erase_if(
      entries_, [&](const auto& one) { return !before_s || one.second.used_s < *before_s; });
  changed_ = changed_ || forgotten > 0;
  return forgotten;
}

size_t Cache::shrink(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const size_t forgotten = shrink_locked(bytes);
  changed_ = changed_ || forgotten > 0;
  return forgotten;
}

size_t Cache::shrink_locked(uint64_t bytes) {
  uint64_t kept = bytes_locked();
  if (kept <= bytes && entries_.size() <= limits::cache_entries_max) return 0;
  std::vector<std::pair<int64_t, std::string>> by_use;
  std::map<std::string, size_t> users;
  for (const auto& [key, entry] : entries_) {
    by_use.emplace_back(entry.used_s, key);
    ++users[entry.layer.blob.digest];
  }
  std::sort(by_use.begin(), by_use.end());
  size_t forgotten = 0;
  for (const auto& [used, key] : by_use) {
    if (kept <= bytes && entries_.size() <= limits::cache_entries_max) break;
    const auto found = entries_.find(key);
    const image::Descriptor& blob = found->second.layer.blob;
    if (--users[blob.digest] == 0) kept -= blob.size;
    entries_.erase(found);
    ++forgotten;
  }
  return forgotten;
}

/// A layer that several keys lead to counts once.
uint64_t Cache::bytes_locked() const {
  uint64_t bytes = 0;
  std::set<std::string_view> counted;
  for (const auto& [key, entry] : entries_)
    if (counted.insert(entry.layer.blob.digest).second) bytes += entry.layer.blob.size;
  return bytes;
}

uint64_t Cache::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_locked();
}

size_t Cache::entries() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

json Cache::export_entries(const std::set<std::string>& keys) const {
  const std::lock_guard lock(mutex_);
  json list = json::array();
  for (const std::string& key : keys)
    if (const auto found = entries_.find(key); found != entries_.end())
      list.push_back(to_json(key, found->second));
  return list;
}

}  // namespace builder
