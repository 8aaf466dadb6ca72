#include "runtime/qemu/probe.h"

#include <csignal>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "runtime/agent/client.h"

namespace runtime::qemu {
namespace {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;

constexpr uint64_t probe_memory_bytes = 128u << 20;
constexpr uint64_t probe_scratch_bytes = 1u << 20;

Result<std::string> boot_id() { return base::read_file("/proc/sys/kernel/random/boot_id", 1024); }

Result<Verdict> cached(const ProbeRequest& request) {
  const auto json = TRY(base::parse_json(TRY(base::read_file(request.cache, 1u << 16))));
  if (TRY(base::json_string(json, "boot_id")) != TRY(boot_id()) ||
      TRY(base::json_string(json, "guest")) != request.guest.folder)
    return fail(ErrorCode::NotFound, "the verdict is of another boot");
  const bool kvm = TRY(base::json_string(json, "accelerator")) == "kvm";
  std::string reason = TRY(base::json_string(json, "reason"));
  return Verdict{.accelerator = kvm ? Accelerator::Kvm : Accelerator::Tcg,
                 .reason = std::move(reason)};
}

Result<> keep(const ProbeRequest& request, const Verdict& verdict) {
  const std::string boot = TRY(boot_id());
  return base::write_file_atomically(
      request.cache,
      base::dump_json({{"boot_id", boot},
                       {"guest", request.guest.folder},
                       {"accelerator", verdict.accelerator == Accelerator::Kvm ? "kvm" : "tcg"},
                       {"reason", verdict.reason}}));
}

/// Boots our own guest as far as its agent.
Result<> boot_once(IoLoop& loop, const ProbeRequest& request) {
  const base::UniqueFd device = TRY(base::open_file("/dev/kvm", O_RDWR));
  base::UniqueFd scratch(::memfd_create("container-probe", MFD_CLOEXEC));
  if (!scratch || ::ftruncate(scratch.get(), probe_scratch_bytes) != 0)
    return base::fail_errno(errno, "memfd");
  MachineRequest machine;
  machine.shape = {.accelerator = Accelerator::Kvm, .memory_bytes = probe_memory_bytes};
  machine.uuid = base::random_uuid();
  machine.guest = request.guest;
  machine.sockets.folder = request.run_folder;
  machine.launcher = request.launcher;
  machine.scratch = scratch.get();
  const Machine started = TRY(start_machine(machine));
  const auto agent =
      TRY(AgentClient::create(loop, {.socket_path = machine.sockets.agent(), .epoch = 1}));
  const Deadline deadline = Deadline::in_ms(base::limits::vm_probe_timeout_ms);
  const Result<> answered = agent->await_connected(deadline);
  agent->close("the probe is over");
  TRY(base::signal_process(started.pidfd.get(), SIGKILL));
  (void)base::await_process(started.pidfd.get(), started.process.pid,
                            Deadline::in_ms(base::limits::vm_exit_timeout_ms));
  return answered;
}

}  // namespace

Verdict probe_accelerator(IoLoop& loop, const ProbeRequest& request) {
  if (Result<Verdict> known = cached(request)) return *known;
  Verdict verdict;
  const Result<> booted = [&]() -> Result<> {
    TRY(base::make_directories(request.run_folder));
    return boot_once(loop, request);
  }();
  (void)base::remove_tree(request.run_folder);
  if (booted)
    verdict = {.accelerator = Accelerator::Kvm, .reason = "a guest boots under KVM"};
  else
    verdict = {.accelerator = Accelerator::Tcg,
               .reason = fmt::format("no guest boots under KVM ({}): programs run emulated, "
                                     "several times slower",
                                     booted.error().to_string())};
  (void)keep(request, verdict);  // asked again next time
  return verdict;
}

}  // namespace runtime::qemu
