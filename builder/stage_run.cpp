#include "builder/stage_run.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/overloaded.h"
#include "base/repository.h"
#include "base/text.h"
#include "builder/fetch.h"
#include "builder/folder_tree.h"
#include "builder/run_machine.h"
#include "builder/tar_tree.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;

bool makes_layer(const Operation& operation) {
  return std::holds_alternative<RunInstruction>(operation) ||
         std::holds_alternative<CopyInstruction>(operation) ||
         std::holds_alternative<WorkdirInstruction>(operation);
}

/// What ADD fetches.
bool is_address(const std::string& source) {
  return base::is_web_address(source) || base::is_repository(source);
}

class StageRun {
 public:
  StageRun(BuildState& state, const StageNode& node, const std::vector<std::optional<Root>>& stages)
      : state_(state), node_(node), stages_(stages), machine_(state, node.platform) {}

  Result<Root> run() {
    const Stage& stage = state_.file.stages[node_.stage];
    const Arguments arguments = TRY(make_arguments(
        state_.file, state_.source, state_.request.arguments, node_.target, state_.request.host));
    for (const Instruction& one : stage.instructions)
      if (makes_layer(one.operation)) ++steps_;
    root_ = TRY(base(stage));
    LoweredStage lowered =
        TRY(lower_stage(state_.file, stage, root_->config, arguments, state_.source));
    root_->config.take_triggers();
    state_.consume(lowered.consumed);
    steps_ = static_cast<uint32_t>(std::count_if(
        lowered.steps.begin(), lowered.steps.end(),
        [](const LoweredStep& step) { return !std::holds_alternative<ConfigWork>(step.work); }));
    machine_.plan(lowered, [this](const RunMount& mount) { return source_of(mount); });
    for (const LoweredStep& step : lowered.steps) {
      if (state_.cancellation.cancelled())
        return base::fail(ErrorCode::Cancelled, "the build was cancelled");
      TRY(this->step(step));
    }
    lowered.config.take_layers_of(root_->config);
    lowered.config.set_created(created_);
    return Root{.digest = root_->digest,
                .config = std::move(lowered.config),
                .layers = std::move(root_->layers)};
  }

 private:
  Result<Root> base(const Stage& stage) {
    const std::string name = prefix(1) + stage.text;
    switch (node_.base.kind) {
      case Origin::Kind::Scratch:
        return Root{.digest = {}, .config = ImageConfig::scratch(node_.platform), .layers = {}};
      case Origin::Kind::Stage: {
        const Root& root = *stages_[node_.base.node];
        created_ = root.config.created();
        return root;
      }
      case Origin::Kind::Context:
        return tl::unexpected<base::Error>(error_at(
            state_.source, stage.location,
            {ErrorCode::Unsupported,
             fmt::format("'{}' is a folder, and a stage begins with an image; use COPY --from={}",
                         node_.base.name, node_.base.name)}));
      case Origin::Kind::Image: break;
    }
    const uint32_t vertex = state_.begin(name);
    Result<Root> root = state_.image(node_.base.name, node_.platform, vertex);
    if (!root) {
      const base::Error error = error_at(state_.source, stage.location, root.error());
      state_.fail(vertex, error);
      return tl::unexpected<base::Error>(error);
    }
    created_ = root->config.created();
    state_.end(vertex, false);
    return root;
  }

  /// `[build 2/4] `
  std::string prefix(uint32_t number) const {
    return fmt::format("[{}{}/{}] ", node_.name.empty() ? "" : node_.name + " ", number,
                       steps_ + 1);
  }

  Result<> step(const LoweredStep& step) {
    if (std::holds_alternative<ConfigWork>(step.work)) {
      add_history(step, LayerRef{});
      return {};
    }
    const uint32_t vertex = state_.begin(prefix(++number_) + step.text);
    vertex_ = vertex;
    bool cached = false;
    Result<CacheEntry> made = std::visit(
        base::overloaded{[&](const ConfigWork&) -> Result<CacheEntry> { return CacheEntry{}; },
                         [&](const RunWork& work) { return run(step, work, vertex, cached); },
                         [&](const CopyWork& work) { return copy(work, cached); },
                         [&](const WorkdirWork& work) { return workdir(work, cached); }},
        step.work);
    if (!made) {
      const base::Error error = failure(step, made.error());
      state_.fail(vertex, error);
      return tl::unexpected<base::Error>(error);
    }
    created_ = made->created;
    if (!made->layer.diff_id.empty()) {
      root_->layers.push_back(made->layer);
      root_->config.add_layer(made->layer.diff_id);
    }
    add_history(step, made->layer);
    state_.end(vertex, cached);
    return {};
  }

