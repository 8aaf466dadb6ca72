#include "runtime/template/maker.h"

#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "runtime/agent/client.h"
#include "runtime/disk/scratch_disk.h"
#include "runtime/template/idle_tap.h"
#include "runtime/template/orders.h"

namespace runtime {
namespace {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;
using base::UniqueFd;

constexpr uint64_t no_epoch = 0;  ///< Below that of every daemon: any may take a clone over.
constexpr size_t console_bytes_max = 64u << 10;

/// As large as a container's disk, with nothing on it.
Result<UniqueFd> empty_scratch() {
  UniqueFd fd(::memfd_create("container-scratch", MFD_CLOEXEC));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(scratch_disk_bytes)) != 0)
    return base::fail_errno(errno, "make the disk of a template");
  return fd;
}

Result<UniqueFd> memory_file(const TemplateOrder& order) {
  UniqueFd fd = TRY(
      base::open_file(TemplateFiles{order.folder}.memory(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC));
  if (::ftruncate(fd.get(), static_cast<off_t>(order.shape.memory_bytes)) != 0)
    return base::fail_errno(errno, "size the memory of a template");
  if (order.uid && ::fchown(fd.get(), *order.uid, static_cast<gid_t>(-1)) != 0)
    return base::fail_errno(errno, "give the memory of a template away");
  return fd;
}

/// Nobody writes it any more; every clone's user may read it.
Result<> seal(int fd) {
  if (::fchown(fd, ::geteuid(), ::getegid()) != 0 || ::fchmod(fd, 0444) != 0 || ::fsync(fd) != 0)
    return base::fail_errno(errno, "keep a template");
  return {};
}

std::string drain(int console) {
  std::string text;
  char buffer[4096];
  ssize_t count = 0;
  while (text.size() < console_bytes_max && (count = ::read(console, buffer, sizeof buffer)) > 0)
    text.append(buffer, static_cast<size_t>(count));
  return text;
}

}  // namespace

/// The agent answers a real question first: then its code is in memory, and it waits.
Result<> TemplateMaker::boot_and_save(const TemplateOrder& order, qemu::Machine& machine,
                                      int state) {
  const qemu::Sockets sockets{order.run_folder};
  const auto agent =
      TRY(AgentClient::create(loop_, {.socket_path = sockets.agent(), .epoch = no_epoch}));
  std::unique_ptr<LoopWatch> ended;
  loop_.run([&] {
    auto made = LoopWatch::create(loop_, machine.pidfd.get(),
                                  [agent] { agent->close("the guest ended while it booted"); });
    if (made) ended = std::move(*made);
  });
  const Deadline deadline = Deadline::in_ms(base::limits::vm_boot_timeout_ms);
  Result<> saved = agent->await_connected(deadline);
  if (saved) {
    const auto answer = agent->call("GET", "/v1/state", "", deadline);
    if (!answer) saved = tl::unexpected(answer.error());
  }
  agent->close("the guest is being saved");
  loop_.run([&] { ended.reset(); });
  TRY(saved);
  TRY(save_guest(sockets.monitor(), state, deadline));
  TRY(base::set_nonblocking(machine.console.get(), true));
  return base::write_file_atomically(TemplateFiles{order.folder}.console(),
                                     drain(machine.console.get()));
}

Result<> TemplateMaker::make(const TemplateOrder& order) {
  const UniqueFd scratch = TRY(empty_scratch());
  const UniqueFd memory = TRY(memory_file(order));
  const UniqueFd state = TRY(
      base::open_file(TemplateFiles{order.folder}.state(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC));
  qemu::MachineRequest request;
  request.shape = order.shape;
  request.uuid = order.uuid;
  request.guest = order.guest;
  request.sockets.folder = order.run_folder;
  request.launcher = order.launcher;
  request.system = order.system;
  request.uid = order.uid;
  request.scratch = scratch.get();
  request.memory = qemu::Memory::Template;
  request.memory_fd = memory.get();
  request.memory_file = TemplateFiles{order.folder}.memory();
  std::vector<UniqueFd> taps;
  for (uint32_t i = 0; i < order.shape.nics; ++i) {
    taps.push_back(TRY(make_idle_tap()));
    request.taps.push_back(taps.back().get());
  }
  qemu::Machine machine = TRY(qemu::start_machine(request));
  {
    const std::lock_guard lock(mutex_);
    running_pidfd_ = machine.pidfd.get();
    if (cancelled_) (void)base::signal_process(running_pidfd_, SIGKILL);
  }
  const Result<> saved = boot_and_save(order, machine, state.get());
  {
    const std::lock_guard lock(mutex_);
    running_pidfd_ = -1;
  }
  (void)base::signal_process(machine.pidfd.get(), SIGKILL);
  (void)base::await_process(machine.pidfd.get(), machine.process.pid,
                            Deadline::in_ms(base::limits::vm_exit_timeout_ms));
  TRY(saved);
  TRY(seal(state.get()));
  return seal(memory.get());
}

void TemplateMaker::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (running_pidfd_ >= 0) (void)base::signal_process(running_pidfd_, SIGKILL);
}

}  // namespace runtime
