#include "runtime/zygote/zygote.h"

#include <array>
#include <csignal>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/text.h"
#include "runtime/agent/client.h"
#include "runtime/disk/scratch_disk.h"
#include "runtime/log/last_words.h"
#include "runtime/template/idle_tap.h"
#include "runtime/template/orders.h"
#include "runtime/zygote/rehearsal.h"

namespace runtime {
namespace {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;
using base::UniqueFd;

constexpr uint64_t no_epoch = 0;  ///< Below that of every daemon: any may take a child over.
/// The first time translates, the second joins the pieces.
constexpr std::array rehearsals = {rehearse_container, rehearse_container, rehearse_container,
                                   rehearse_build, rehearse_build};

/// What the guest has said last.
std::string end_of(int console) {
  std::string text;
  char piece[4096];
  if (!base::set_nonblocking(console, true)) return text;
  for (;;) {
    const size_t count = base::read_some(console, piece).value_or(0);
    if (count == 0) return text;
    text.append(piece, count);
    if (text.size() > console_end_bytes) text.erase(0, text.size() - console_end_bytes);
  }
}

}  // namespace

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
                last_words(end_of(zygote->machine_.console.get())));
  return zygote;
}

Result<> Zygote::rehearse(IoLoop& loop, const ZygoteOrder& order,
                          const std::atomic<bool>& cancelled) {
  const qemu::Sockets sockets{order.run_folder};
  const UniqueFd state = TRY(base::open_file(order.origin->state_path, O_RDONLY));
  const UniqueFd monitor = TRY(order_resume(sockets.monitor(), state.get()));
  for (const auto& rehearse : rehearsals) {
    if (cancelled) return fail(ErrorCode::Cancelled, "the daemon is stopping");
    const auto agent =
        TRY(AgentClient::create(loop, {.socket_path = sockets.agent(), .epoch = no_epoch}));
    const Result<> done =
        rehearse(*agent, order.shape.nics, Deadline::in_ms(base::limits::vm_clone_timeout_ms));
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