  /// Where it went wrong, and the last that the step said.
  base::Error failure(const LoweredStep& step, const base::Error& error) const {
    const base::Error placed = error_at(state_.source, step.location, error);
    const std::string output =
        std::holds_alternative<RunWork>(step.work) ? machine_.last_output() : "";
    if (output.empty()) return placed;
    return {placed.code(), placed.to_string() + "its last output:\n" + output};
  }

  void add_history(const LoweredStep& step, const LayerRef& layer) {
    if (created_.empty()) created_ = state_.created();
    root_->config.add_history(step.created_by, created_, layer.diff_id.empty());
  }

  /// What lies below the next step: the base image, and every layer's content.
  std::string parent() const {
    std::vector<std::string> parts{root_->digest};
    for (const LayerRef& layer : root_->layers) parts.push_back(layer.diff_id);
    if (state_.request.source_date_epoch)
      parts.push_back(fmt::format("epoch {}", *state_.request.source_date_epoch));
    return key_of(parts);
  }

  /// From the cache, or as `make` makes it.
  template <class Make>
  Result<CacheEntry> cached_or(const std::string& key, bool& cached, const Make& make) {
    if (!state_.request.no_cache && !node_.fresh)
      if (auto found = TRY(state_.find(key))) {
        cached = true;
        return std::move(*found);
      }
    CacheEntry entry{
        .layer = TRY(make()), .created = state_.created(), .used_s = state_.ports.now_s};
    state_.remember(key, entry);
    return entry;
  }

  // ---- RUN -------------------------------------------------------------------------------------

  Result<CacheEntry> run(const LoweredStep& step, const RunWork& work, uint32_t vertex,
                         bool& cached) {
    std::vector<std::string> parts{"run",
                                   parent(),
                                   step.config,
                                   node_.platform.text(),
                                   work.script,
                                   work.working_dir,
                                   work.user,
                                   fmt::format("{} {}", static_cast<int>(network_of(work)),
                                               work.insecure || state_.request.privileged)};
    for (const std::string& word : work.arguments) parts.push_back("a " + word);
    for (const std::string& variable : work.environment) parts.push_back("e " + variable);
    for (const std::string& limit : state_.request.run_limits) parts.push_back("l " + limit);
    std::vector<TreeSource> trees;
    for (const RunMount& mount : work.mounts) parts.push_back(TRY(mount_key(mount, trees)));
    return cached_or(key_of(parts), cached, [&] {
      return machine_.run({.work = work,
                           .network = network_of(work) != RunNetwork::None,
                           .trees = trees,
                           .vertex = vertex},
                          *root_);
    });
  }

  RunNetwork network_of(const RunWork& work) const {
    return state_.request.network ? work.network : RunNetwork::None;
  }

  /// What of a mount the result may depend on. Contents of secrets and caches are not.
  Result<std::string> mount_key(const RunMount& mount, std::vector<TreeSource>& trees) {
    std::string key =
        fmt::format("m {} {} {} {} {} {}", static_cast<int>(mount.type), mount.target, mount.source,
                    mount.id, mount.read_only, mount.environment.value_or(""));
    const bool begins = mount.type == RunMountType::Cache && !mount.from.empty();
    if (mount.type != RunMountType::Bind && !begins) return key;
    trees.push_back(TRY(source_of(mount)));
    return key + " " + trees.back().key;
  }

  Result<TreeSource> source_of(const RunMount& mount) {
    const std::shared_ptr<const Tree> tree = TRY(source_tree(mount.from));
    const std::string path = TRY(resolve_links(*tree, mount.source));
    CopyRequest whole;
    whole.source = tree.get();
    whole.sources = {path.empty() ? "." : path};
    whole.target = std::string("/") + tree_root;
    whole.link = true;
    whole.source_name = source_name(mount.from);
    const auto selection = TRY(select_copy(whole));
    const std::string key = TRY(copy_key(*selection));
    return TreeSource{
        .mount = &mount, .key = key, .tree = tree, .path = path, .selection = selection};
  }

