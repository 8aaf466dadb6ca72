#pragma once
/// The machine that a stage's RUN steps share: started by the first that is not in the cache, fed
/// with the layers made elsewhere, gone with this.

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "builder/build.h"
#include "builder/content.h"
#include "builder/copy.h"
#include "builder/lower.h"

namespace builder {

class BuildState;

/// What a bind mount shows: a copy of it, made for the machine.
struct TreeSource {
  const RunMount* mount = nullptr;
  std::string key;  ///< Of its content.
  std::shared_ptr<const Tree> tree;
  std::string path;  ///< In `tree`: what the mount's `source` leads to.
  std::shared_ptr<const CopySelection> selection;  ///< To `tree_root`, from `tree`.
};
/// Where the content of a TreeSource lies in what the machine is given.
inline constexpr const char* tree_root = "content";

struct RunOrder {
  const RunWork& work;
  bool network = true;
  const std::vector<TreeSource>& trees;
  uint32_t vertex = 0;  ///< Its output is told under this.
};

class RunMachine {
 public:
  RunMachine(BuildState& state, const image::Platform& platform)
      : state_(state), platform_(platform) {}

  /// Finds what a mount with `from` begins with.
  using SourceOf = std::function<base::Result<TreeSource>(const RunMount& mount)>;
  /// Looks for what the machine must have from its start: the folders of cache mounts.
  void plan(const LoweredStage& stage, SourceOf source_of);
  /// Runs a step on top of `root`; the layer it makes. InvalidState if it fails.
  base::Result<LayerRef> run(const RunOrder& order, const Root& root);
  /// The last lines that the last step printed.
  std::string last_output() const;

 private:
  struct CacheFolder {
    MachineShare share;
    std::shared_ptr<const void> claim;  ///< Of a private folder: nobody else may use it.
  };
  base::Result<> start(const Root& root);
  base::Result<CacheFolder> make_cache(const std::string& id, const RunMount& mount);
  base::Result<> add_layers(const Root& root);
  base::Result<std::string> add_tree(const TreeSource& source);
  base::Result<reconciler::BuildStep> make_step(const RunOrder& order);
  base::Result<> add_mount(const RunMount& mount, const RunOrder& order,
                           reconciler::BuildStep& step);
  base::Result<> add_secret(const RunMount& mount, reconciler::BuildStep& step);
  base::Result<> add_agent(const RunMount& mount, reconciler::BuildStep& step);
  base::Result<> run_step(const reconciler::BuildStep& step, const RunOrder& order);
  base::Result<LayerRef> take_layer(const std::string& step);
  void keep_output(std::string_view bytes);

  BuildState& state_;
  const image::Platform platform_;
  SourceOf source_of_;
  std::map<std::string, RunMount> caches_;      ///< By id.
  std::map<std::string, CacheFolder> folders_;  ///< By id.
  std::map<std::string, std::string> trees_;    ///< Names in the machine, by key.
  std::unique_ptr<BuildMachine> machine_;
  size_t layers_inside_ = 0;  ///< Of the root, those the machine has.
  uint32_t names_ = 0;
  std::deque<std::string> output_;  ///< Lines; the last one may be unfinished.
};

}  // namespace builder
