#include "builder/run_machine.h"

#include <algorithm>
#include <cerrno>
#include <set>
#include <thread>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/file.h"
#include "base/sha256.h"
#include "base/text.h"
#include "builder/build_limits.h"
#include "builder/cache_folder.h"
#include "builder/cache_turn.h"
#include "builder/stage_run.h"
#include "builder/tar_tree.h"
#include "image/byte_pipe.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;
using reconciler::StepMount;
using reconciler::StepMountKind;

constexpr const char* script_path = "/run/build-step";

/// Whose content it is: caches of one id that begin with something else are others.
std::string id_of(const RunMount& cache) {
  const std::string id = cache.id.empty() ? cache.target : cache.id;
  return cache.from.empty() ? id : fmt::format("{}\n{}\n{}", id, cache.from, cache.source);
}

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

/// `target` of the mount, absolute in the step's root.
std::string absolute(const std::string& target, const std::string& working_dir) {
  if (target.starts_with('/')) return target;
  return (working_dir == "/" ? "" : working_dir) + "/" + target;
}

/// A folder of a cache that is used by one machine at a time.
class PrivateFolders {
 public:
  static std::pair<std::string, std::shared_ptr<const void>> claim(const std::string& path) {
    static std::mutex mutex;
    static std::set<std::string> used;
    const std::lock_guard lock(mutex);
    std::string name = path;
    for (int i = 2; used.contains(name); ++i) name = fmt::format("{}-{}", path, i);
    used.insert(name);
    return {name, std::shared_ptr<const void>(&used, [name](const void*) {
              const std::lock_guard again(mutex);
              used.erase(name);
            })};
  }
};

}  // namespace

void RunMachine::plan(const LoweredStage& stage, SourceOf source_of) {
  source_of_ = std::move(source_of);
  for (const LoweredStep& step : stage.steps)
    if (const auto* run = std::get_if<RunWork>(&step.work))
      for (const RunMount& mount : run->mounts)
        if (mount.type == RunMountType::Cache) caches_.try_emplace(id_of(mount), mount);
}

Result<> RunMachine::start(const Root& root) {
  if (root.layers.empty())
    return base::fail(ErrorCode::InvalidArgument,
                      "there is nothing to run in an empty image; copy a program into it first");
  MachineRequest request;
  request.image = TRY(state_.content.put_machine_image(root));
  request.platform = platform_;
  for (const auto& [id, mount] : caches_) {
    CacheFolder folder = TRY_DURING(make_cache(id, mount), "the cache for '{}'",
                                    base::escape_controls(mount.target));
    request.shares.push_back(folder.share);
    folders_.emplace(id, std::move(folder));
  }
  machine_ = TRY_DURING(state_.ports.machines.start(request), "start the build's machine");
  layers_inside_ = root.layers.size();
  return {};
}

/// Of other content below, it is another cache.
Result<RunMachine::CacheFolder> RunMachine::make_cache(const std::string& id,
                                                       const RunMount& mount) {
  CacheFolder folder;
  folder.share.target = fmt::format("/build-cache/{}", folders_.size());
  CacheSeed seed;
  std::string name = id;
  if (!mount.from.empty()) {
    const TreeSource source = TRY(source_of_(mount));
    seed = {.tree = source.tree, .path = source.path};
    name += "\n" + source.key;
  }
  folder.share.host_path = state_.ports.cache_folder + "/" + base::sha256_of(name).substr(7);
  if (mount.sharing == CacheSharing::Private)
    std::tie(folder.share.host_path, folder.claim) = PrivateFolders::claim(folder.share.host_path);
  TRY(make_cache_folder(
      folder.share.host_path, mount, seed,
      {.work_folder = state_.ports.work_folder, .cancellation = state_.cancellation}));
  return folder;
}

Result<> RunMachine::add_layers(const Root& root) {
  for (; layers_inside_ < root.layers.size(); ++layers_inside_) {
    const image::ByteSource source = TRY(state_.content.open_layer(root.layers[layers_inside_]));
    TRY(machine_->session().add_layer(fmt::format("layer-{}", ++names_),
                                      [&](char* buffer, size_t capacity) {
                                        return source({buffer, capacity});
                                      }));
  }
  return {};
}

