#include "runtime/adopt.h"

#include <csignal>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "runtime/qemu/events.h"
#include "runtime/qemu/find.h"

namespace runtime {
namespace {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;

constexpr int32_t exit_code_vm_died = 255;

void undo_start(const qemu::VmState& state) {
  const auto process = qemu::find_by_uuid(state.uuid);
  if (!process) return;
  if (const auto pidfd = base::open_process(*process))
    (void)base::signal_process(pidfd->get(), SIGKILL);
}

/// False only if another QEMU answers: a monitor that does not is no proof of anything.
bool is_the_same(IoLoop& loop, const std::string& socket, const std::string& uuid) {
  const Deadline deadline = Deadline::in_ms(base::limits::vm_answer_timeout_ms);
  const auto monitor = qemu::Monitor::connect(loop, socket, deadline);
  if (!monitor) return true;
  const auto answer = (*monitor)->execute("query-uuid", deadline);
  (*monitor)->close();
  if (!answer) return true;
  const auto json = base::parse_json(*answer);
  return !json || base::json_string_or(*json, "UUID", uuid) == uuid;
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

Result<Found> find_machine(IoLoop& loop, const Folders& folders, const std::string& id) {
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
  const qemu::Sockets sockets{folders.vm(id)};
  Result<base::UniqueFd> pidfd = base::open_process(state->process);
  Result<base::UniqueFd> console = qemu::open_console(state->process.pid);
  if (!pidfd || !console || !is_the_same(loop, sockets.monitor(), state->uuid)) {
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
