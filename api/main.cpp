/// `container-apiserver`: the daemon of one system.
///
///   container-apiserver [--foreground] [--debug] [--end [--grace-ms MS]]
///
/// Ends on SIGTERM and SIGINT; virtual machines and networks run on and are taken over by the next
/// one. Ended by `container system stop` it leaves neither. `--foreground` logs to stderr. `--end`
/// serves nobody: it takes over what an earlier one left, and ends that and itself.

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <future>
#include <optional>
#include <string>
#include <string_view>

#include <malloc.h>
#include <unistd.h>

#include "api/builds.h"
#include "api/commands.h"
#include "api/image_service.h"
#include "api/lock.h"
#include "api/paths.h"
#include "api/registry_service.h"
#include "api/service.h"
#include "api/store.h"
#include "api/wire.h"
#include "base/file.h"
#include "base/log.h"
#include "base/uv.h"
#include "network/driver.h"
#include "reconciler/uv_workers.h"
#include "runtime/driver.h"

namespace {

using base::ErrorCode;
using base::Result;

constexpr const char* version = "0.1.0";
/// Blocking steps side by side; libuv reads it at the first use of its pool.
constexpr const char* worker_threads = "24";
/// Arenas of malloc: each connection's thread would otherwise get one of its own.
constexpr int malloc_arenas = 2;
/// Memory of that size or more goes back to the kernel when it is freed. Unless told, malloc keeps
/// whatever is as large as the largest piece so far, and the buffers of one pull stay for good.
constexpr int malloc_returns_bytes = 128 << 10;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

struct Options {
  bool foreground = false;
  bool debug = false;
  bool end = false;
  std::optional<int64_t> grace_ms;  ///< Instead of each container's own.
};

constexpr const char* usage =
    "usage: container-apiserver [--foreground] [--debug] [--end [--grace-ms MS]]";

std::optional<int64_t> parse_grace(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

Result<Options> parse(int count, char** values) {
  Options options;
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(values[i], "--foreground") == 0)
      options.foreground = true;
    else if (std::strcmp(values[i], "--debug") == 0)
      options.debug = true;
    else if (std::strcmp(values[i], "--end") == 0)
      options.end = true;
    else if (std::strcmp(values[i], "--grace-ms") == 0 && i + 1 < count &&
             (options.grace_ms = parse_grace(values[i + 1])))
      ++i;
    else
      return base::fail(ErrorCode::InvalidArgument, "{}", usage);
  }
  if (options.grace_ms && !options.end) return base::fail(ErrorCode::InvalidArgument, "{}", usage);
  return options;
}

/// Everything the daemon is made of, in the order it is made.
class Daemon {
 public:
  Daemon(api::Paths paths, Options options) : paths_(std::move(paths)), options_(options) {}

  Result<> open() {
    TRY(base::make_directories(paths_.app_root));
    TRY(base::make_directories(paths_.run_root));
    lock_ = TRY(api::lock_app_root(paths_.app_root));
    store_ = TRY_DURING(api::SqliteStore::open({.path = paths_.state_file()}), "open the state");
    for (const std::string& note : store_->notes()) spdlog::warn("{}", note);
    images_ = TRY_DURING(image::Images::open({.root = paths_.app_root + "/images"}),
                         "open the image store");
    network_ = TRY(network::NetworkDriver::create({.run_root = paths_.run_root + "/networks",
                                                   .state_root = paths_.app_root + "/networks",
                                                   .programs = paths_.programs,
                                                   .log_root = paths_.log_root,
                                                   .system = paths_.app_root,
                                                   .way_out = environment("CONTAINER_WAY_OUT"),
                                                   .domain = ""}));
    runtime_ =
        TRY(runtime::RuntimeDriver::open({.app_root = paths_.app_root,
                                          .run_root = paths_.run_root,
                                          .programs = paths_.programs,
                                          .guest = paths_.guest,
                                          .epoch = store_->epoch(),
                                          .accelerator = environment("CONTAINER_ACCELERATOR"),
                                          .prepare_template = !options_.end}));
    if (::uv_loop_init(&loop_) != 0) return base::fail(ErrorCode::Io, "cannot make an event loop");
    workers_ = TRY(reconciler::UvWorkers::create(&loop_));
    return {};
  }