Result<std::string> RunMachine::add_tree(const TreeSource& source) {
  if (const auto known = trees_.find(source.key); known != trees_.end()) return known->second;
  const std::string name = fmt::format("tree-{}", ++names_);
  const Layer layer = TRY(place_copy(source.selection, nullptr, nullptr));
  image::BytePipe pipe;
  std::thread maker([&] {
    pipe.finish(write_layer(layer, {}, [&](std::string_view bytes) { return pipe.write(bytes); }));
  });
  const Result<> added = machine_->session().add_tree(name, [&](char* buffer, size_t capacity) {
    return pipe.read({buffer, capacity});
  });
  pipe.leave();
  maker.join();
  TRY(added);
  trees_.emplace(source.key, name);
  return name;
}

Result<LayerRef> RunMachine::run(const RunOrder& order, const Root& root) {
  output_.clear();
  if (!machine_) TRY(start(root));
  TRY(add_layers(root));
  const reconciler::BuildStep step = TRY(make_step(order));
  TRY(run_step(step, order));
  LayerRef layer = TRY(take_layer(step.id));
  if (!layer.diff_id.empty()) ++layers_inside_;
  return layer;
}

// ---- the step ----------------------------------------------------------------------------------

Result<reconciler::BuildStep> RunMachine::make_step(const RunOrder& order) {
  const RunWork& work = order.work;
  reconciler::BuildStep step;
  step.id = fmt::format("step-{}", ++names_);
  step.arguments = work.arguments;
  step.environment = work.environment;
  step.environment.insert(step.environment.end(), work.hidden_environment.begin(),
                          work.hidden_environment.end());
  step.working_dir = work.working_dir;
  step.user = work.user;
  step.network = order.network;
  step.privileged = work.insecure || state_.request.privileged;
  step.hostname = "build";
  step.extra_hosts = state_.request.extra_hosts;
  if (!work.script.empty()) {
    step.arguments = {script_path};
    step.mounts.push_back({.kind = StepMountKind::Secret,
                           .source = {},
                           .source_path = {},
                           .target = script_path,
                           .read_only = true,
                           .mode = 0555,
                           .secret = work.script});
  }
  for (const RunMount& mount : work.mounts) TRY(add_mount(mount, order, step));
  return step;
}

Result<> RunMachine::add_mount(const RunMount& mount, const RunOrder& order,
                               reconciler::BuildStep& step) {
  StepMount made;
  made.target = absolute(mount.target, order.work.working_dir);
  made.read_only = mount.read_only;
  switch (mount.type) {
    case RunMountType::Secret: return add_secret(mount, step);
    case RunMountType::Ssh: return add_agent(mount, step);
    case RunMountType::Tmpfs:
      made.kind = StepMountKind::Tmpfs;
      made.tmpfs_bytes = mount.tmpfs_bytes.value_or(0);
      break;
    case RunMountType::Cache:
      made.kind = StepMountKind::Share;
      made.source = folders_.at(id_of(mount)).share.target;
      break;
    case RunMountType::Bind: {
      const auto source =
          std::find_if(order.trees.begin(), order.trees.end(),
                       [&](const TreeSource& tree) { return tree.mount == &mount; });
      made.kind = StepMountKind::Tree;
      made.source = TRY(add_tree(*source));
      made.source_path = tree_root;
      break;
    }
  }
  step.mounts.push_back(std::move(made));
  return {};
}

Result<> RunMachine::add_secret(const RunMount& mount, reconciler::BuildStep& step) {
  const std::string id = mount.id.empty() ? file_name(mount.target) : mount.id;
  const auto& secrets = state_.request.secrets;
  const auto found = std::find_if(secrets.begin(), secrets.end(),
                                  [&](const Secret& secret) { return secret.id == id; });
  if (found == secrets.end()) {
    if (!mount.required) return {};
    return base::fail(ErrorCode::NotFound,
                      "the secret '{}' was not given; pass it with --secret id={},src=FILE",
                      base::escape_controls(id), base::escape_controls(id));
  }
  if (mount.environment) {
    const std::string name = mount.environment->empty() ? id : *mount.environment;
    step.environment.push_back(name + "=" + found->bytes);
    if (mount.target.empty()) return {};
  }
  StepMount made;
  made.kind = StepMountKind::Secret;
  made.target =
      mount.target.empty() ? "/run/secrets/" + id : absolute(mount.target, step.working_dir);
  made.read_only = true;
  made.mode = mount.mode.value_or(found->mode.value_or(0400));
  made.user = mount.user.value_or(found->user.value_or(0));
  made.group = mount.group.value_or(found->group.value_or(0));
  made.secret = found->bytes;
  step.mounts.push_back(std::move(made));
  return {};
}

