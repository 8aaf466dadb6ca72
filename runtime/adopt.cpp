#include "runtime/adopt.h"

#include <csignal>

#include "base/file.h"
#include "base/log.h"
#include "runtime/qemu/find.h"

namespace runtime {
namespace {

using base::ErrorCode;
using base::Result;

constexpr int32_t exit_code_vm_died = 255;

void undo_start(const qemu::VmState& state) {
  const auto process = qemu::find_by_uuid(state.uuid);
  if (!process) return;
  if (const auto pidfd = base::open_process(*process))
    (void)base::signal_process(pidfd->get(), SIGKILL);
}

/// Nobody saw the end; unless it was written down it counts as a death under the process.
void note_end(const Folders& folders, const qemu::VmState& state) {
  const auto stored = qemu::load_exit(folders.exit(state.id));
  if (stored && stored->generation == state.generation &&
      stored->started_wall_ns == state.started_wall_ns)
    return;
  reconciler::ExitStatus exit;
  exit.code = exit_code_vm_died;
  exit.vm_died = true;
  exit.finished_wall_ns = base::wall_time_ns();
  exit.reason = "its virtual machine ended while no daemon was there";
  if (base::path_exists(folders.container(state.id)))
    (void)qemu::save_exit(folders.exit(state.id), state.generation, state.started_wall_ns, exit);
}

}  // namespace

Result<Found> find_machine(const Folders& folders, const std::string& id) {
  const auto leave = [&](const base::Error& why) {
    (void)base::remove_tree(folders.vm(id));
    return tl::unexpected(why);
  };
  Result<qemu::VmState> state = qemu::load(folders.vm_state(id));
  if (!state) return leave(state.error());
  if (state->process.pid == 0 || state->started_wall_ns == 0) {
    undo_start(*state);
    return leave(base::Error(ErrorCode::NotFound, "its start was interrupted and is undone"));
  }
  Result<base::UniqueFd> pidfd = base::open_process(state->process);
  Result<base::UniqueFd> console = qemu::open_console(state->process.pid);
  if (!pidfd || !console || !qemu::has_uuid(state->process.pid, state->uuid)) {
    note_end(folders, *state);
    return leave(pidfd ? base::Error(ErrorCode::NotFound, "its process is another one now")
                       : pidfd.error());
  }
  Found found{.state = std::move(*state), .machine = {}};
  found.machine.process = found.state.process;
  found.machine.pidfd = std::move(*pidfd);
  found.machine.console = std::move(*console);
  return found;
}

}  // namespace runtime
