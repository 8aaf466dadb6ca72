#include "builder/digest_cache.h"

#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <string_view>
#include <vector>

#include <time.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/sha256.h"

namespace builder {
namespace {

using base::Result;
namespace limits = base::limits;

/// A record of the file, in the machine's byte order: the cache never leaves its host.
struct Record {
  FileIdentity file;
  std::array<char, 64> digits{};
  uint64_t age = 0;  ///< Runs since it was last used.
};
static_assert(sizeof(Record) == 5 * 8 + 64 + 8);

constexpr std::string_view head = "container-digests-1\n";
constexpr std::string_view digest_prefix = "sha256:";
constexpr uint64_t age_max = 2;

int64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

class FileDigestCache final : public DigestCache {
 public:
  explicit FileDigestCache(std::string path) : path_(std::move(path)) { read(); }

  std::optional<std::string> find(const FileIdentity& file) override {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(file);
    if (found == entries_.end()) return std::nullopt;
    changed_ = changed_ || found->second.age > 1;
    found->second.age = 0;
    return std::string(digest_prefix) +
           std::string(found->second.digits.data(), found->second.digits.size());
  }

  void remember(const FileIdentity& file, const std::string& digest) override {
    constexpr int64_t grace_ns = int64_t{limits::digest_cache_grace_ms} * 1'000'000;
    // A file of the same clock tick may change again and look the same.
    if (file.changed_ns > now_ns() - grace_ns) return;
    Entry entry;
    if (digest.size() != digest_prefix.size() + entry.digits.size()) return;
    std::memcpy(entry.digits.data(), digest.data() + digest_prefix.size(), entry.digits.size());
    const std::lock_guard lock(mutex_);
    entries_[file] = entry;
    changed_ = true;
  }

  Result<> save() override {
    const std::lock_guard lock(mutex_);
    if (!changed_) return {};
    std::string text(head);
    for (const auto& [file, entry] : entries_) {
      if (entry.age > age_max) continue;
      if (text.size() + sizeof(Record) > limits::digest_cache_bytes_max) break;
      const Record record{file, entry.digits, entry.age};
      text.append(reinterpret_cast<const char*>(&record), sizeof record);
    }
    TRY(base::write_file_atomically(path_, text + base::sha256_of(text)));
    changed_ = false;
    return {};
  }

 private:
  struct Entry {
    std::array<char, 64> digits{};
    uint64_t age = 0;
  };

  /// Whatever is wrong with the file makes it an empty one.
  void read() {
    const Result<std::string> whole = base::read_file(path_, limits::digest_cache_bytes_max);
    const size_t sum_bytes = digest_prefix.size() + 64;
    if (!whole || whole->size() < head.size() + sum_bytes || !whole->starts_with(head)) return;
    std::string_view text(*whole);
    const std::string_view sum = text.substr(text.size() - sum_bytes);
    text.remove_suffix(sum_bytes);
    if (base::sha256_of(text) != sum) return;
    text.remove_prefix(head.size());
    for (; text.size() >= sizeof(Record); text.remove_prefix(sizeof(Record))) {
      Record record;
      std::memcpy(&record, text.data(), sizeof record);
      entries_.emplace(record.file, Entry{record.digits, record.age + 1});
    }
  }

  std::mutex mutex_;
  std::string path_;
  std::map<FileIdentity, Entry> entries_;
  bool changed_ = false;
};

}  // namespace

std::unique_ptr<DigestCache> DigestCache::load(const std::string& path) {
  return std::make_unique<FileDigestCache>(path);
}

}  // namespace builder