Result<> RunMachine::add_agent(const RunMount& mount, reconciler::BuildStep& step) {
  const std::string id = mount.id.empty() ? "default" : mount.id;
  const auto found = state_.request.ssh.find(id);
  if (found == state_.request.ssh.end()) {
    if (!mount.required) return {};
    return base::fail(ErrorCode::NotFound, "no agent '{}' was given; pass one with --ssh {}",
                      base::escape_controls(id), base::escape_controls(id));
  }
  StepMount made;
  made.kind = StepMountKind::SshAgent;
  made.target = mount.target.empty() ? fmt::format("/run/build/ssh_agent.{}", step.mounts.size())
                                     : absolute(mount.target, step.working_dir);
  made.mode = mount.mode.value_or(0600);
  made.user = mount.user.value_or(0);
  made.group = mount.group.value_or(0);
  made.agent_socket = found->second;
  step.environment.push_back("SSH_AUTH_SOCK=" + made.target);
  step.mounts.push_back(std::move(made));
  return {};
}

Result<> RunMachine::run_step(const reconciler::BuildStep& step, const RunOrder& order) {
  // In one order everywhere, so that two steps never wait for each other.
  std::set<std::string> locked;
  for (const RunMount& mount : order.work.mounts)
    if (mount.type == RunMountType::Cache && mount.sharing == CacheSharing::Locked)
      locked.insert(id_of(mount));
  std::vector<std::shared_ptr<const void>> held;
  for (const std::string& id : locked)
    held.push_back(TRY(CacheTurn::of(id)->take(state_.cancellation)));
  reconciler::BuildSession& session = machine_->session();
  const auto listening = state_.cancellation.on_cancel([&] { session.cancel(); });
  const int32_t code = TRY(session.run(step, [&](int stream, std::string_view bytes) {
    keep_output(bytes);
    state_.tell(VertexOutput{.id = order.vertex, .stream = stream, .bytes = std::string(bytes)});
    return !state_.cancellation.cancelled();
  }));
  if (code == 0) return {};
  return base::fail(ErrorCode::InvalidState, "the command ended with exit code {}", code);
}

Result<LayerRef> RunMachine::take_layer(const std::string& step) {
  reconciler::BuildSession& session = machine_->session();
  if (!state_.request.source_date_epoch)
    return state_.content.add_layer(
        [&](const auto& sink) { return session.take_layer(step, sink); });
  // Times after the epoch are the step's own; the layer is written again without them.
  image::BytePipe pipe;
  Result<> taken;
  std::thread taking([&] {
    taken = session.take_layer(step, [&](std::string_view bytes) { return pipe.write(bytes); });
    pipe.finish(taken);
  });
  Result<std::unique_ptr<Tree>> tree =
      open_tar_tree([&](std::span<char> buffer) { return pipe.read(buffer); },
                    {.spool_folder = state_.ports.work_folder});
  pipe.leave();
  taking.join();
  const LayerWriteOptions options{.latest_s = state_.request.source_date_epoch};
  const std::unique_ptr<Tree> changes = TRY(std::move(tree));
  return state_.content.add_layer(
      [&](const auto& sink) { return write_tree(*changes, "", options, sink); });
}

// ---- what it printed ---------------------------------------------------------------------------

void RunMachine::keep_output(std::string_view bytes) {
  for (const char byte : bytes) {
    if (output_.empty() || output_.back().ends_with('\n')) output_.emplace_back();
    if (output_.back().size() < limits::output_line_bytes_max || byte == '\n')
      output_.back().push_back(byte);
    if (output_.size() > limits::output_lines_kept) output_.pop_front();
  }
}

std::string RunMachine::last_output() const {
  std::string text;
  for (const std::string& line : output_) text += line;
  if (!text.empty() && !text.ends_with('\n')) text += '\n';
  return text;
}

}  // namespace builder
