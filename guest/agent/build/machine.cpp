#include "guest/agent/build/machine.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "guest/agent/build/step.h"
#include "guest/agent/implied.h"
#include "guest/agent/limits.h"
#include "guest/agent/root.h"
#include "guest/agent/system.h"

namespace agent {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

namespace {

const std::string layers_folder = std::string(scratch_folder) + "/layers";
const std::string trees_folder = std::string(scratch_folder) + "/trees";

Result<> check_id(const std::string& id) {
  const bool plain = std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
  if (plain && !id.empty() && id.size() <= limits::layer_id_bytes_max) return {};
  return fail(ErrorCode::InvalidArgument, "'{}' is no id: small letters, digits and '-'",
              base::escape_controls(id));
}

/// The body of a request, written into a worker's pipe as that takes it.
class PipeSink final : public BodySink, public std::enable_shared_from_this<PipeSink> {
 public:
  PipeSink(Loop& loop, ReplyPtr reply) : loop_(loop), reply_(std::move(reply)) {}

  ~PipeSink() override { reply_->consumed(waiting_.size()); }
  PipeSink(const PipeSink&) = delete;
  PipeSink& operator=(const PipeSink&) = delete;

  void set_worker(std::shared_ptr<Worker> worker) { worker_ = std::move(worker); }
  void bytes(std::string_view piece) override {
    if (!worker_ || !worker_->pipe()) return reply_->consumed(piece.size());
    if (waiting_.empty()) piece.remove_prefix(write_some(piece));
    if (piece.empty()) return;
    waiting_ += piece;
    watch();
  }
  void end() override {
    ended_ = true;
    finish();
  }
  /// The worker has gone: what still comes is of no use.
  void give_up() {
    if (worker_) worker_->close_pipe();
    reply_->consumed(waiting_.size());
    waiting_.clear();
    worker_.reset();
  }

 private:
  size_t write_some(std::string_view piece) {
    size_t done = 0;
    while (done < piece.size()) {
      const ssize_t count =
          ::write(worker_->pipe().get(), piece.data() + done, piece.size() - done);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EAGAIN) break;
      if (count < 0) {  // It has ended, and says why.
        done = piece.size();
        break;
      }
      done += static_cast<size_t>(count);
    }
    reply_->consumed(done);
    return done;
  }
  void watch() {
    if (watched_) return;
    watched_ =
        bool(loop_.watch(worker_->pipe().get(), EPOLLOUT, [self = weak_from_this()](uint32_t) {
          if (const auto sink = self.lock()) sink->on_room();
        }));
  }
  void on_room() {
    if (!worker_ || !worker_->pipe()) return;
    waiting_.erase(0, write_some(waiting_));
    if (!waiting_.empty()) return;
    loop_.forget(worker_->pipe().get());
    watched_ = false;
    finish();
  }
  void finish() {
    if (ended_ && waiting_.empty() && worker_) worker_->close_pipe();
  }

  Loop& loop_;
  const ReplyPtr reply_;
  std::shared_ptr<Worker> worker_;
  std::string waiting_;
  bool ended_ = false;
  bool watched_ = false;
};

/// What a worker writes into its pipe, as the body of a response.
class PipeSource final : public BodySource, public std::enable_shared_from_this<PipeSource> {
 public:
  PipeSource(Loop& loop, std::weak_ptr<Reply> reply) : loop_(loop), reply_(std::move(reply)) {}
  ~PipeSource() override {
    if (worker_) worker_->cancel([] {});
  }
  PipeSource(const PipeSource&) = delete;
  PipeSource& operator=(const PipeSource&) = delete;

  Result<> start(std::function<Result<>(int pipe)> work) {
    worker_ = TRY(Worker::start(loop_, PipeWay::FromWorker, std::move(work),
                                [self = weak_from_this()](Result<> result) {
                                  if (const auto source = self.lock()) source->on_done(result);
                                }));
    return {};
  }

