#include "runtime/qemu/config.h"

#include <time.h>
#include <x86intrin.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "guest/protocol/protocol.h"

namespace runtime::qemu {
namespace {

using nlohmann::json;

constexpr uint64_t mebibyte = 1u << 20;
constexpr uint64_t kernel_overhead_bytes = 64 * mebibyte;
/// Translated code kept per VM, in MiB: bounds the resident size under emulation.
constexpr int translation_cache_mib = 64;
constexpr uint64_t kernel_ticks_per_second = 250;
/// QEMU's emulator copies one byte a turn for `rep movsb` and `rep stosb`. A guest that is not told
/// of fast ones copies words: files are read four times, pipes three times, fresh pages twice as
/// fast.
constexpr const char* emulated_processor = "max,erms=off,fsrm=off";

std::string fdset(int number) { return fmt::format("/dev/fdset/{}", number); }

class Arguments {
 public:
  void add(std::string option, std::string value) {
    list_.push_back(std::move(option));
    list_.push_back(std::move(value));
  }
  void add_json(std::string option, const json& value) {
    add(std::move(option), base::dump_json(value));
  }
  void flag(std::string option) { list_.push_back(std::move(option)); }
  void descriptor(int number) { add("-add-fd", fmt::format("fd={0},set={0}", number)); }
  std::vector<std::string> take() { return std::move(list_); }

