#include "network/uplink.h"

#include <algorithm>
#include <cstdlib>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <spdlog/spdlog.h>

#include "base/file.h"
#include "base/text.h"
#include "base/uv.h"
#include "network/inside.h"
#include "network/names.h"

namespace network {
namespace {

using base::ErrorCode;
using base::fail;

constexpr int start_timeout_ms = 5'000;
constexpr int end_timeout_ms = 2'000;
constexpr int user_descriptor = 3;
constexpr int net_descriptor = 4;

base::Result<std::string> find_pasta() {
  const char* path = std::getenv("PATH");
  for (const std::string& folder : base::split(path ? path : "/usr/bin:/bin", ':'))
    if (!folder.empty() && ::access((folder + "/pasta").c_str(), X_OK) == 0)
      return folder + "/pasta";
  return fail(ErrorCode::Unsupported,
              "pasta is not installed, so networks have no way out; install the package `passt`");
}

std::vector<std::string> pasta_arguments(const std::string& pasta, bool own_user_namespace) {
  std::vector<std::string> arguments = {
      pasta, "--foreground", "--stderr", "--ipv4-only",
      // Nothing comes in: ports are published by us.
      "-t", "none", "-u", "none", "-T", "none", "-U", "none",
      // The host's loopback stays the host's.
      "--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra", "--ns-ifname", uplink_name,
      "--mtu", std::to_string(uplink_mtu), "--address", dns::format_ipv4(uplink_address),
      "--netmask", std::to_string(uplink_prefix), "--gateway", dns::format_ipv4(uplink_gateway),
      "--netns", fmt::format("/proc/self/fd/{}", net_descriptor)};
  if (own_user_namespace) {
    arguments.emplace_back("--userns");
    arguments.push_back(fmt::format("/proc/self/fd/{}", user_descriptor));
  }
  if (::geteuid() == 0) {  // As nobody it could not enter a namespace of root's.
    arguments.emplace_back("--runas");
    arguments.emplace_back("0");
  }
  return arguments;
}

}  // namespace

struct Uplink::State {
  uv_loop_t* loop = nullptr;
  const Keeper* keeper = nullptr;
  UplinkOptions options;
  Changed changed;
  base::ProcessIdentity process;
  base::UniqueFd pidfd;
  base::UvHandle<uv_poll_t> watch;
  base::UvHandle<uv_timer_t> timer;
  uint64_t pause_ms = 0;

  base::Result<> spawn_pasta();
  base::Result<> watch_process();
  void restart_later();
};

namespace {

void on_end(uv_poll_t* poll, int, int) {
  auto* state = static_cast<Uplink::State*>(poll->data);
  if (!state) return;
  ::waitpid(static_cast<pid_t>(state->process.pid), nullptr, WNOHANG);
  state->watch.reset();
  state->changed(std::nullopt);
  spdlog::warn("the way out (pasta, process {}) ended; starting it again", state->process.pid);
  state->restart_later();
}

void on_restart(uv_timer_t* timer) {
  auto* state = static_cast<Uplink::State*>(timer->data);
  if (!state) return;
  if (const auto started = state->spawn_pasta(); !started) {
    spdlog::warn("no way out yet: {}", started.error().to_string());
    state->restart_later();
  }
}

}  // namespace

base::Result<> Uplink::State::spawn_pasta() {
  const std::string pasta = TRY(find_pasta());
  base::SpawnOptions options_for_pasta{
      .arguments = pasta_arguments(pasta, bool(keeper->user_namespace)),
      .descriptors = {{keeper->net_namespace.get(), net_descriptor}}};
  if (keeper->user_namespace)
    options_for_pasta.descriptors.emplace_back(keeper->user_namespace.get(), user_descriptor);
  base::UniqueFd log;
  if (!options.log_file.empty()) {
    log = TRY(base::open_file(options.log_file, O_WRONLY | O_CREAT | O_TRUNC));
    options_for_pasta.descriptors.emplace_back(log.get(), 1);
    options_for_pasta.descriptors.emplace_back(log.get(), 2);
  }
  process = TRY(base::spawn(options_for_pasta));
  pidfd = TRY(base::open_process(process));
  const auto deadline = base::Deadline::in_ms(start_timeout_ms);
  const auto routed = run_inside(
      *keeper, "start the way out",
      [&]() -> base::Result<InsideResult> {
        TRY(route_through_uplink(pidfd.get(), deadline));
        return InsideResult{};
      },
      deadline);
  if (!routed) {
    stop_uplink(process);
    std::string said = options.log_file.empty()
                           ? std::string()
                           : base::read_file(options.log_file, 65536).value_or("");
    return fail(
        ErrorCode::Io, "{}; pasta said: {}", routed.error().to_string(),
        base::escape_controls(said.substr(said.size() - std::min<size_t>(said.size(), 300))));
  }
  changed(process);
  pause_ms = 0;
  return watch_process();
}

base::Result<> Uplink::State::watch_process() {
  watch = TRY(base::make_handle<uv_poll_t>(
      [&](uv_poll_t* handle) { return uv_poll_init(loop, handle, pidfd.get()); }));
  watch->data = this;
  uv_poll_start(watch.get(), UV_READABLE, on_end);
  return {};
}

void Uplink::State::restart_later() {
  pause_ms = std::clamp(pause_ms * 2, options.restart_first_ms, options.restart_max_ms);
  uv_timer_start(timer.get(), on_restart, pause_ms, 0);
}

Uplink::Uplink(uv_loop_t* loop, const Keeper& keeper, UplinkOptions options, Changed changed)
    : state_(std::make_unique<State>()) {
  state_->loop = loop;
  state_->keeper = &keeper;
  state_->options = std::move(options);
  state_->changed = std::move(changed);
}

Uplink::~Uplink() = default;

base::Result<> Uplink::start(const std::optional<base::ProcessIdentity>& known) {
  state_->timer = TRY(base::make_handle<uv_timer_t>(
      [&](uv_timer_t* handle) { return uv_timer_init(state_->loop, handle); }));
  state_->timer->data = state_.get();
  if (known) {
    if (auto running = base::open_process(*known)) {
      state_->process = *known;
      state_->pidfd = std::move(*running);
      return state_->watch_process();
    }
  }
  auto started = state_->spawn_pasta();
  if (!started) state_->restart_later();
  return started;
}

void stop_uplink(const base::ProcessIdentity& identity) {
  const auto running = base::open_process(identity);
  if (!running) return;
  static_cast<void>(base::signal_process(running->get(), SIGKILL));
  static_cast<void>(
      base::await_process(running->get(), identity.pid, base::Deadline::in_ms(end_timeout_ms)));
}

}  // namespace network