  State fill(std::string& out, size_t bytes_max) override {
    const size_t before = out.size();
    out.resize(before + bytes_max);
    size_t got = 0;
    while (got < bytes_max && !pipe_ended_) {
      const ssize_t count =
          ::read(worker_->pipe().get(), out.data() + before + got, bytes_max - got);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) break;
      pipe_ended_ = count == 0;
      got += static_cast<size_t>(count);
    }
    out.resize(before + got);
    if (pipe_ended_) stop_watching();
    if (got > 0) return State::More;
    if (pipe_ended_ && result_) return *result_ ? State::End : State::Broken;
    if (!pipe_ended_) watch();
    return State::Wait;
  }
  std::string failure() const override {
    return result_ && !*result_ ? result_->error().to_string() : "";
  }

 private:
  void on_done(Result<> result) {
    result_ = std::move(result);
    wake();
  }
  void wake() {
    if (const auto reply = reply_.lock()) reply->resume();
  }
  void watch() {
    if (watched_) return;
    watched_ =
        bool(loop_.watch(worker_->pipe().get(), EPOLLIN, [self = weak_from_this()](uint32_t) {
          const auto source = self.lock();
          if (!source) return;
          source->stop_watching();
          source->wake();
        }));
  }
  void stop_watching() {
    if (std::exchange(watched_, false)) loop_.forget(worker_->pipe().get());
  }

  Loop& loop_;
  const std::weak_ptr<Reply> reply_;
  std::shared_ptr<Worker> worker_;
  std::optional<Result<>> result_;
  bool pipe_ended_ = false;
  bool watched_ = false;
};

Result<> unpack_from(int pipe, const std::string& folder, UnpackKind kind) {
  const UniqueFd target = TRY(base::open_file(folder, O_RDONLY | O_DIRECTORY));
  TarReader archive([pipe](char* buffer, size_t capacity) {
    return base::read_some(pipe, {buffer, capacity});
  });
  return unpack(archive, target.get(), kind);
}

/// The first process of the machine: it waits to be told to end.
[[noreturn]] void idle() {
  sigset_t ends;
  ::sigemptyset(&ends);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) ::sigaddset(&ends, number);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  int number = 0;
  while (::sigwait(&ends, &number) != 0) {
  }
  ::_exit(0);
}

}  // namespace

Place idle_place(int cgroup_fd) {
  Place place;
  place.cgroup_fd = cgroup_fd;
  place.body = idle;
  return place;
}

Result<> BuildMachine::set_up(const guest::ContainerConfig& config, const std::string& image_disk,
                              const std::string& scratch_disk, const std::string& shares_folder) {
  config_ = config;
  shares_folder_ = shares_folder;
  image_layers_ = TRY(mount_layers(config.layers, image_disk));
  // Nothing on it outlives the machine, so its order of writing is of no interest.
  TRY(mount_scratch(scratch_disk, {{"nobarrier", ""}, {"noauto_da_alloc", ""}}));
  for (const std::string& folder : {layers_folder, trees_folder}) {
    TRY(base::remove_tree(folder));  // of an earlier run of the same machine
    TRY(make_folder(folder));
  }
  TRY_DURING(restore_folders(), "folders that layers do not list");
  return {};
}

Result<> BuildMachine::take_down() {
  std::vector<std::string> mounted;
  for (const uint32_t partition : config_.layers) mounted.push_back(layer_folder(partition));
  mounted.push_back(scratch_folder);
  for (const std::string& folder : mounted)
    if (::umount2(folder.c_str(), UMOUNT_NOFOLLOW) != 0)
      return fail_errno(errno, fmt::format("unmount '{}'", folder));
  return {};
}

