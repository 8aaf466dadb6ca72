#include "runtime/zygote/zygote.h"

#include <csignal>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "runtime/agent/client.h"
#include "runtime/disk/scratch_disk.h"
#include "runtime/process_config.h"
#include "runtime/template/idle_tap.h"
#include "runtime/template/orders.h"

namespace runtime {
namespace {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;
using base::UniqueFd;

constexpr uint64_t no_epoch = 0;  ///< Below that of every daemon: any may take a child over.
/// The first time translates, the second joins the pieces.
constexpr int rehearsals = 3;
constexpr size_t console_bytes_shown = 600;

Result<> read_until(AgentStream& stream, std::string_view wanted, const Deadline& deadline) {
  std::string text;
  while (wanted.empty() || text.find(wanted) == std::string::npos) {
    const std::string bytes = TRY(stream.read(deadline));
    if (bytes.empty()) return {};
    text += bytes;
  }
  return {};
}

/// What the guest has said last, on one line.
std::string last_words(int console) {
  std::string words;
  char piece[4096];
  if (!base::set_nonblocking(console, true)) return words;
  for (;;) {
    const size_t count = base::read_some(console, piece).value_or(0);
    if (count == 0) break;
    words.append(piece, count);
    if (words.size() > console_bytes_shown) words.erase(0, words.size() - console_bytes_shown);
  }
  return base::escape_controls(words);
}

/// As the daemon does with every container.
Result<> rehearse_once(AgentClient& agent, uint32_t nics, const Deadline& deadline) {
  TRY(agent.await_connected(deadline));
  guest::ContainerConfig config = rehearsed_container(nics);
  config.wall_ns = base::wall_time_ns();
  config.entropy_hex = base::random_hex(32);
  TRY(agent.call("POST", "/v1/container", base::dump_json(guest::to_json(config)), deadline));
  const auto output = TRY(agent.open("GET", "/v1/processes/main/output?offset=0", false, deadline));
  const auto events = TRY(agent.open("GET", "/v1/events?after=0", false, deadline));
  TRY(read_until(*output, "", deadline));
  TRY(read_until(*events, "exited", deadline));
  events->cancel();
  TRY(agent.call("POST", "/v1/rehearsal", "{}", deadline));
  return {};
}

}  // namespace

guest::ContainerConfig rehearsed_container(uint32_t nics) {
  reconciler::StartRequest request;
  request.setup.id = "rehearsal";
  request.hosts = "127.0.0.1 localhost\n::1 localhost\n192.168.64.2 rehearsal\n";
  request.resolv_conf = "nameserver 192.168.64.1\n";
  request.setup.service.command =
      std::vector<std::string>{"/proc/self/exe", std::string(guest::rehearsal_word)};
  for (uint32_t i = 0; i < nics; ++i) {
    reconciler::NetworkLease lease;
    lease.mac = fmt::format("02:00:00:00:01:{:02x}", i);
    lease.address = fmt::format("192.168.{}.2/24", 64 + i);
    if (i == 0) lease.gateway = "192.168.64.1";
    request.leases.push_back(std::move(lease));
  }
  guest::ContainerConfig config = container_config(request).value_or(guest::ContainerConfig{});
  config.layers = {1};  // The kernel's modules: a layer like any other.
  config.rehearsal = true;
  return config;
}

Result<std::shared_ptr<Zygote>> Zygote::make(IoLoop& loop, const ZygoteOrder& order,
                                             const std::atomic<bool>& cancelled) {
  const std::string disk = order.run_folder + "/disk.img";
  TRY(clone_disk(order.empty_disk, disk));
  const UniqueFd scratch = TRY(base::open_file(disk, O_RDWR));
  ::unlink(disk.c_str());
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return base::fail_errno(errno, "socketpair");
  std::shared_ptr<Zygote> zygote(new Zygote);
  zygote->orders_.reset(ends[0]);
  const UniqueFd theirs(ends[1]);
  qemu::MachineRequest request;
  request.shape = order.shape;
  request.uuid = order.uuid;
  request.guest = order.guest;
  request.sockets.folder = order.run_folder;
  request.launcher = order.launcher;
  request.system = order.system;
  request.scratch = scratch.get();
  request.memory = qemu::Memory::Zygote;
  request.memory_fd = order.origin->memory.get();
  request.memory_file = order.origin->memory_path;
  request.seed = order.seed;
  request.orders = theirs.get();
  std::vector<UniqueFd> taps;
  for (uint32_t i = 0; i < order.shape.nics; ++i) {
    taps.push_back(TRY(make_idle_tap()));
    request.taps.push_back(taps.back().get());
  }
  zygote->machine_ = TRY(qemu::start_machine(request));
  if (const Result<> rehearsed = zygote->rehearse(loop, order, cancelled); !rehearsed)
    return fail(rehearsed.error().code(), "{}; its console: {}", rehearsed.error().to_string(),
                last_words(zygote->machine_.console.get()));
  return zygote;
}

Result<> Zygote::rehearse(IoLoop& loop, const ZygoteOrder& order,
                          const std::atomic<bool>& cancelled) {
  const qemu::Sockets sockets{order.run_folder};
  const UniqueFd state = TRY(base::open_file(order.origin->state_path, O_RDONLY));
  const UniqueFd monitor = TRY(order_resume(sockets.monitor(), state.get()));
  for (int i = 0; i < rehearsals; ++i) {
    if (cancelled) return fail(ErrorCode::Cancelled, "the daemon is stopping");
    const auto agent =
        TRY(AgentClient::create(loop, {.socket_path = sockets.agent(), .epoch = no_epoch}));
    const Result<> done =
        rehearse_once(*agent, order.shape.nics, Deadline::in_ms(base::limits::vm_clone_timeout_ms));
    agent->close("the rehearsal is over");
    TRY(done);
  }
  return stop_guest(monitor.get(), Deadline::in_ms(base::limits::vm_answer_timeout_ms));
}

Zygote::~Zygote() {
  if (!machine_.pidfd) return;
  (void)base::signal_process(machine_.pidfd.get(), SIGKILL);
  (void)base::await_process(machine_.pidfd.get(), machine_.process.pid,
                            Deadline::in_ms(base::limits::vm_exit_timeout_ms));
}

Result<base::ProcessIdentity> Zygote::spawn(const SeedRequest& request) {
  Ordered ordered;
  {
    const std::lock_guard lock(mutex_);
    ordered = TRY(order_machine(orders_.get(), request));
  }
  return let_go(std::move(ordered));
}

}  // namespace runtime
