/// The first process of every VM. It mounts what it needs, opens the control port, and serves the
/// host until the VM ends. As `modprobe` it loads a kernel module instead, and in a rehearsal it is
/// the container's program as well.

#include <fcntl.h>
#include <sys/reboot.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string_view>

#include "base/deadline.h"
#include "base/file.h"
#include "guest/agent/agent.h"
#include "guest/agent/modules.h"
#include "guest/agent/rehearsal.h"
#include "guest/agent/system.h"

namespace {

using base::Result;

/// A program's pages are read in few large pieces: an emulated guest pays for each request.
constexpr uint32_t image_read_ahead_kib = 1024;

/// Returns only to report what makes further life senseless.
Result<> serve() {
  TRY(agent::mount_early());
  ::signal(SIGPIPE, SIG_IGN);
  agent::Loop loop;
  TRY(loop.prepare());
  agent::Machine machine;
  machine.image_disk = TRY(agent::find_disk("image"));
  TRY(agent::set_read_ahead(machine.image_disk, image_read_ahead_kib));
  machine.scratch_disk = TRY(agent::find_disk("scratch"));
  const std::string port_path = TRY(agent::find_port(guest::agent_port_name));
  machine.files_port = TRY(agent::find_port(guest::files_port_name));
  const base::UniqueFd port = TRY(base::open_file(port_path, O_RDWR | O_NONBLOCK));
  machine.boot_to_ready_ns = base::boottime_ns();
  const int64_t ready_ms = machine.boot_to_ready_ns / 1'000'000;
  agent::Agent agent(loop, std::move(machine));
  TRY(agent.prepare());
  agent::ControlPort control(loop, port.get(), agent);
  TRY(control.start());
  std::printf("container-agent: ready after %lld ms\n", static_cast<long long>(ready_ms));
  std::fflush(stdout);
  for (;;) loop.run_once();
}

int load_module(const char* name) {
  const auto loaded = agent::load_module(name);
  return loaded ? 0 : 1;  // The kernel tells who asked.
}

}  // namespace

int main(int argc, char** argv) {
  if (argc >= 2 && std::string_view(argv[0]).ends_with("modprobe"))
    return load_module(argv[argc - 1]);
  if (argc == 2 && std::string_view(argv[1]) == guest::rehearsal_word) return agent::rehearse();
  const auto ended = serve();
  std::printf("container-agent: %s\n", ended.error().to_string().c_str());
  std::fflush(stdout);
  ::sync();
  ::reboot(RB_AUTOBOOT);
  for (;;) ::pause();
}