  // ---- COPY, ADD, WORKDIR ----------------------------------------------------------------------

  std::string source_name(const std::string& from) const {
    if (from.empty()) return "build context";
    const auto found = node_.sources.find(from);
    if (found == node_.sources.end()) return "'" + from + "'";
    switch (found->second.kind) {
      case Origin::Kind::Stage: return fmt::format("stage '{}'", from);
      case Origin::Kind::Image: return fmt::format("image '{}'", from);
      case Origin::Kind::Context: return fmt::format("context '{}'", from);
      case Origin::Kind::Scratch: break;
    }
    return "'" + from + "'";
  }

  Result<std::shared_ptr<const Tree>> source_tree(const std::string& from) {
    if (from.empty()) {
      if (state_.context) return state_.context;
      return base::fail(ErrorCode::NotFound,
                        "this build has no context to take files from; name a folder");
    }
    const auto found = node_.sources.find(from);
    const Origin origin = found == node_.sources.end()
                              ? Origin{.kind = Origin::Kind::Image, .node = 0, .name = from}
                              // of a trigger
                              : found->second;
    if (origin.kind == Origin::Kind::Context) {
      const auto folder = state_.named_contexts.find(origin.name);
      if (folder != state_.named_contexts.end()) return folder->second;
      return base::fail(ErrorCode::NotFound, "there is no context '{}'", origin.name);
    }
    if (origin.kind == Origin::Kind::Scratch) return state_.content.open_root({});
    if (origin.kind == Origin::Kind::Stage)
      return state_.content.open_root(stages_[origin.node]->layers);
    return state_.content.open_root(TRY(state_.image(origin.name, node_.platform, vertex_)).layers);
  }

  Result<CacheEntry> copy(const CopyWork& work, bool& cached) {
    const CopyInstruction& copy = work.copy;
    CopyRequest request;
    request.target = copy.target;
    request.working_dir = work.working_dir;
    request.chown = copy.chown;
    request.chmod = copy.chmod;
    request.link = copy.link;
    request.parents = copy.parents;
    request.unpack = copy.add && copy.unpack.value_or(true);
    request.unpack_files = copy.add && copy.unpack.value_or(false);
    request.exclude = copy.exclude;
    request.source_name = source_name(copy.from);
    request.spool_folder = state_.ports.work_folder;
    for (const Heredoc& heredoc : copy.heredocs)
      request.files.push_back({.name = heredoc.name, .content = heredoc.content});
    Fetched fetched;
    for (const std::string& source : copy.sources) {
      if (!copy.add || !is_address(source)) {
        request.sources.push_back(source);
        continue;
      }
      TRY(fetch(source, copy, fetched, request));
    }
    std::shared_ptr<const Tree> tree = fetched.git;
    if (!request.sources.empty() && !tree) tree = TRY(source_tree(copy.from));
    request.source = tree.get();
    return place(request, cached);
  }

  /// A download, or a repository; only one repository can be a step's tree.
  Result<> fetch(const std::string& source, const CopyInstruction& copy, Fetched& fetched,
                 CopyRequest& request) {
    const FetchLimits limits{.folder = state_.ports.work_folder,
                             .cancellation = state_.cancellation,
                             .keep_git_dir = copy.keep_git_dir};
    if (!base::is_repository(source)) {
      fetched.files.push_back(TRY(fetch_url(source, copy.checksum, limits)));
      const FetchedFile& file = fetched.files.back();
      request.files.push_back({.name = file.name,
                               .content = {},
                               .tree = file.tree.get(),
                               .path = file.path,
                               .mode = 0600,
                               .modified_s = file.modified_s});
      return {};
    }
    if (fetched.git || copy.sources.size() > 1)
      return base::fail(ErrorCode::Unsupported,
                        "a git repository is added alone; write one ADD for each source");
    fetched.git = TRY(fetch_git(source, copy.checksum, limits));
    request.sources = {"."};
    return {};
  }

  Result<CacheEntry> place(const CopyRequest& request, bool& cached) {
    const auto selection = TRY(select_copy(request));
    const std::string content = TRY(copy_key(*selection));
    const std::string key = key_of(
        {"copy", parent(), content, request.target, request.working_dir, request.chown,
         request.chmod, fmt::format("{} {} {}", request.link, request.parents, request.unpack)});
    return cached_or(key, cached, [&]() -> Result<LayerRef> {
      const auto below = TRY(state_.content.open_root(root_->layers));
      return store(TRY(place_copy(selection, below.get(), below.get())));
    });
  }

