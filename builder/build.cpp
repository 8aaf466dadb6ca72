#include "builder/build.h"

#include <algorithm>
#include <condition_variable>
#include <thread>
#include <utility>

#include <fcntl.h>

#include <fmt/format.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/repository.h"
#include "base/text.h"
#include "builder/build_limits.h"
#include "builder/content.h"
#include "builder/digest_cache.h"
#include "builder/fetch.h"
#include "builder/filtered_tree.h"
#include "builder/folder_tree.h"
#include "builder/graph.h"
#include "builder/ignore.h"
#include "builder/lint.h"
#include "builder/stage_run.h"
#include "builder/tar_tree.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;

constexpr std::string_view keep_git_dir_argument = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

// ---- the context -------------------------------------------------------------------------------

Result<std::string> read_text(const Tree& tree, const std::string& path) {
  std::string text;
  TRY(tree.read(TRY(resolve_links(tree, path)), [&](std::string_view bytes) -> Result<> {
    text.append(bytes);
    if (text.size() <= base::limits::dockerfile_bytes_max) return {};
    return base::fail(ErrorCode::InvalidArgument, "'{}' is larger than {} KiB",
                      base::escape_controls(path), base::limits::dockerfile_bytes_max / 1024);
  }));
  return text;
}

Result<std::unique_ptr<Tree>> open_tar(const std::string& path, const std::string& work_folder) {
  const base::UniqueFd file = TRY(base::open_file(path, O_RDONLY | O_NOFOLLOW));
  return open_tar_tree(image::read_from(file.get()),
                       {.spool_folder = work_folder, .owned_by_root = true});
}

/// Keeps what a filtered tree refers to.
struct Context {
  std::shared_ptr<const Tree> whole;
  Ignore ignore;
  std::unique_ptr<Tree> filtered;
};

class Build {
 public:
  Build(const BuildRequest& request, const BuildPorts& ports, const BuildSink& sink,
        Cancellation& cancellation)
      : request_(request), ports_(ports), state_(request, ports, sink, cancellation) {}

  Result<BuildResult> run() {
    const uint32_t vertex = state_.begin("read the Dockerfile and its context");
    Result<> prepared = prepare();
    if (!prepared) {
      state_.fail(vertex, prepared.error());
      return tl::unexpected<base::Error>(prepared.error());
    }
    state_.end(vertex, false);
    const BuildGraph graph = TRY(make_graph(state_.file, state_.source,
                                            {.target = request_.target,
                                             .platforms = request_.platforms,
                                             .host = request_.host,
                                             .fresh_stages = request_.no_cache_stages,
                                             .arguments = request_.arguments,
                                             .named_contexts = request_.named_contexts}));
    if (request_.check_only) return BuildResult{.warnings = state_.warnings()};
    const std::vector<std::optional<Root>> roots = TRY(run_stages(graph));
    // A build is none the worse for reading its context again.
    if (digests_) (void)digests_->save();
    warn_of_unused_arguments();
    return finish(graph, roots);
  }

 private:
  Result<> prepare() {
    TRY(open_context());
    TRY(read_dockerfile());
    TRY(filter_context());
    Parsed parsed = parse_dockerfile(state_.source.text);
    std::vector<Problem> problems = std::move(parsed.problems);
    if (std::none_of(problems.begin(), problems.end(), is_error)) {
      const auto more = lint_variables(parsed.file, {});
      problems.insert(problems.end(), more.begin(), more.end());
    }
    std::string errors;
    for (const Problem& problem : problems) {
      const std::string text = render(problem, state_.source.name, state_.source.text);
      if (is_error(problem))
        errors += text;
      else
        state_.warn(text);
    }
    if (!errors.empty()) return base::fail(ErrorCode::InvalidArgument, "{}", errors);
    state_.file = std::move(parsed.file);
    return {};
  }

  static bool is_error(const Problem& problem) { return !problem.warning; }

