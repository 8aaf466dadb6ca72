#include "network/slirp/stack.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <list>
#include <vector>

#include <arpa/inet.h>
#include <poll.h>
#include <unistd.h>

#include <slirp/libslirp.h>

#include "base/deadline.h"
#include "network/names.h"
#include "network/slirp/frame.h"

namespace network::slirp {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;

constexpr size_t frame_bytes_max = uplink_mtu + 64;
/// Taken from the TAP before the sockets get their turn.
constexpr int frames_per_turn = 64;

in_addr network_order(dns::Ipv4 address) { return {.s_addr = ::htonl(address.value)}; }

struct Timer {
  SlirpTimerCb call = nullptr;
  void* opaque = nullptr;
  int64_t due_ms = -1;  ///< On the clock of libslirp; negative: not set.
};

short to_poll(int slirp_events) {
  int events = 0;
  if (slirp_events & SLIRP_POLL_IN) events |= POLLIN;
  if (slirp_events & SLIRP_POLL_OUT) events |= POLLOUT;
  if (slirp_events & SLIRP_POLL_PRI) events |= POLLPRI;
  return static_cast<short>(events);
}

int from_poll(short events) {
  int slirp_events = 0;
  if (events & POLLIN) slirp_events |= SLIRP_POLL_IN;
  if (events & POLLOUT) slirp_events |= SLIRP_POLL_OUT;
  if (events & POLLPRI) slirp_events |= SLIRP_POLL_PRI;
  if (events & POLLERR) slirp_events |= SLIRP_POLL_ERR;
  if (events & POLLHUP) slirp_events |= SLIRP_POLL_HUP;
  return slirp_events;
}

}  // namespace

struct Stack::State {
  base::UniqueFd tap;
  Slirp* slirp = nullptr;
  std::vector<pollfd> polled;  ///< The TAP first.
  std::list<Timer> timers;
  std::array<uint8_t, frame_bytes_max> frame{};

  /// False when the TAP is gone.
  base::Result<bool> take_frames();
  int wait_ms(uint32_t wanted_ms) const;
  void run_timers();
};

namespace {

int64_t now_ms() { return base::boottime_ns() / 1'000'000; }

ssize_t send_frame(const void* bytes, size_t count, void* opaque) {
  // A frame the namespace has no room for is lost, as on any wire; TCP sends it again.
  return ::write(static_cast<Stack::State*>(opaque)->tap.get(), bytes, count);
}
void ignore_guest_error(const char*, void*) {}  // Guests could write our log full.
int64_t clock_ns(void*) { return base::boottime_ns(); }
void* make_timer(SlirpTimerCb call, void* timer_opaque, void* opaque) {
  return &static_cast<Stack::State*>(opaque)->timers.emplace_back(
      Timer{.call = call, .opaque = timer_opaque});
}
void free_timer(void* timer, void* opaque) {
  static_cast<Stack::State*>(opaque)->timers.remove_if(
      [&](const Timer& each) { return &each == timer; });
}
void set_timer(void* timer, int64_t due_ms, void*) { static_cast<Timer*>(timer)->due_ms = due_ms; }
void no_registration(int, void*) {}  // Every turn asks anew what to wait for.
void no_notification(void*) {}

constexpr SlirpCb callbacks = {.send_packet = send_frame,
                               .guest_error = ignore_guest_error,
                               .clock_get_ns = clock_ns,
                               .timer_new = make_timer,
                               .timer_free = free_timer,
                               .timer_mod = set_timer,
                               .register_poll_fd = no_registration,
                               .unregister_poll_fd = no_registration,
                               .notify = no_notification,
                               .init_completed = nullptr,
                               .timer_new_opaque = nullptr};

SlirpConfig configuration() {
  SlirpConfig config{};
  config.version = SLIRP_CONFIG_VERSION_MAX;
  config.in_enabled = true;
  config.vnetwork = network_order({uplink_gateway.value & ~0xFFU});
  config.vnetmask = network_order({~uint32_t{0} << (32 - uplink_prefix)});
  config.vhost = network_order(uplink_gateway);
  // Never answers, but must be an address of the link other than the host's.
  config.vnameserver = network_order({uplink_gateway.value | 0xFE});
  config.vdhcp_start = network_order(uplink_address);
  config.if_mtu = uplink_mtu;
  config.if_mru = uplink_mtu;
  config.disable_host_loopback = true;
  config.disable_dns = true;
  config.disable_dhcp = true;
  return config;
}

int add_poll(int fd, int events, void* opaque) {
  auto* state = static_cast<Stack::State*>(opaque);
  state->polled.push_back({.fd = fd, .events = to_poll(events), .revents = 0});
  return static_cast<int>(state->polled.size()) - 1;
}

int polled_events(int index, void* opaque) {
  const auto* state = static_cast<Stack::State*>(opaque);
  return from_poll(state->polled[static_cast<size_t>(index)].revents);
}

}  // namespace

base::Result<bool> Stack::State::take_frames() {
  for (int taken = 0; taken < frames_per_turn; ++taken) {
    const ssize_t count = ::read(tap.get(), frame.data(), frame.size());
    if (count < 0 && errno == EAGAIN) return true;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EBADFD || errno == EIO)) return false;
    if (count < 0) return fail_errno(errno, "read from the TAP");
    if (count == 0) return false;
    const std::string_view bytes(reinterpret_cast<const char*>(frame.data()),
                                 static_cast<size_t>(count));
    if (may_leave(bytes)) slirp_input(slirp, frame.data(), static_cast<int>(count));
  }
  return true;
}

int Stack::State::wait_ms(uint32_t wanted_ms) const {
  int64_t wait = wanted_ms == UINT32_MAX ? -1 : static_cast<int64_t>(wanted_ms);
  for (const Timer& timer : timers) {
    if (timer.due_ms < 0) continue;
    const int64_t left = std::max<int64_t>(timer.due_ms - now_ms(), 0);
    wait = wait < 0 ? left : std::min(wait, left);
  }
  return static_cast<int>(std::min<int64_t>(wait, 1'000'000'000));
}

void Stack::State::run_timers() {
  for (Timer& timer : timers) {
    if (timer.due_ms < 0 || timer.due_ms > now_ms()) continue;
    timer.due_ms = -1;
    timer.call(timer.opaque);
  }
}

Stack::Stack(std::unique_ptr<State> state) : state_(std::move(state)) {}
Stack::~Stack() {
  if (state_->slirp) slirp_cleanup(state_->slirp);
}

base::Result<std::unique_ptr<Stack>> Stack::create(base::UniqueFd tap) {
  auto state = std::make_unique<State>();
  state->tap = std::move(tap);
  const SlirpConfig config = configuration();
  state->slirp = slirp_new(&config, &callbacks, state.get());
  if (!state->slirp) return fail(ErrorCode::Internal, "libslirp does not start");
  return std::unique_ptr<Stack>(new Stack(std::move(state)));
}

base::Result<> Stack::run() {
  State& state = *state_;
  for (;;) {
    state.polled.assign(1, {.fd = state.tap.get(), .events = POLLIN, .revents = 0});
    uint32_t wanted_ms = UINT32_MAX;
    slirp_pollfds_fill(state.slirp, &wanted_ms, add_poll, &state);
    const int ready = ::poll(state.polled.data(), state.polled.size(), state.wait_ms(wanted_ms));
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
    slirp_pollfds_poll(state.slirp, ready < 0 ? 1 : 0, polled_events, &state);
    state.run_timers();
    if (ready > 0 && state.polled.front().revents != 0 && !TRY(state.take_frames())) return {};
  }
}

}  // namespace network::slirp
