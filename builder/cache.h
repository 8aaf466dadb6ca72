#pragma once
/// What build steps made, by keys of what went into them.
///
/// A key is a digest of everything a step's result depends on: the layers below and the
/// configuration, the instruction with its variables replaced, the contents it copies. Values are
/// layers in the image store, which the cache keeps alive (`digests()` is for the store's users)
/// until it has more than `bytes_max` of them: then what was not used for longest goes first.
///
/// One file, replaced atomically; a damaged one is an empty cache. Nothing of secrets is in it.
/// Thread-safe.

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "image/store.h"

namespace builder {

/// A layer as the store has it.
struct LayerRef {
  std::string diff_id;  ///< Empty: the step changed nothing, there is no layer.
  image::Descriptor blob;
  bool operator==(const LayerRef&) const = default;
};

struct CacheEntry {
  LayerRef layer;
  std::string created;  ///< RFC 3339: when the step ran. Gives a cached build the same digest.
  int64_t used_s = 0;
};

class Cache {
 public:
  static std::unique_ptr<Cache> open(const std::string& path, uint64_t bytes_max);

  /// Counts as a use.
  std::optional<CacheEntry> find(const std::string& key, int64_t now_s);
  void put(const std::string& key, CacheEntry entry);
  /// Writes what changed; forgets what is over the limit.
  base::Result<> save();

  /// Blobs and diff ids that must stay.
  std::set<std::string> digests() const;
  /// Forgets entries not used since `before_s`; all if nullopt. How many.
  size_t prune(std::optional<int64_t> before_s);
  /// Forgets the least used until at most `bytes` are kept. How many.
  size_t shrink(uint64_t bytes);
  uint64_t bytes() const;
  size_t entries() const;

  /// The part of it that `keys` name, for `--cache-to`; and the way back. An import never replaces
  /// what is here; the keys that came in.
  nlohmann::json export_entries(const std::set<std::string>& keys) const;
  static base::Result<std::map<std::string, CacheEntry>> parse_entries(const nlohmann::json& list);

 private:
  Cache(std::string path, uint64_t bytes_max) : path_(std::move(path)), bytes_max_(bytes_max) {}
  void load();
  uint64_t bytes_locked() const;
  size_t shrink_locked(uint64_t bytes);

  const std::string path_;
  const uint64_t bytes_max_;
  mutable std::mutex mutex_;
  std::map<std::string, CacheEntry> entries_;  ///< Guarded by mutex_.
  bool changed_ = false;                       ///< Guarded by mutex_.
};

}  // namespace builder
