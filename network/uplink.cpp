#include "network/uplink.h"

#include <algorithm>
#include <cstdlib>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <spdlog/spdlog.h>

#include "base/file.h"
#include "base/host.h"
#include "base/text.h"
#include "base/uv.h"
#include "network/inside.h"
#include "network/message.h"
#include "network/names.h"

namespace network {
namespace {

using base::ErrorCode;
using base::fail;

constexpr int start_timeout_ms = 5'000;
constexpr int end_timeout_ms = 2'000;
constexpr int user_descriptor = 3;  // of pasta
constexpr int net_descriptor = 4;
constexpr int tap_descriptor = 3;  // of container-slirp
constexpr int ready_descriptor = 4;

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

std::vector<std::string> slirp_arguments(const std::string& programs) {
  std::vector<std::string> arguments = {programs + "/container-launch", "--read", programs};
  if (::geteuid() == 0 && base::ids_are_mapped(uplink_uid, 1)) {
    arguments.emplace_back("--uid");
    arguments.push_back(std::to_string(uplink_uid));
  }
  arguments.emplace_back("--");
  arguments.push_back(programs + "/container-slirp");
  return arguments;
}

}  // namespace

struct Uplink::State {
  uv_loop_t* loop = nullptr;
  const Keeper* keeper = nullptr;
  UplinkOptions options;
  Changed changed;
  UplinkState running;
  base::UniqueFd pidfd;
  base::UvHandle<uv_poll_t> watch;
  base::UvHandle<uv_timer_t> timer;
  uint64_t pause_ms = 0;