  Result<> open_context() {
    if (!ports_.digest_file.empty()) digests_ = DigestCache::load(ports_.digest_file);
    if (!request_.context_folder.empty())
      context_.whole = TRY(open_folder_tree(request_.context_folder, {.digests = digests_.get()}));
    else if (!request_.context_tar.empty())
      context_.whole = TRY_DURING(open_tar(request_.context_tar, ports_.work_folder),
                                  "read the context from stdin");
    else if (!request_.context_git.empty())
      context_.whole = TRY(fetch_git(request_.context_git, "",
                                     {.folder = ports_.work_folder,
                                      .cancellation = state_.cancellation,
                                      .keep_git_dir = asks_for_git_dir()}));
    for (const auto& [name, place] : request_.named_contexts) {
      if (place.starts_with("docker-image://")) continue;
      state_.named_contexts[name] =
          TRY_DURING(open_named(place), "context '{}'", base::escape_controls(name));
    }
    return {};
  }

  /// By the argument that docker has for it.
  bool asks_for_git_dir() const {
    const auto asked = request_.arguments.find(std::string(keep_git_dir_argument));
    return asked != request_.arguments.end() && (asked->second == "1" || asked->second == "true");
  }

  Result<std::shared_ptr<const Tree>> open_named(const std::string& place) {
    if (base::is_repository(place))
      return fetch_git(place, "",
                       {.folder = ports_.work_folder, .cancellation = state_.cancellation});
    if (place.starts_with('/')) return TRY(open_folder_tree(place));
    return base::fail(ErrorCode::Unsupported,
                      "'{}' is neither a folder, nor a git repository, nor docker-image://NAME",
                      base::escape_controls(place));
  }

  Result<> read_dockerfile() {
    state_.source.name = request_.dockerfile_path.empty() ? "Dockerfile" : request_.dockerfile_path;
    if (request_.dockerfile) {
      state_.source.text = *request_.dockerfile;
      return {};
    }
    if (!context_.whole)
      return base::fail(ErrorCode::InvalidArgument, "there is neither a Dockerfile nor a context");
    if (!request_.dockerfile_path.empty()) {
      state_.source.text = TRY(read_text(*context_.whole, request_.dockerfile_path));
      return {};
    }
    for (const char* name : {"Dockerfile", "Containerfile"}) {
      Result<std::string> text = read_text(*context_.whole, name);
      if (!text && text.error().code() == ErrorCode::NotFound) continue;
      state_.source.text = TRY(std::move(text));
      state_.source.name = name;
      return {};
    }
    return base::fail(ErrorCode::NotFound,
                      "the context has neither a Dockerfile nor a Containerfile; name one with "
                      "--file");
  }

  Result<> filter_context() {
    if (!context_.whole) return {};
    std::optional<std::string> text = request_.ignore;
    for (const std::string& name :
         {state_.source.name + ".dockerignore", std::string(".dockerignore")}) {
      if (text) break;
      Result<std::string> found = read_text(*context_.whole, name);
      if (found)
        text = std::move(*found);
      else if (found.error().code() != ErrorCode::NotFound)
        return tl::unexpected<base::Error>(std::move(found.error()).during("read " + name));
    }
    context_.ignore = TRY_DURING(Ignore::parse(text.value_or("")), "read .dockerignore");
    if (context_.ignore.empty()) {
      state_.context = context_.whole;
      return {};
    }
    context_.filtered = filter_tree(*context_.whole, context_.ignore);
    state_.context = std::shared_ptr<const Tree>(context_.filtered.get(), [](const Tree*) {});
    return {};
  }

  void warn_of_unused_arguments() {
    std::set<std::string> global;
    for (const Instruction& instruction : state_.file.global_arguments)
      if (const auto* arg = std::get_if<ArgInstruction>(&instruction.operation))
        for (const auto& [name, value] : arg->names) global.insert(name);
    for (const auto& [name, value] : request_.arguments)
      if (!global.contains(name) && !state_.consumed(name) && !is_predefined_argument(name) &&
          name != "SOURCE_DATE_EPOCH" && name != keep_git_dir_argument)
        state_.warn(fmt::format("--build-arg {} is used by no ARG of what was built\n",
                                base::escape_controls(name)));
  }

  // ---- stages ----------------------------------------------------------------------------------

