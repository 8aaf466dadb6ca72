#pragma once
/// The port to virtual machines. Implemented by runtime/ (QEMU) and by tests/sim.
///
/// Every call is synchronous, has a deadline of its own, and may be made from any thread; calls for
/// different containers run side by side, calls for one container are serialised by the caller.
/// Every effect is named after the container's id, and repeating a call that already took effect
/// succeeds: that is what lets an interrupted plan be finished.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "reconciler/ports/network.h"
#include "spec/stack.h"

namespace reconciler {

/// What an image says about running it (OCI image config), resolved by the image port.
struct ImageRuntimeConfig {
  std::string reference;
  std::string digest;                    ///< Of the manifest: `sha256:…`.
  std::vector<std::string> layer_disks;  ///< Host paths of EROFS disks, lowest first.
  std::vector<std::string> entrypoint;
  std::vector<std::string> command;
  std::vector<std::string> environment;  ///< `K=V`, in order.
  std::string working_dir;
  std::string user;
  std::string stop_signal;
  std::vector<std::string> volumes;
  spec::HealthCheck healthcheck;
  std::map<std::string, std::string> labels;
  std::string architecture;
  /// While it or a copy lives, the image port keeps what all this was read from.
  std::shared_ptr<const void> hold = {};
};

/// A host folder or file to appear in the container.
struct ShareSource {
  std::string host_path;
  std::string target;
  bool read_only = false;
  bool populate = false;  ///< New empty volume: take over image content.
};

/// Everything that is needed to make the container, and to start it again later.
struct ContainerSetup {
  std::string id;  ///< Unique name; also the user's handle.
  uint64_t generation = 1;
  spec::Service service;
  ImageRuntimeConfig image;
  std::vector<ShareSource> shares;
  bool keep_disk = true;  ///< false: nobody reads its disk after its end.
};

struct StartRequest {
  ContainerSetup setup;
  std::vector<NetworkLease> leases;  ///< In the order of the NICs; TAPs are taken over.
  std::string hosts;
  std::string resolv_conf;
  uint16_t rows = 24;
  uint16_t columns = 80;
};

enum class VmPhase { Absent, Running, Exited, Unknown };
enum class Health { None, Starting, Healthy, Unhealthy };

/// How the container's main process ended.
struct ExitStatus {
  int32_t code = 0;      ///< 128+n after signal n; 255 if the VM died.
  bool vm_died = false;  ///< QEMU or the kernel went away under it.
  bool out_of_memory = false;
  int64_t finished_wall_ns = 0;
  std::string reason;  ///< For vm_died: what was seen.
};

/// What the driver sees of one container, from the host's side.
struct VmObservation {
  std::string id;
  uint64_t generation = 0;
  VmPhase phase = VmPhase::Absent;
  Health health = Health::None;
  std::optional<ExitStatus> exit;  ///< With phase Exited.
  int64_t started_wall_ns = 0;
  int64_t pid = 0;  ///< Of the VM monitor, for information.
  bool disk_present = false;
  std::string paused_reason;  ///< Running, but its machine is held until something is done.
};

/// Of a container's machine.
struct MachineSize {
  uint32_t cpus = 0;
  uint64_t memory_bytes = 0;  ///< What the container may use; its kernel has some on top.
};

/// Told on a driver thread; the receiver only posts it on. `Exited` is told when the process has
/// ended and its output is stored; the machine may take a moment longer to go, which `start`,
/// `stop` and `remove` wait for. Whoever is attached hears of the end after the receiver has.
struct VmEvent {
  enum class Kind { Exited, Health, Paused };
  Kind kind = Kind::Exited;
  std::string id;
  uint64_t generation = 0;
  ExitStatus exit;
  Health health = Health::None;
  std::string detail;  ///< Paused: why, and what to do; empty: it goes on.
};

/// Bytes of a process, in order. `stream` 1 is stdout, 2 stderr. Returning false ends the stream.
using OutputSink = std::function<bool(int stream, std::string_view bytes)>;

struct ExecRequest {
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  ///< Added to the main process's own.
  std::optional<std::string> working_dir;
  std::optional<std::string> user;
  bool terminal = false;
  bool stdin_open = false;
  uint16_t rows = 24;
  uint16_t columns = 80;
};

/// One process being talked to: an exec, or the main process under attach. The calls may come from
/// different threads.
class ProcessSession {
 public:
  virtual ~ProcessSession() = default;
  /// Blocks until all output has been given to `sink` and the process has ended; its exit code.
  /// While `sink` blocks, the process is held back: nothing is dropped, nothing piles up.
  virtual base::Result<int32_t> run(const OutputSink& sink) = 0;
  /// Blocks while the process does not read. InvalidState after it ended.
  virtual base::Result<> write_stdin(std::string_view bytes) = 0;
  virtual base::Result<> close_stdin() = 0;
  virtual base::Result<> signal(int number) = 0;
  virtual base::Result<> resize(uint16_t rows, uint16_t columns) = 0;
  /// Makes a blocked run() or write_stdin() return Cancelled.
  virtual void cancel() = 0;
};

struct LogRequest {
  bool boot = false;  ///< The console instead of the container's output.
  bool follow = false;
  std::optional<uint64_t> last_lines;
  std::function<bool()> cancelled;  ///< Asked at least every 200 ms while following.
};

class RuntimePort {
 public:
  virtual ~RuntimePort() = default;