/// Folders of the image that no layer on top lists get their owner and mode back in a layer of
/// their own, above the image's: what a step copies up of them into its layer is right then.
Result<> BuildMachine::restore_folders() {
  if (image_layers_.size() < 2) return {};
  const std::string folder = layers_folder + "/image";
  const std::string files = folder + "/files";
  for (const std::string& one : {folder, files, folder + "/work"}) TRY(make_folder(one));
  const RootFacts top = top_root();
  if (::chown(files.c_str(), top.user, top.group) != 0 || ::chmod(files.c_str(), top.mode) != 0)
    return fail_errno(errno, "make the layer's root");
  MountOptions options;
  for (auto layer = image_layers_.rbegin(); layer != image_layers_.rend(); ++layer)
    options.emplace_back("lowerdir+", *layer);
  options.emplace_back("upperdir", files);
  options.emplace_back("workdir", folder + "/work");
  options.emplace_back("volatile", "");
  // Unmounted again when it goes out of scope, before it becomes a layer itself.
  const UniqueFd merged = TRY(make_filesystem("overlay", "container", options, 0));
  TRY(restore_implied_folders(image_layers_, files, true,
                              fmt::format("/proc/self/fd/{}", merged.get())));
  image_layers_.push_back(files);
  return {};
}

RootFacts BuildMachine::top_root() const {
  const std::string top = layers_.empty() ? image_layers_.back() : layers_.back().folder + "/files";
  struct stat facts {};
  if (::stat(top.c_str(), &facts) != 0) return {};
  return {.mode = facts.st_mode & 07777, .user = facts.st_uid, .group = facts.st_gid};
}

Result<> BuildMachine::check_free(const std::string& id) const {
  TRY(check_id(id));
  if (coming_)
    return fail(ErrorCode::Busy, "the layer '{}' is being made; one at a time", coming_->id);
  for (const Layer& layer : layers_)
    if (layer.id == id) return fail(ErrorCode::Exists, "there is a layer '{}' already", id);
  return {};
}

Result<BuildMachine::Layer> BuildMachine::new_layer(const std::string& id) {
  TRY(check_free(id));
  Layer layer{
      .id = id, .folder = fmt::format("{}/{}", layers_folder, ++last_folder_), .root = top_root()};
  TRY(make_folder(layer.folder));
  const std::string files = layer.folder + "/files";
  TRY(make_folder(files));
  // The root folder is that of the layer below, until somebody changes it.
  if (::chown(files.c_str(), layer.root.user, layer.root.group) != 0 ||
      ::chmod(files.c_str(), layer.root.mode) != 0)
    return fail_errno(errno, "make the layer's root");
  return layer;
}

void BuildMachine::discard(const std::string& folder) {
  // A child does it: a large layer takes its time. Whether it succeeds is of no interest.
  (void)Worker::start(
      loop_, PipeWay::FromWorker, [folder](int) { return base::remove_tree(folder); },
      [](const Result<>&) {});
}

Result<std::shared_ptr<BodySink>> BuildMachine::receive(
    UnpackKind kind, const std::string& folder, const ReplyPtr& reply,
    std::function<void(bool succeeded)> finished) {
  reply->set_window(limits::upload_window_bytes);
  auto sink = std::make_shared<PipeSink>(loop_, reply);
  auto worker = TRY(Worker::start(
      loop_, PipeWay::ToWorker,
      [kind, folder](int pipe) { return unpack_from(pipe, folder, kind); },
      [finished, reply, weak = std::weak_ptr(sink)](const Result<>& result) {
        reply->on_closed({});
        if (const auto to = weak.lock()) to->give_up();
        finished(result.has_value());
        if (result)
          reply->send(nlohmann::json::object());
        else
          reply->fail(result.error());
      }));
  sink->set_worker(worker);
  // The request was given up, or the connection lost: half a layer is none.
  reply->on_closed([worker, finished] { worker->cancel([finished] { finished(false); }); });
  return std::shared_ptr<BodySink>(sink);
}

Result<std::shared_ptr<BodySink>> BuildMachine::receive_layer(const std::string& id,
                                                              const ReplyPtr& reply) {
  coming_ = TRY(new_layer(id));
  auto sink = receive(UnpackKind::Layer, coming_->folder + "/files", reply, [this](bool succeeded) {
    const Layer made = *std::exchange(coming_, std::nullopt);
    if (succeeded)
      layers_.push_back(made);
    else
      discard(made.folder);
  });
  if (!sink) coming_.reset();
  return sink;
}