 private:
  std::vector<std::string> list_;
};

void add_memory(Arguments& to, const Plan& plan) {
  json memory{{"id", "ram"},
              {"size", plan.shape.memory_bytes / mebibyte * mebibyte},
              {"share", !is_cloned(plan.memory)}};
  if (plan.memory == Memory::Fresh) {
    memory["qom-type"] = "memory-backend-memfd";
  } else {
    memory["qom-type"] = "memory-backend-file";
    memory["mem-path"] = memory_path;
  }
  to.add_json("-object", memory);
}

/// A clone has its kernel in its memory already.
void add_kernel(Arguments& to, const Plan& plan) {
  if (is_cloned(plan.memory)) {
    to.add("-incoming", std::string("defer"));
    return;
  }
  to.add("-kernel", fmt::format("/proc/self/fd/{}", Descriptor::kernel));
  to.add("-initrd", fmt::format("/proc/self/fd/{}", Descriptor::initramfs));
  to.add("-append", kernel_command_line(plan.shape, plan.clock));
}

void add_machine(Arguments& to, const Plan& plan) {
  const Shape& shape = plan.shape;
  to.add("-machine",
         "microvm,acpi=off,pit=off,pic=off,rtc=on,isa-serial=on,x-option-roms=off,"
         "auto-kernel-cmdline=on,mem-merge=off,dump-guest-core=off,memory-backend=ram");
  const bool kvm = shape.accelerator == Accelerator::Kvm;
  to.add("-accel", kvm ? std::string("kvm") : fmt::format("tcg,tb-size={}", translation_cache_mib));
  to.add("-cpu", kvm ? "host" : emulated_processor);
  to.add("-smp", fmt::format("{}", shape.cpus));
  to.add("-m", fmt::format("{}", shape.memory_bytes / mebibyte));
  add_memory(to, plan);
  add_kernel(to, plan);
}

void add_channels(Arguments& to) {
  to.add("-chardev", fmt::format("socket,id=qmp,fd={},server=on,wait=off", Descriptor::qmp));
  to.add("-mon", "chardev=qmp,mode=control");
  to.descriptor(Descriptor::console);
  to.add("-chardev", fmt::format("file,id=console,append=on,path={}", fdset(Descriptor::console)));
  to.add("-serial", "chardev:console");
  to.add_json("-device",
              json{{"driver", "virtio-serial-device"}, {"id", "ports"}, {"max_ports", 4}});
  to.add("-chardev", fmt::format("socket,id=agent,fd={},server=on,wait=off", Descriptor::agent));
  to.add_json("-device", json{{"driver", "virtserialport"},
                              {"bus", "ports.0"},
                              {"nr", 1},
                              {"chardev", "agent"},
                              {"name", "container.agent"}});
  to.add("-chardev", fmt::format("socket,id=files,fd={},server=on,wait=off", Descriptor::files));
  to.add_json("-device", json{{"driver", "virtserialport"},
                              {"bus", "ports.0"},
                              {"nr", 2},
                              {"chardev", "files"},
                              {"name", "container.files"}});
  // No source of randomness: the agent is given some before it does anything personal. What the
  // guest frees goes back to the host.
  to.add_json("-device", json{{"driver", "virtio-balloon-device"}, {"free-page-reporting", true}});
}

/// QEMU does not save a machine with a joined disk; a template's has nothing to join yet.
void add_image(Arguments& to, const Plan& plan) {
  const bool joined = plan.memory == Memory::Fresh || plan.memory == Memory::Clone;
  to.descriptor(Descriptor::table);
  if (joined) to.descriptor(Descriptor::image);
  for (size_t i = 0; joined && i < plan.layer_files; ++i)
    to.descriptor(Descriptor::layer_first + static_cast<int>(i));
  to.add_json("-blockdev", json{{"driver", "file"},
                                {"node-name", "image-file"},
                                {"filename", fdset(joined ? Descriptor::image : Descriptor::table)},
                                {"read-only", true}});
  to.add_json("-blockdev", json{{"driver", joined ? "vmdk" : "raw"},
                                {"node-name", "image"},
                                {"file", "image-file"},
                                {"read-only", true}});
  to.add_json("-device",
              json{{"driver", "virtio-blk-device"}, {"drive", "image"}, {"serial", "image"}});
}

void add_scratch(Arguments& to) {
  to.descriptor(Descriptor::scratch);
  to.add_json("-blockdev", json{{"driver", "file"},
                                {"node-name", "scratch-file"},
                                {"filename", fdset(Descriptor::scratch)},
                                {"discard", "unmap"}});
  to.add_json("-blockdev", json{{"driver", "raw"},
                                {"node-name", "scratch"},
                                {"file", "scratch-file"},
                                {"discard", "unmap"},
                                {"detect-zeroes", "off"}});
  to.add_json("-device",
              json{{"driver", "virtio-blk-device"}, {"drive", "scratch"}, {"serial", "scratch"}});
}

void add_nics(Arguments& to, const Plan& plan) {
  for (uint32_t i = 0; i < plan.shape.nics; ++i) {
    const std::string id = fmt::format("net{}", i);
    to.add_json("-netdev",
                json{{"type", "tap"},
                     {"id", id},
                     {"fd", fmt::format("{}", Descriptor::nic_first + static_cast<int>(i))},
                     {"vhost", false}});
    // The agent sets the lease's address; this one only has to be the same for all of a shape.
    to.add_json(
        "-device",
        json{{"driver", "virtio-net-device"}, {"netdev", id}, {"mac", guest::unconfigured_mac(i)}});
  }
}

}  // namespace

std::string kernel_command_line(const Shape& shape, const Clock& clock) {
  std::string line = "console=ttyS0 quiet loglevel=4 reboot=t panic=-1";
  // The emulated local timer ticks once a nanosecond.
  if (shape.accelerator == Accelerator::Tcg)
    line += fmt::format(
        " tsc_early_khz={} tsc=reliable lpj={} lapic_timer_hz=1000000000 no_timer_check",
        clock.tsc_khz, clock.tsc_khz * 1000 / kernel_ticks_per_second);
  return line;
}

std::vector<std::string> arguments(const Plan& plan) {
  Arguments to;
  to.flag(plan.program);
  to.flag("-nodefaults");
  to.flag("-no-user-config");
  to.add("-display", std::string("none"));
  to.flag("-no-reboot");
  to.add("-uuid", plan.uuid);
  to.add("-sandbox",
         std::string("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"));
  add_machine(to, plan);
  add_channels(to);
  add_image(to, plan);
  add_scratch(to);
  add_nics(to, plan);
  return to.take();
}

uint64_t machine_memory_bytes(uint64_t container_bytes) {
  // A page's descriptor takes 1/64 of it; the rest is kernel text, slabs, agent and page cache.
  const uint64_t bytes = container_bytes + container_bytes / 64 + kernel_overhead_bytes;
  return (bytes + 2 * mebibyte - 1) / (2 * mebibyte) * (2 * mebibyte);
}

uint64_t measured_tsc_khz() {
  static const uint64_t khz = [] {
    const auto raw_ns = [] {
      timespec now{};
      ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
      return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
    };
    // A ruler needs a length: 20 ms give the rate to some ten parts in a million.
    constexpr int64_t span_ns = 20'000'000;
    const int64_t begin_ns = raw_ns();
    const uint64_t begin = __rdtsc();
    const timespec span{.tv_sec = 0, .tv_nsec = span_ns};
    ::clock_nanosleep(CLOCK_MONOTONIC, 0, &span, nullptr);
    const int64_t end_ns = raw_ns();
    const uint64_t end = __rdtsc();
    return (end - begin) * 1'000'000 / static_cast<uint64_t>(end_ns - begin_ns);
  }();
  return khz;
}

}  // namespace runtime::qemu