  /// What a machine for this service would get: what it asks for, or else what is usual here.
  virtual MachineSize size_of(const spec::Service& service) const = 0;
  /// Makes the private disk. No process runs yet.
  virtual base::Result<> create(const ContainerSetup& setup) = 0;
  /// Starts the VM and the main process; returns when that process exists.
  virtual base::Result<> start(const StartRequest& request) = 0;
  /// It is about to be removed: its guest need not write its disk out when it ends.
  virtual void give_up_disk(const std::string& id) = 0;
  /// Asks the main process to end, and returns. Readers of its output hold it back no longer.
  virtual base::Result<> begin_stop(const std::string& id, int signal) = 0;
  /// Signal, wait `grace_ms`, SIGKILL, power off. Returns when no VM is left. Idempotent.
  virtual base::Result<ExitStatus> stop(const std::string& id, int signal, int64_t grace_ms) = 0;
  /// Sends a signal to the main process and returns.
  virtual base::Result<> kill(const std::string& id, int signal) = 0;
  /// Deletes disk, logs and every trace. The container must not be running. Idempotent.
  virtual base::Result<> remove(const std::string& id) = 0;

  /// Everything the driver can find from the operating system, adopted or not; also what no record
  /// names. Never blocks on an unresponsive VM longer than a second: that one is Unknown.
  virtual base::Result<std::vector<VmObservation>> list() = 0;
  /// The same of one container, whatever the others do. Absent where there is nothing.
  virtual base::Result<VmObservation> observe(const std::string& id) = 0;
  /// Takes over VMs that outlived the last daemon, and starts reporting events.
  virtual base::Result<> adopt(std::function<void(VmEvent)> on_event) = 0;

  virtual base::Result<std::unique_ptr<ProcessSession>> exec(const std::string& id,
                                                             const ExecRequest& request) = 0;
  /// Attaches to the main process: all output from its start on (or from now on), and its stdin.
  virtual base::Result<std::unique_ptr<ProcessSession>> attach(const std::string& id,
                                                               bool from_start) = 0;
  /// Gives stored output to `sink`, then ends or follows.
  virtual base::Result<> logs(const std::string& id, const LogRequest& request,
                              const OutputSink& sink) = 0;
  virtual base::Result<> update_hosts(const std::string& id, const std::string& hosts,
                                      const std::string& resolv_conf) = 0;

  /// A named folder on the host. `list_volumes` finds what exists, recorded or not.
  virtual base::Result<> create_volume(const std::string& name) = 0;
  virtual base::Result<> remove_volume(const std::string& name) = 0;
  virtual base::Result<std::vector<std::string>> list_volumes() = 0;
  virtual std::string volume_path(const std::string& name) = 0;
};

}  // namespace reconciler