  /// Until a signal, a request to stop, or a failure to start.
  Result<> run() {
    reconciler_ = std::make_unique<reconciler::Reconciler>(ports());
    TRY(watch_signals());
    const runtime::AcceleratorInfo accelerator = runtime_->accelerator();
    spdlog::info("machines run under {}: {}", accelerator.name, accelerator.reason);
    spdlog::info("networks reach the world through {}", way_out());
    service_ =
        std::make_unique<api::Service>(ports(), *images_, *reconciler_,
                                       api::SystemFacts{.app_root = paths_.app_root,
                                                        .install_root = paths_.programs,
                                                        .log_root = paths_.log_root,
                                                        .version = version,
                                                        .accelerator = accelerator.name,
                                                        .accelerator_reason = accelerator.reason,
                                                        .epoch = store_->epoch(),
                                                        .way_out = [this] { return way_out(); }},
                                       [this] {
                                         system_ends_ = true;
                                         stop();
                                       });
    registries_ = std::make_unique<api::RegistryService>(*images_);
    service_->set_remote_digest([this](const std::string& reference, const nlohmann::json& access) {
      return registries_->remote_digest(reference, access);
    });
    image_service_ = std::make_unique<api::ImageService>(
        *images_, runtime::Folders{.app_root = paths_.app_root, .run_root = paths_.run_root},
        [this] { return service_->snapshot(); });
    builds_ =
        TRY(api::Builds::open({.root = paths_.app_root + "/builds"}, *images_, *runtime_,
                              {.reconciler = *reconciler_, .workers = *workers_}, *registries_));
    images_->store().set_users([this] { return images_in_use(); });
    reconciler_->on_notice(
        [this](const reconciler::ContainerNotice& notice) { service_->tell(notice); });
    reconciler_->start(
        [this](const Result<>& ready) {
          outcome_ = !ready ? ready : options_.end ? end_system() : serve();
          if (!outcome_) stop();
        },
        options_.end ? reconciler::Begin::TakeOver : reconciler::Begin::CarryOn);
    ::uv_run(&loop_, UV_RUN_DEFAULT);
    close();
    return outcome_;
  }

 private:
  /// `libslirp`, or `pasta: why`.
  std::string way_out() const {
    const network::WayOutReport report = network_->way_out();
    return report.reason.empty() ? report.name : report.name + ": " + report.reason;
  }

  /// By containers, and by the cache of builds.
  Result<std::set<std::string>> images_in_use() {
    std::set<std::string> digests = builds_->digests();
    digests.merge(TRY(service_->images_in_use()));
    return digests;
  }

  reconciler::Ports ports() { return {*runtime_, *network_, *images_, *store_, *workers_}; }

  Result<> serve() {
    base::UniqueFd listener = TRY(base::listen_unix(paths_.api_socket()));
    std::vector<api::Route> routes = service_->routes();
    for (api::Route& route : image_service_->routes()) routes.push_back(std::move(route));
    for (api::Route& route : registries_->routes()) routes.push_back(std::move(route));
    for (api::Route& route : builds_->routes()) routes.push_back(std::move(route));
    server_ = TRY(api::HttpServer::start(std::move(listener), std::move(routes),
                                         {.protocol = std::string(api::upgrade_protocol)}));
    api::remove_left_machines({.reconciler = *reconciler_, .workers = *workers_});
    spdlog::info("ready, serving {}", paths_.api_socket());
    collect_garbage();
    return {};
  }

  /// The plan of `system stop`, and then our end.
  Result<> end_system() {
    api::StopCommand command;
    command.chosen.all = true;
    command.grace_ms = options_.grace_ms;
    const auto make = [command](const planner::Snapshot& now) {
      return api::make_plan(command, now);
    };
    reconciler::ApplyRequest request;
    request.plan = TRY(make(reconciler_->snapshot()));
    request.owner = "system stop";
    request.replan = make;
    request.finished = [this](const Result<>& ended) {
      outcome_ = ended;
      system_ends_ = true;
      stop();
    };
    reconciler_->apply(std::move(request));
    return {};
  }

  /// What loads and builds left that died with an earlier daemon.
  void collect_garbage() {
    const auto freed = std::make_shared<Result<image::Collected>>();
    const auto collected = std::make_shared<std::promise<void>>();
    collected_ = collected->get_future();
    workers_->run(
        [this, freed, collected] {
          *freed = images_->store().collect();
          collected->set_value();
        },
        [freed] {
          if (!*freed)
            spdlog::warn("left-over image content stays: {}", freed->error().to_string());
          else if ((*freed)->bytes > 0)
            spdlog::info("{} KiB of left-over image content deleted", (*freed)->bytes / 1024);
        });
  }