Result<std::shared_ptr<BodySink>> BuildMachine::receive_tree(const std::string& name,
                                                             const ReplyPtr& reply) {
  TRY(check_id(name));
  if (trees_.contains(name)) return fail(ErrorCode::Exists, "there is a tree '{}' already", name);
  if (trees_.size() >= limits::trees_max)
    return fail(ErrorCode::InvalidState, "a build machine holds at most {} trees",
                limits::trees_max);
  const std::string folder = trees_folder + "/" + name;
  TRY(make_folder(folder));
  trees_[name] = false;
  auto sink = receive(UnpackKind::Tree, folder, reply, [this, name, folder](bool succeeded) {
    trees_[name] = true;
    if (succeeded) return;
    trees_.erase(name);
    // Moved away at once, so that the name is free.
    const std::string aside = fmt::format("{}/{}", layers_folder, ++last_folder_);
    (void)::rename(folder.c_str(), aside.c_str());
    discard(aside);
  });
  if (!sink) trees_.erase(name);
  return sink;
}

Result<> BuildMachine::send_layer(const std::string& id, const ReplyPtr& reply) {
  const auto found = std::find_if(layers_.begin(), layers_.end(),
                                  [&](const Layer& layer) { return layer.id == id; });
  if (found == layers_.end())
    return fail(ErrorCode::NotFound, "there is no layer '{}'", base::escape_controls(id));
  auto source = std::make_shared<PipeSource>(loop_, reply);
  TRY(source->start([folder = found->folder + "/files", root = found->root](int pipe) {
    return pack(folder, root, pipe);
  }));
  reply->stream(source);
  return {};
}

Result<Place> BuildMachine::begin_step(const guest::StepConfig& config) {
  StepStage stage;
  for (const guest::StepMount& mount : config.mounts) {
    if (!mount.target.starts_with('/') || mount.target == "/")
      return fail(ErrorCode::InvalidArgument, "'{}' is no place to mount at",
                  base::escape_controls(mount.target));
    std::string& share = stage.share_names.emplace_back();
    if (mount.kind == guest::StepMountKind::Tree) {
      const auto tree = trees_.find(mount.source);
      if (tree == trees_.end() || !tree->second)
        return fail(ErrorCode::NotFound, "there is no tree '{}'",
                    base::escape_controls(mount.source));
    }
    if (mount.kind != guest::StepMountKind::Share) continue;
    for (const guest::GuestMount& each : config_.mounts)
      if (each.kind == guest::MountKind::Share && each.target == mount.source) share = each.source;
    if (share.empty())
      return fail(ErrorCode::NotFound, "the machine has no shared '{}'",
                  base::escape_controls(mount.source));
  }
  const Layer layer = TRY(new_layer(config.id));
  stage.config = config;
  stage.lower = image_layers_;
  for (const Layer& each : layers_) stage.lower.push_back(each.folder + "/files");
  stage.folder = layer.folder;
  stage.trees_folder = trees_folder;
  stage.shares_folder = shares_folder_;
  stage.etc_folder = etc_folder;
  stage.hosts =
      TRY(base::read_file(std::string(etc_folder) + "/hosts", limits::small_file_bytes_max));
  coming_ = layer;
  relay_.begin_step(config.id);
  Place place;
  place.prepare = [stage = std::move(stage)](int report) {
    return enter_step(
        stage, [report](size_t mount, int socket) { report_listening(report, mount, socket); });
  };
  return place;
}

void BuildMachine::end_step(const std::string& id, bool succeeded) {
  relay_.end_step(id);
  if (!coming_ || coming_->id != id) return;
  const Layer made = *std::exchange(coming_, std::nullopt);
  if (succeeded)
    layers_.push_back(made);
  else
    discard(made.folder);
}

}  // namespace agent