  Result<CacheEntry> workdir(const WorkdirWork& work, bool& cached) {
    return cached_or(key_of({"workdir", parent(), work.path, work.user}), cached,
                     [&]() -> Result<LayerRef> {
                       const auto below = TRY(state_.content.open_root(root_->layers));
                       return store(TRY(place_working_dir(work.path, work.user, below.get())));
                     });
  }

  Result<LayerRef> store(const Layer& layer) {
    if (layer.entries.empty()) return LayerRef{};
    const LayerWriteOptions options{.latest_s = state_.request.source_date_epoch};
    return state_.content.add_layer([&](const auto& sink) {
      return write_layer(layer, options, [&](std::string_view bytes) -> Result<> {
        if (state_.cancellation.cancelled())
          return base::fail(ErrorCode::Cancelled, "the build was cancelled");
        return sink(bytes);
      });
    });
  }

  BuildState& state_;
  const StageNode& node_;
  const std::vector<std::optional<Root>>& stages_;
  RunMachine machine_;
  std::optional<Root> root_;
  std::string created_;
  uint32_t steps_ = 0;
  uint32_t number_ = 1;
  uint32_t vertex_ = 0;  ///< Of the step that is being made.
};

}  // namespace

// ---- what stages share -------------------------------------------------------------------------

uint32_t BuildState::begin(const std::string& name) {
  const uint32_t vertex = ++vertices_;
  tell(VertexStarted{.id = vertex, .name = name});
  return vertex;
}

void BuildState::end(uint32_t vertex, bool cached) {
  tell(VertexEnded{.id = vertex, .cached = cached, .problem = {}});
}

void BuildState::fail(uint32_t vertex, const base::Error& error) {
  tell(VertexEnded{.id = vertex,
                   .cached = false,
                   .problem = error.to_string(),
                   .cancelled = error.code() == ErrorCode::Cancelled});
}

void BuildState::tell(const BuildEvent& event) {
  const std::lock_guard lock(sink_mutex_);
  sink_(event);
}

void BuildState::warn(const std::string& text) {
  ++warnings_;
  tell(Warned{.text = text});
}

Result<std::optional<CacheEntry>> BuildState::find(const std::string& key) {
  std::optional<CacheEntry> found = ports.cache.find(key, ports.now_s);
  if (!found || !TRY(content.has(found->layer))) return std::nullopt;
  const std::lock_guard lock(mutex_);
  keys_.insert(key);
  return found;
}

void BuildState::remember(const std::string& key, const CacheEntry& entry) {
  ports.cache.put(key, entry);
  const std::lock_guard lock(mutex_);
  keys_.insert(key);
}

std::set<std::string> BuildState::keys() const {
  const std::lock_guard lock(mutex_);
  return keys_;
}

void BuildState::consume(const std::vector<std::string>& arguments) {
  const std::lock_guard lock(mutex_);
  consumed_.insert(arguments.begin(), arguments.end());
}

bool BuildState::consumed(const std::string& argument) const {
  const std::lock_guard lock(mutex_);
  return consumed_.contains(argument);
}

std::string BuildState::created() const {
  return base::format_wall_time(request.source_date_epoch.value_or(ports.now_s) * 1'000'000'000);
}

Result<Root> BuildState::image(const std::string& reference, const image::Platform& platform,
                               uint32_t vertex) {
  const std::lock_guard lock(image_mutex_);
  const std::string key = reference + " " + platform.text();
  if (const auto known = images_.find(key); known != images_.end()) return known->second;
  Root root =
      TRY(content.image({.reference = reference,
                         .platform = platform,
                         .always = request.pull && !request.local_images.contains(reference)},
                        [&](const std::string& line) {
                          tell(VertexOutput{.id = vertex, .stream = 2, .bytes = line + "\n"});
                        }));
  images_.emplace(key, root);
  return root;
}

Result<Root> run_stage(BuildState& state, const StageNode& node,
                       const std::vector<std::optional<Root>>& stages) {
  return StageRun(state, node, stages).run();
}

}  // namespace builder