  Result<> watch_signals() {
    for (const int number : {SIGTERM, SIGINT}) {
      auto handle = TRY(base::make_handle<uv_signal_t>(
          [&](uv_signal_t* made) { return ::uv_signal_init(&loop_, made); }));
      handle->data = this;
      ::uv_signal_start(
          handle.get(),
          [](uv_signal_t* signal, int) {
            if (auto* self = static_cast<Daemon*>(signal->data)) self->stop();
          },
          number);
      signals_.push_back(std::move(handle));
    }
    return {};
  }

  /// On the loop. Machines run on.
  void stop() {
    if (stopping_) return;
    stopping_ = true;
    spdlog::info("stopping");
    ::unlink(paths_.api_socket().c_str());
    reconciler_->stop([this] {
      signals_.clear();
      ::uv_stop(&loop_);
    });
  }

  /// Connections may wait for the loop, which turns no more: the server ends beside it.
  void close() {
    std::thread closing([this] {
      if (registries_) registries_->stop();  // Requests that wait for one hold the server up.
      server_.reset();
      if (builds_) builds_->stop();
      if (collected_.valid()) collected_.wait();  // It asks builds and containers what they use.
      workers_->post([this] { ::uv_stop(&loop_); });
    });
    ::uv_run(&loop_, UV_RUN_DEFAULT);
    closing.join();
    reconciler_.reset();
    builds_.reset();
    image_service_.reset();
    registries_.reset();
    service_.reset();
    workers_.reset();
    runtime_.reset();
    if (system_ends_)
      if (const auto rested = network_->rest(); !rested)
        spdlog::warn("a network lives on: {}", rested.error().to_string());
    network_.reset();
    while (::uv_run(&loop_, UV_RUN_NOWAIT) != 0) {
    }
    ::uv_loop_close(&loop_);
  }

  const api::Paths paths_;
  const Options options_;
  base::UniqueFd lock_;
  std::unique_ptr<api::SqliteStore> store_;
  std::unique_ptr<image::Images> images_;
  std::unique_ptr<network::NetworkDriver> network_;
  std::unique_ptr<runtime::RuntimeDriver> runtime_;
  uv_loop_t loop_{};
  std::unique_ptr<reconciler::UvWorkers> workers_;
  std::unique_ptr<reconciler::Reconciler> reconciler_;
  std::unique_ptr<api::Service> service_;
  std::unique_ptr<api::ImageService> image_service_;
  std::unique_ptr<api::RegistryService> registries_;
  std::unique_ptr<api::Builds> builds_;
  std::future<void> collected_;  ///< What earlier daemons left has been looked through.
  std::unique_ptr<api::HttpServer> server_;
  std::vector<base::UvHandle<uv_signal_t>> signals_;
  Result<> outcome_;
  bool stopping_ = false;
  bool system_ends_ = false;  ///< Not only the daemon: networks end as well.
};

Result<> serve(const api::Paths& paths, const Options& options) {
  TRY(base::make_directories(paths.log_root));
  TRY(base::make_directories(paths.run_root));
  base::start_log("container-apiserver", options.foreground ? "" : paths.daemon_log(),
                  options.debug);
  ::unlink(paths.start_message().c_str());
  Daemon daemon(paths, options);
  Result<> ended = daemon.open();
  if (ended) ended = daemon.run();
  if (ended) return {};
  spdlog::error("{}", ended.error().to_string());
  (void)base::write_file_atomically(paths.start_message(), ended.error().to_string() + "\n");
  return ended;
}

}  // namespace

int main(int count, char** values) {
  ::setenv("UV_THREADPOOL_SIZE", worker_threads, 0);
  ::mallopt(M_ARENA_MAX, malloc_arenas);
  ::mallopt(M_MMAP_THRESHOLD, malloc_returns_bytes);
  ::mallopt(M_TRIM_THRESHOLD, malloc_returns_bytes);
  std::signal(SIGPIPE, SIG_IGN);
  const Result<Options> options = parse(count, values);
  const Result<api::Paths> paths = api::find_paths();
  if (!options || !paths) {
    const base::Error& error = options ? paths.error() : options.error();
    std::fprintf(stderr, "container-apiserver: %s\n", error.to_string().c_str());
    return options ? 1 : 64;
  }
  return serve(*paths, *options) ? 0 : 1;
}