  /// Each on a thread of its own, a bounded number at a time, after those it takes from.
  Result<std::vector<std::optional<Root>>> run_stages(const BuildGraph& graph) {
    std::vector<std::optional<Root>> roots(graph.nodes.size());
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<base::Error> problem;
    size_t running = 0;
    const auto ready = [&](const StageNode& node) {
      const auto made = [&](const Origin& origin) {
        return origin.kind != Origin::Kind::Stage || roots[origin.node].has_value();
      };
      return made(node.base) &&
             std::all_of(node.sources.begin(), node.sources.end(),
                         [&](const auto& source) { return made(source.second); });
    };
    const auto work = [&](size_t index) {
      Result<Root> root = run_stage(state_, graph.nodes[index], roots);
      const std::lock_guard lock(mutex);
      if (root) roots[index] = std::move(*root);
      // What fails because something else has is not the reason.
      else if (!problem || problem->code() == ErrorCode::Cancelled)
        problem = root.error();
      if (!root) state_.cancellation.cancel();
      --running;
      changed.notify_all();
    };
    std::vector<std::thread> threads;
    std::unique_lock lock(mutex);
    for (size_t next = 0; next < graph.nodes.size() && !problem; ++next) {
      changed.wait(lock, [&] {
        return problem || (running < limits::stages_parallel_max && ready(graph.nodes[next]));
      });
      if (problem) break;
      ++running;
      threads.emplace_back(work, next);
    }
    lock.unlock();
    for (std::thread& thread : threads) thread.join();
    if (problem) return tl::unexpected<base::Error>(std::move(*problem));
    return roots;
  }

  // ---- the image -------------------------------------------------------------------------------

  Result<BuildResult> finish(const BuildGraph& graph,
                             const std::vector<std::optional<Root>>& roots) {
    const uint32_t vertex = state_.begin("write the image");
    Result<BuildResult> result = put_images(graph, roots);
    if (result)
      state_.end(vertex, false);
    else
      state_.fail(vertex, result.error());
    return result;
  }

  Result<BuildResult> put_images(const BuildGraph& graph,
                                 const std::vector<std::optional<Root>>& roots) {
    BuildResult result;
    std::vector<std::pair<image::Platform, image::Descriptor>> images;
    for (const size_t target : graph.targets) {
      Root root = *roots[target];
      for (const auto& [name, value] : request_.labels) root.config.set_label(name, value);
      if (request_.source_date_epoch || root.config.created().empty())
        root.config.set_created(state_.created());
      images.emplace_back(graph.nodes[target].platform, TRY(state_.content.put_image(root)));
    }
    result.image =
        images.size() == 1 ? images.front().second : TRY(state_.content.put_index(images));
    result.config_digest =
        TRY(image::read_manifest(ports_.store, images.front().second)).config.digest;
    std::vector<std::pair<std::string, image::Descriptor>> names;
    for (const std::string& tag : request_.tags) names.emplace_back(tag, result.image);
    if (!names.empty()) TRY(ports_.store.tag(names));
    result.lease = state_.content.lease();
    result.warnings = state_.warnings();
    result.cache_keys = state_.keys();
    result.vertices_told = state_.vertices();
    return result;
  }

  const BuildRequest& request_;
  const BuildPorts& ports_;
  std::unique_ptr<DigestCache> digests_;  ///< Outlives the trees that use it.
  Context context_;
  BuildState state_;
};

}  // namespace

// ---- cancelling --------------------------------------------------------------------------------

struct Cancellation::State {
  std::mutex mutex;
  bool cancelled = false;
  uint64_t last = 0;
  std::map<uint64_t, std::function<void()>> calls;
};

Cancellation::Cancellation() : state_(std::make_shared<State>()) {}

void Cancellation::cancel() {
  const std::lock_guard lock(state_->mutex);
  if (std::exchange(state_->cancelled, true)) return;
  for (const auto& [number, call] : state_->calls) call();
}

bool Cancellation::cancelled() const {
  const std::lock_guard lock(state_->mutex);
  return state_->cancelled;
}

std::shared_ptr<const void> Cancellation::on_cancel(std::function<void()> call) {
  const std::lock_guard lock(state_->mutex);
  if (state_->cancelled) call();
  const uint64_t number = ++state_->last;
  state_->calls.emplace(number, std::move(call));
  return {state_.get(), [state = state_, number](const void*) {
            const std::lock_guard again(state->mutex);
            state->calls.erase(number);
          }};
}

Result<BuildResult> build(const BuildRequest& request, const BuildPorts& ports,
                          const BuildSink& sink, Cancellation& cancellation) {
  return Build(request, ports, sink, cancellation).run();
}

}  // namespace builder
