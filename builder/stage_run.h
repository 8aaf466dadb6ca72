#pragma once
/// Makes one stage: from its base, step by step, each from the cache if it is there.

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "builder/build.h"
#include "builder/content.h"
#include "builder/copy.h"
#include "builder/graph.h"
#include "builder/lower.h"

namespace builder {

/// What all stages of a build share. Thread-safe.
class BuildState {
 public:
  BuildState(const BuildRequest& asked, const BuildPorts& given, BuildSink sink,
             Cancellation& ending)
      : request(asked),
        ports(given),
        content(given),
        cancellation(ending),
        sink_(std::move(sink)),
        vertices_(asked.vertices_told) {}

  const BuildRequest& request;
  const BuildPorts& ports;
  Content content;
  Cancellation& cancellation;
  Dockerfile file;
  SourceText source;
  std::shared_ptr<const Tree> context;  ///< Null: there is none.
  std::map<std::string, std::shared_ptr<const Tree>> named_contexts;

  uint32_t begin(const std::string& name);
  void end(uint32_t vertex, bool cached);
  void fail(uint32_t vertex, const base::Error& error);
  void tell(const BuildEvent& event);
  void warn(const std::string& text);
  uint32_t warnings() const { return warnings_; }
  uint32_t vertices() const { return vertices_; }

  /// Of a step: what it made before. Remembers the key for `--cache-to`.
  base::Result<std::optional<CacheEntry>> find(const std::string& key);
  void remember(const std::string& key, const CacheEntry& entry);
  std::set<std::string> keys() const;
  /// When a step that runs now was made, RFC 3339.
  std::string created() const;
  /// Given arguments that a stage asked for.
  void consume(const std::vector<std::string>& arguments);
  bool consumed(const std::string& argument) const;
  /// An image that something is taken from; fetched once, as part of `vertex`.
  base::Result<Root> image(const std::string& reference, const image::Platform& platform,
                           uint32_t vertex);

 private:
  BuildSink sink_;
  std::mutex sink_mutex_;
  std::atomic<uint32_t> vertices_;
  std::atomic<uint32_t> warnings_{0};
  mutable std::mutex mutex_;
  std::set<std::string> keys_;      // guarded by mutex_
  std::set<std::string> consumed_;  // guarded by mutex_
  std::mutex image_mutex_;
  std::map<std::string, Root> images_;  // guarded by image_mutex_
};

/// Runs on a thread of its own. `stages` are the results of the graph's earlier nodes.
base::Result<Root> run_stage(BuildState& state, const StageNode& node,
                             const std::vector<std::optional<Root>>& stages);

}  // namespace builder
