#include "runtime/qemu/machine.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/deadline.h"
#include "base/file.h"
#include "base/host.h"
#include "base/log.h"
#include "runtime/disk/image_disk.h"
#include "runtime/seed/seed.h"

namespace runtime::qemu {
namespace {

using base::Result;
using base::UniqueFd;

/// Above what distributions hand out to people, services and subordinate ranges.
constexpr uint32_t uid_first = 1'879'048'192;

/// What QEMU is given; `own` closes our copies once it has been started.
class Descriptors {
 public:
  void give(int ours, int theirs) { given_.emplace_back(ours, theirs); }
  void give(UniqueFd ours, int theirs) {
    give(ours.get(), theirs);
    own_.push_back(std::move(ours));
  }
  const std::vector<std::pair<int, int>>& given() const { return given_; }

 private:
  std::vector<std::pair<int, int>> given_;
  std::vector<UniqueFd> own_;
};

/// Built and installed beside the launcher; see template/read_only_memory.cpp.
std::string memory_library(const std::string& launcher) {
  return launcher.substr(0, launcher.rfind('/') + 1) + "container-memory.so";
}

/// How many files the image disk was joined from.
Result<size_t> give_image(const MachineRequest& request, Descriptors& to) {
  std::vector<std::string> files;
  if (request.memory != Memory::Template) {
    files.push_back(request.guest.modules());
    files.insert(files.end(), request.layers.begin(), request.layers.end());
  }
  const bool joined = request.memory != Memory::Template;
  ImageDisk disk = TRY(open_image_disk(files, joined ? request.program : std::string()));
  std::vector<int> sets;
  for (size_t i = 0; i < disk.files.size(); ++i) {
    sets.push_back(Descriptor::layer_first + static_cast<int>(i));
    to.give(std::move(disk.files[i]), sets.back());
  }
  if (request.memory != Memory::Template)
    to.give(TRY(read_only_memory_file("container-image",
                                      vmdk_descriptor(disk.partitions, Descriptor::table, sets))),
            Descriptor::image);
  to.give(std::move(disk.table), Descriptor::table);
  return disk.files.size();
}

Result<> give_start(const MachineRequest& request, Descriptors& to) {
  to.give(request.scratch, Descriptor::scratch);
  if (request.memory != Memory::Fresh) to.give(request.memory_fd, Descriptor::memory);
  if (request.memory == Memory::Clone) {
    to.give(TRY(base::open_file(memory_library(request.launcher), O_RDONLY)), Descriptor::library);
    return {};
  }
  to.give(TRY(base::open_file(request.guest.kernel(), O_RDONLY)), Descriptor::kernel);
  to.give(TRY(base::open_file(request.guest.initramfs(), O_RDONLY)), Descriptor::initramfs);
  return {};
}

Result<> give_channels(const MachineRequest& request, Descriptors& to) {
  to.give(TRY(base::listen_unix(request.sockets.monitor())), Descriptor::qmp);
  to.give(TRY(base::listen_unix(request.sockets.agent())), Descriptor::agent);
  to.give(TRY(base::listen_unix(request.sockets.files())), Descriptor::files);
  for (size_t i = 0; i < request.taps.size(); ++i)
    to.give(request.taps[i], Descriptor::nic_first + static_cast<int>(i));
  return {};
}

enum class Way { Exec, Fork };

std::vector<std::string> launch_words(const MachineRequest& request, size_t layer_files, Way way) {
  std::vector<std::string> arguments;
  const auto add = [&](const char* option, std::string value) {
    arguments.emplace_back(option);
    arguments.push_back(std::move(value));
  };
  if (request.memory != Memory::Clone) add("--read", request.guest.folder);
  if (request.memory == Memory::Template) add("--write", request.memory_file);
  if (request.memory == Memory::Clone) {
    add("--read", request.memory_file);
    add("--read", memory_library(request.launcher));
    // By its number: QEMU's user need not have a way to where we are installed.
    if (way == Way::Exec) add("--preload", fmt::format("/proc/self/fd/{}", Descriptor::library));
  }
  if (request.uid) add("--uid", fmt::format("{}", *request.uid));
  if (request.shape.accelerator == Accelerator::Kvm) {
    struct stat device {};
    add("--write", "/dev/kvm");
    if (request.uid && ::stat("/dev/kvm", &device) == 0)
      add("--group", fmt::format("{}", device.st_gid));
  }
  arguments.emplace_back("--");
  Plan plan;
  plan.uuid = request.uuid;
  plan.shape = request.shape;
  plan.clock.tsc_khz = measured_tsc_khz();
  plan.memory = request.memory;
  plan.layer_files = layer_files;
  const std::vector<std::string> machine = qemu::arguments(plan);
  arguments.insert(arguments.end(), machine.begin(), machine.end());
  return arguments;
}

Result<base::ProcessIdentity> start_process(const MachineRequest& request, size_t layer_files,
                                            const Descriptors& descriptors) {
  if (request.seed != nullptr && request.memory == Memory::Clone) {
    Result<base::ProcessIdentity> forked =
        request.seed->spawn(launch_words(request, layer_files, Way::Fork), descriptors.given());
    if (forked) return forked;
    spdlog::warn("{}; it is started anew", forked.error().to_string());
  }
  std::vector<std::string> arguments = launch_words(request, layer_files, Way::Exec);
  arguments.insert(arguments.begin(), request.launcher);
  return base::spawn({.arguments = std::move(arguments),
                      .environment = {"CONTAINER_APP_ROOT=" + request.system},
                      .descriptors = descriptors.given()});
}

}  // namespace

Result<Machine> start_machine(const MachineRequest& request) {
  Descriptors descriptors;
  const size_t layer_files = TRY(give_image(request, descriptors));
  TRY(give_start(request, descriptors));
  TRY(give_channels(request, descriptors));
  // Nobody may be reading, for as long as the daemon is away; then the oldest text stays in the
  // pipe and further text is dropped, and QEMU is not held up.
  base::Pipe console = TRY(base::make_pipe());
  TRY(base::set_nonblocking(console.writer.get(), true));
  descriptors.give(console.writer.get(), STDERR_FILENO);
  descriptors.give(console.writer.get(), Descriptor::console);
  descriptors.give(console.reader.get(), Descriptor::console_hold);
  Machine machine;
  machine.process = TRY(start_process(request, layer_files, descriptors));
  machine.began_ns = base::boottime_ns();
  machine.pidfd = TRY(base::open_process(machine.process));
  machine.console = std::move(console.reader);
  return machine;
}

Result<UniqueFd> open_console(int64_t pid) {
  return base::open_file(fmt::format("/proc/{}/fd/{}", pid, Descriptor::console_hold),
                         O_RDONLY | O_NONBLOCK);
}

std::optional<uint32_t> first_machine_uid() {
  if (::geteuid() != 0 || !base::ids_are_mapped(uid_first, machine_uids)) return std::nullopt;
  return uid_first;
}

}  // namespace runtime::qemu
