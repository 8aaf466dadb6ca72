#include "runtime/qemu/machine.h"

#include <cerrno>
#include <sstream>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "runtime/disk/image_disk.h"

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

Result<> give_files(const MachineRequest& request, Descriptors& to) {
  std::vector<std::string> files{request.guest.modules()};
  files.insert(files.end(), request.layers.begin(), request.layers.end());
  ImageDisk disk = TRY(open_image_disk(files));
  std::vector<int> sets;
  for (size_t i = 0; i < disk.files.size(); ++i) {
    sets.push_back(Descriptor::layer_first + static_cast<int>(i));
    to.give(std::move(disk.files[i]), sets.back());
  }
  to.give(TRY(read_only_memory_file("container-image",
                                    vmdk_descriptor(disk.partitions, Descriptor::table, sets))),
          Descriptor::image);
  to.give(std::move(disk.table), Descriptor::table);
  to.give(request.scratch, Descriptor::scratch);
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

std::vector<std::string> launch_arguments(const MachineRequest& request) {
  std::vector<std::string> arguments{request.launcher, "--read", request.guest.folder};
  if (request.uid) {
    arguments.insert(arguments.end(), {"--uid", fmt::format("{}", *request.uid)});
  }
  if (request.shape.accelerator == Accelerator::Kvm) {
    struct stat device {};
    arguments.insert(arguments.end(), {"--write", "/dev/kvm"});
    if (request.uid && ::stat("/dev/kvm", &device) == 0)
      arguments.insert(arguments.end(), {"--group", fmt::format("{}", device.st_gid)});
  }
  arguments.emplace_back("--");
  Plan plan;
  plan.uuid = request.uuid;
  plan.shape = request.shape;
  plan.clock.tsc_khz = measured_tsc_khz();
  plan.layer_files = request.layers.size() + 1;
  const std::vector<std::string> machine = qemu::arguments(plan);
  arguments.insert(arguments.end(), machine.begin(), machine.end());
  return arguments;
}

}  // namespace

Result<Machine> start_machine(const MachineRequest& request) {
  Descriptors descriptors;
  TRY(give_files(request, descriptors));
  TRY(give_channels(request, descriptors));
  // Nobody may be reading, for as long as the daemon is away; then the oldest text stays in the
  // pipe and further text is dropped, and QEMU is not held up.
  base::Pipe console = TRY(base::make_pipe());
  TRY(base::set_nonblocking(console.writer.get(), true));
  descriptors.give(console.writer.get(), STDERR_FILENO);
  descriptors.give(console.writer.get(), Descriptor::console);
  descriptors.give(console.reader.get(), Descriptor::console_hold);
  Machine machine;
  machine.process = TRY(base::spawn({.arguments = launch_arguments(request),
                                     .environment = {"CONTAINER_APP_ROOT=" + request.system},
                                     .descriptors = descriptors.given()}));
  machine.pidfd = TRY(base::open_process(machine.process));
  machine.console = std::move(console.reader);
  return machine;
}

Result<UniqueFd> open_console(int64_t pid) {
  return base::open_file(fmt::format("/proc/{}/fd/{}", pid, Descriptor::console_hold),
                         O_RDONLY | O_NONBLOCK);
}

std::optional<uint32_t> first_machine_uid() {
  if (::geteuid() != 0) return std::nullopt;
  const auto map = base::read_file("/proc/self/uid_map", 1u << 16);
  if (!map) return std::nullopt;
  std::istringstream lines(*map);
  uint64_t inside = 0;
  uint64_t outside = 0;
  uint64_t count = 0;
  while (lines >> inside >> outside >> count)
    if (inside <= uid_first && uid_first + machine_uids <= inside + count) return uid_first;
  return std::nullopt;
}

}  // namespace runtime::qemu