  base::Result<> start_best();
  base::Result<> start_one(WayOut kind, const base::Deadline& deadline);
  base::Result<> route(const base::Deadline& deadline);
  base::Result<> spawn(base::SpawnOptions process);
  base::Result<> spawn_pasta();
  base::Result<> spawn_slirp(const base::Deadline& deadline);
  std::string last_words() const;
  base::Result<> watch_process();
  void restart_later();
};

namespace {

void on_end(uv_poll_t* poll, int, int) {
  auto* state = static_cast<Uplink::State*>(poll->data);
  if (!state) return;
  ::waitpid(static_cast<pid_t>(state->running.process.pid), nullptr, WNOHANG);
  state->watch.reset();
  state->changed(std::nullopt);
  spdlog::warn("the way out ({}, process {}) ended; starting it again",
               name_of(state->running.kind), state->running.process.pid);
  state->restart_later();
}

void on_restart(uv_timer_t* timer) {
  auto* state = static_cast<Uplink::State*>(timer->data);
  if (!state) return;
  if (const auto started = state->start_best(); !started) {
    spdlog::warn("no way out yet: {}", started.error().to_string());
    state->restart_later();
  }
}

}  // namespace

/// libslirp, else pasta; or the one that is forced. Not the other way round: the pasta of Debian 12
/// sends data twice to a guest that has closed its sending side, and then never its end.
base::Result<> Uplink::State::start_best() {
  std::string reason;
  for (const WayOut kind : {WayOut::Libslirp, WayOut::Pasta}) {
    if (options.forced && *options.forced != kind) continue;
    running = {.kind = kind, .reason = reason};
    if (options.forced) running.reason = "CONTAINER_WAY_OUT asks for it";
    const auto started = start_one(kind, base::Deadline::in_ms(start_timeout_ms));
    if (started) {
      spdlog::info("the way out is {}{}{}", name_of(kind), running.reason.empty() ? "" : ": ",
                   running.reason);
      pause_ms = 0;
      return watch_process();
    }
    reason += (reason.empty() ? "" : "; ") + started.error().to_string();
  }
  return fail(ErrorCode::Io, "{}", reason);
}

base::Result<> Uplink::State::start_one(WayOut kind, const base::Deadline& deadline) {
  running.process = {};
  auto started = kind == WayOut::Pasta ? spawn_pasta() : spawn_slirp(deadline);
  if (started) started = route(deadline);
  if (started || running.process.pid == 0) return started;
  stop_uplink(running.process);
  changed(std::nullopt);
  const std::string said = last_words();
  return fail(ErrorCode::Io, "{}{}{}", started.error().to_string(),
              said.empty() ? "" : "; it said: ", said);
}

base::Result<> Uplink::State::route(const base::Deadline& deadline) {
  TRY(run_inside(
      *keeper, fmt::format("start {}", name_of(running.kind)),
      [&]() -> base::Result<InsideResult> {
        TRY(route_through_uplink(pidfd.get(), deadline));
        return InsideResult{};
      },
      deadline));
  return {};
}

base::Result<> Uplink::State::spawn(base::SpawnOptions process) {
  // Nothing else tells whom it belongs to, once we are gone.
  if (const char* system = std::getenv("CONTAINER_APP_ROOT"))
    process.environment.push_back(std::string("CONTAINER_APP_ROOT=") + system);
  base::UniqueFd log;
  if (!options.log_file.empty()) {
    log = TRY(base::open_file(options.log_file, O_WRONLY | O_CREAT | O_TRUNC));
    process.descriptors.emplace_back(log.get(), 1);
    process.descriptors.emplace_back(log.get(), 2);
  }
  running.process = TRY(base::spawn(process));
  // Noted before it is of use: whoever comes after us must find it, or the name stays taken.
  changed(running);
  pidfd = TRY(base::open_process(running.process));
  return {};
}

base::Result<> Uplink::State::spawn_pasta() {
  base::SpawnOptions process{
      .arguments = pasta_arguments(TRY(find_pasta()), bool(keeper->user_namespace)),
      .descriptors = {{keeper->net_namespace.get(), net_descriptor}}};
  if (keeper->user_namespace)
    process.descriptors.emplace_back(keeper->user_namespace.get(), user_descriptor);
  return spawn(std::move(process));
}

base::Result<> Uplink::State::spawn_slirp(const base::Deadline& deadline) {
  InsideResult made = TRY(run_inside(
      *keeper, "make the way out's TAP",
      []() -> base::Result<InsideResult> {
        InsideResult result;
        result.descriptors.push_back(TRY(make_uplink_tap()));
        return result;
      },
      deadline));
  if (made.descriptors.size() != 1) return fail(ErrorCode::Internal, "the TAP got lost");
  base::Pipe ready = TRY(base::make_pipe());
  TRY(spawn({.arguments = slirp_arguments(options.programs),
             .descriptors = {{made.descriptors.front().get(), tap_descriptor},
                             {ready.writer.get(), ready_descriptor}}}));
  ready.writer.reset();
  const std::string said =
      TRY_DURING(receive_line(ready.reader.get(), deadline), "start container-slirp");
  TRY_DURING(decode_reply(said), "container-slirp");
  return {};
}

std::string Uplink::State::last_words() const {
  if (options.log_file.empty()) return "";
  std::string said = base::read_file(options.log_file, 65536).value_or("");
  while (!said.empty() && said.back() == '\n') said.pop_back();
  return base::escape_controls(said.substr(said.size() - std::min<size_t>(said.size(), 300)));
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

base::Result<> Uplink::start(const std::optional<UplinkState>& known) {
  state_->timer = TRY(base::make_handle<uv_timer_t>(
      [&](uv_timer_t* handle) { return uv_timer_init(state_->loop, handle); }));
  state_->timer->data = state_.get();
  if (known) {
    if (auto process = base::open_process(known->process)) {
      state_->running = *known;
      state_->pidfd = std::move(*process);
      // It may have been started by somebody who was killed before it was of use.
      if (state_->route(base::Deadline::in_ms(start_timeout_ms))) return state_->watch_process();
      stop_uplink(known->process);
      state_->changed(std::nullopt);
    }
  }
  auto started = state_->start_best();
  if (!started) state_->restart_later();
  return started;
}

base::Result<std::string> find_pasta() {
  const char* path = std::getenv("PATH");
  for (const std::string& folder : base::split(path ? path : "/usr/bin:/bin", ':'))
    if (!folder.empty() && ::access((folder + "/pasta").c_str(), X_OK) == 0)
      return folder + "/pasta";
  return fail(ErrorCode::Unsupported, "pasta is not installed; the package `passt` has it");
}

void stop_uplink(const base::ProcessIdentity& identity) {
  const auto running = base::open_process(identity);
  if (!running) return;
  static_cast<void>(base::signal_process(running->get(), SIGKILL));
  static_cast<void>(
      base::await_process(running->get(), identity.pid, base::Deadline::in_ms(end_timeout_ms)));
}

}  // namespace network
