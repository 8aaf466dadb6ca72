#pragma once
/// The command line of QEMU for one VM. Pure.
///
/// It depends on the shape of the VM only: accelerator, processors, memory, number of NICs. What is
/// personal comes through descriptors with fixed numbers, or later through the agent, so that a VM
/// can be a clone of a template of its shape. No text of a user ever becomes part of it.

#include <cstdint>
#include <string>
#include <vector>

namespace runtime::qemu {

enum class Accelerator { Kvm, Tcg };

struct Shape {
  Accelerator accelerator = Accelerator::Tcg;
  uint32_t cpus = 1;
  uint64_t memory_bytes = 1ull << 30;  ///< Of the machine, the kernel's share included.
  uint32_t nics = 0;
  bool operator==(const Shape&) const = default;
};

/// Where a machine's memory comes from.
enum class Memory {
  Fresh,     ///< Empty: the kernel boots.
  Template,  ///< The same, but kept in a file for others to be cloned from.
  Clone,     ///< A private view of such a file; the devices' state is to come by the monitor.
  Zygote,    ///< As a clone, but itself to be forked; its image disk is joined outside of QEMU.
};

inline bool is_cloned(Memory memory) { return memory == Memory::Clone || memory == Memory::Zygote; }

/// Numbers of the descriptors QEMU is started with. 0 and 1 are /dev/null, 2 its error log.
struct Descriptor {
  static constexpr int qmp = 3;           ///< Listening socket.
  static constexpr int agent = 4;         ///< Listening socket.
  static constexpr int files = 5;         ///< Listening socket.
  static constexpr int console = 6;       ///< Pipe, writing end.
  static constexpr int console_hold = 7;  ///< Its reading end: output stays while nobody reads.
  static constexpr int image = 8;         ///< VMDK text.
  static constexpr int table = 9;         ///< Partition table of the image disk.
  static constexpr int scratch = 10;
  static constexpr int kernel = 11;
  static constexpr int initramfs = 12;
  static constexpr int nic_first = 13;    ///< TAPs.
  static constexpr int memory = 17;       ///< Of a template or a clone.
  static constexpr int library = 18;      ///< Of a clone: template/read_only_memory.cpp.
  static constexpr int orders = 19;       ///< Of a zygote: socket, zygote/zygote.h.
  static constexpr int layer_first = 20;  ///< Modules, layers, program.
};

/// What QEMU knows `Descriptor::memory` by.
inline constexpr const char* memory_path = "/proc/self/fd/17";

/// What the guest must know of the host's clock under emulation; see `measured_tsc_khz`.
struct Clock {
  uint64_t tsc_khz = 0;
};

struct Plan {
  std::string program = "/usr/bin/qemu-system-x86_64";
  std::string uuid;  ///< Of this run: how a later daemon recognises it.
  Shape shape;
  Clock clock;
  Memory memory = Memory::Fresh;
  size_t layer_files = 0;  ///< Modules included; none in a template.
};

std::string kernel_command_line(const Shape& shape, const Clock& clock);
std::vector<std::string> arguments(const Plan& plan);

/// What a container asked for, with what the guest's kernel and agent need on top.
uint64_t machine_memory_bytes(uint64_t container_bytes);

/// The rate of this processor's time stamp counter, measured once against the raw clock. Under
/// emulation the guest's counter ticks at this rate, and a guest that must find it out by itself
/// does not always come up on a busy host.
uint64_t measured_tsc_khz();

}  // namespace runtime::qemu
