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
#include "runtime/zygote/zygote.h"

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

/// What joins the image disk: QEMU, or what is around it in a zygote and its children.
bool is_joined_outside(const MachineRequest& request) {
  return request.memory == Memory::Zygote || request.zygote != nullptr;
}

Result<std::vector<SeedPart>> give_image(const MachineRequest& request, Descriptors& to) {
  std::vector<std::string> files;
  if (request.memory != Memory::Template) {
    files.push_back(request.guest.modules());
    files.insert(files.end(), request.layers.begin(), request.layers.end());
  }
  const bool has_files = request.memory != Memory::Template;
  ImageDisk disk = TRY(open_image_disk(files, has_files ? request.program : std::string()));
  std::vector<int> sets;
  std::vector<SeedPart> parts;
  for (size_t i = 0; i < disk.files.size(); ++i) {
    sets.push_back(Descriptor::layer_first + static_cast<int>(i));
    parts.push_back({.number = sets.back(),
                     .first_sector = disk.partitions[i].first_sector,
                     .sectors = disk.partitions[i].sectors});
    to.give(std::move(disk.files[i]), sets.back());
  }
  if (has_files && !is_joined_outside(request))
    to.give(TRY(read_only_memory_file("container-image",
                                      vmdk_descriptor(disk.partitions, Descriptor::table, sets))),
            Descriptor::image);
  to.give(std::move(disk.table), Descriptor::table);
  return parts;
}

Result<> give_start(const MachineRequest& request, Descriptors& to) {
  to.give(request.scratch, Descriptor::scratch);
  if (request.zygote != nullptr) return {};
  if (request.orders >= 0) to.give(request.orders, Descriptor::orders);
  if (request.memory != Memory::Fresh) to.give(request.memory_fd, Descriptor::memory);
  if (is_cloned(request.memory)) {
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
  if (!is_cloned(request.memory)) add("--read", request.guest.folder);
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

Result<base::ProcessIdentity> start_process(const MachineRequest& request,
                                            std::vector<SeedPart> parts,
                                            const Descriptors& descriptors) {
  SeedRequest order{.words = launch_words(request, parts.size(), Way::Fork),
                    .descriptors = descriptors.given(),
                    .parts = {}};
  const size_t layer_files = parts.size();
  if (is_joined_outside(request)) order.parts = std::move(parts);
  if (request.zygote != nullptr) return request.zygote->spawn(order);
  if (request.seed != nullptr && is_cloned(request.memory)) {
    Result<base::ProcessIdentity> forked = request.seed->spawn(order);
    if (forked || request.memory == Memory::Zygote) return forked;
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
  std::vector<SeedPart> parts = TRY(give_image(request, descriptors));
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
  machine.process = TRY(start_process(request, std::move(parts), descriptors));
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
