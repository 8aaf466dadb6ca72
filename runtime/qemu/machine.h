#pragma once
/// Starts one QEMU, confined, with everything it may touch given as descriptors.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/process.h"
#include "base/result.h"
#include "runtime/qemu/config.h"

namespace runtime {
class Zygote;
class Seed;
}  // namespace runtime

namespace runtime::qemu {

/// What every guest boots from.
struct GuestFiles {
  std::string folder;  ///< Holds the three below.
  std::string kernel() const { return folder + "/vmlinux"; }
  std::string initramfs() const { return folder + "/initramfs.img"; }
  std::string modules() const { return folder + "/modules.erofs"; }
};

/// Names inside a VM's run folder.
struct Sockets {
  std::string folder;
  std::string monitor() const { return folder + "/qmp.sock"; }
  std::string agent() const { return folder + "/agent.sock"; }
  std::string files() const { return folder + "/files.sock"; }
};

struct MachineRequest {
  Shape shape;
  std::string uuid;
  GuestFiles guest;
  Sockets sockets;                  ///< The folder must exist.
  std::string launcher;             ///< Path of `container-launch`.
  std::string system;               ///< The app root: tells people whose machine this is.
  std::optional<uint32_t> uid;      ///< QEMU becomes this user; absent: stays ours.
  std::vector<std::string> layers;  ///< EROFS files, lowest first.
  std::string program;  ///< A file of the host to be the partition after them; empty: none.
  int scratch = -1;     ///< Open read-write; not taken over.
  Memory memory = Memory::Fresh;
  int memory_fd = -1;        ///< Of a template or a clone; not taken over.
  std::string memory_file;   ///< Its path.
  std::vector<int> taps;     ///< One for each NIC; not taken over.
  Seed* seed = nullptr;      ///< What a clone is forked from, if it can; else it is started anew.
  Zygote* zygote = nullptr;  ///< What a clone is forked from, and nothing else.
  int orders = -1;           ///< Of a zygote; not taken over.
};

struct Machine {
  base::ProcessIdentity process;
  base::UniqueFd pidfd;
  base::UniqueFd console;  ///< Reads what the guest's console and QEMU itself print.
  base::UniqueFd orders;   ///< Of a clone, see template/orders.h.
  int64_t began_ns = 0;    ///< CLOCK_BOOTTIME when the process was there; 0: long ago.
};

base::Result<Machine> start_machine(const MachineRequest& request);

/// The console of a QEMU that somebody else started: it holds the reading end as well.
base::Result<base::UniqueFd> open_console(int64_t pid);

/// First of the users that QEMUs run as, one each; none if we may not become them.
std::optional<uint32_t> first_machine_uid();
inline constexpr uint32_t machine_uids = 65'536;

}  // namespace runtime::qemu
