/// container-network: serves one container network, whoever else comes and goes.
///
///   container-network --run FOLDER --state FOLDER [--log FILE] [--way-out pasta|libslirp]
///   [--debug]
///
/// Started by the daemon, which it outlives. Says on descriptor 3, if that is open, how its start
/// went: one line, as message.h has it. SIGTERM ends this process but not the network; its
/// successor takes over.

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include <fmt/format.h>

#include "base/log.h"
#include "base/uv.h"
#include "network/message.h"
#include "network/service.h"

namespace {

using base::ErrorCode;

constexpr int ready_descriptor = 3;

struct Arguments {
  network::ServiceOptions service;
  bool debug = false;
};

base::Result<Arguments> parse_arguments(int count, char** texts) {
  Arguments arguments;
  std::string way_out;
  for (int i = 1; i < count; ++i) {
    const std::string option = texts[i];
    if (option == "--debug") {
      arguments.debug = true;
      continue;
    }
    std::string* value = option == "--run"       ? &arguments.service.folders.run
                         : option == "--state"   ? &arguments.service.folders.state
                         : option == "--log"     ? &arguments.service.log_file
                         : option == "--way-out" ? &way_out
                                                 : nullptr;
    if (!value || i + 1 == count)
      return base::fail(ErrorCode::InvalidArgument, "unknown or incomplete option '{}'", option);
    *value = texts[++i];
  }
  if (arguments.service.folders.run.empty() || arguments.service.folders.state.empty())
    return base::fail(ErrorCode::InvalidArgument, "--run and --state are needed");
  arguments.service.way_out = TRY(network::parse_way_out(way_out));
  std::error_code error;
  arguments.service.programs =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path().string();
  if (error) return base::fail_errno(error.value(), "find the programs");
  return arguments;
}

/// A published connection takes six descriptors; the soft limit of most systems is 1024.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

void report_start(const std::string& line) {
  if (::fcntl(ready_descriptor, F_GETFD) < 0) return;
  static_cast<void>(base::write_all(ready_descriptor, line + "\n"));
  ::close(ready_descriptor);
}

base::Result<> serve(const Arguments& arguments, uv_loop_t* loop) {
  auto service = TRY(network::Service::create(loop, arguments.service));
  auto stop = TRY(base::make_handle<uv_signal_t>(
      [&](uv_signal_t* handle) { return uv_signal_init(loop, handle); }));
  uv_signal_start(
      stop.get(), [](uv_signal_t* handle, int) { uv_stop(handle->loop); }, SIGTERM);
  report_start(network::encode_success("ready"));
  uv_run(loop, UV_RUN_DEFAULT);
  spdlog::info(service->ended() ? "the network was removed" : "told to end; the network stays");
  return {};
}

}  // namespace

int main(int count, char** texts) {
  ::signal(SIGPIPE, SIG_IGN);
  ::umask(0077);
  raise_descriptor_limit();
  // Lines about our start belong to the one who waits for it, and to nobody we start.
  if (::fcntl(ready_descriptor, F_GETFD) >= 0) ::fcntl(ready_descriptor, F_SETFD, FD_CLOEXEC);
  const auto arguments = parse_arguments(count, texts);
  if (!arguments) {
    report_start(network::encode_failure(arguments.error()));
    fmt::print(stderr, "container-network: {}\n", arguments.error().to_string());
    return 2;
  }
  base::start_log("container-network", arguments->service.log_file, arguments->debug);
  uv_loop_t loop;
  if (uv_loop_init(&loop) != 0) return 1;
  const auto served = serve(*arguments, &loop);
  if (!served) {
    spdlog::error("{}", served.error().to_string());
    report_start(network::encode_failure(served.error()));
  }
  uv_run(&loop, UV_RUN_DEFAULT);  // Closes what the service has let go of.
  uv_loop_close(&loop);
  return served ? 0 : 1;
}
