#pragma once
/// One running virtual machine and the container in it, from the agent's greeting to the end.
///
/// Two threads belong to it: the pump stores the main process's output, the keeper follows the
/// agent's events and, when the main process or the machine has ended, closes everything down and
/// reports it. Both can be left off (`abandon`) with the machine running on, for the next daemon.

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"
#include "guest/protocol/output_frame.h"
#include "guest/protocol/protocol.h"
#include "reconciler/ports/runtime.h"
#include "runtime/agent/client.h"
#include "runtime/io/loop.h"
#include "runtime/log/console_log.h"
#include "runtime/log/container_log.h"
#include "runtime/qemu/full_disk.h"
#include "runtime/qemu/machine.h"
#include "runtime/qemu/state.h"
#include "runtime/silence.h"

namespace runtime {

/// The last span of a traced machine that is not removed.
inline constexpr std::string_view trace_finished = "nothing of the machine is left";

struct VmParts {
  qemu::VmState state;
  qemu::Sockets sockets;
  std::string state_path;  ///< In the run folder, which goes with the VM.
  std::string exit_path;   ///< Beside the disk; stays.
  uint64_t epoch = 1;
  base::UniqueFd pidfd;
  base::UniqueFd console;
  base::UniqueFd orders;         ///< Of a clone: kept until its agent answers (template/orders.h).
  int64_t process_began_ns = 0;  ///< CLOCK_BOOTTIME.
  std::shared_ptr<ContainerLog> log;
  std::shared_ptr<ConsoleLog> boot_log;
  std::function<void(reconciler::VmEvent)> report;
};

class Vm : public std::enable_shared_from_this<Vm> {
 public:
  /// Watches the process and begins to greet the agent.
  static base::Result<std::shared_ptr<Vm>> watch(IoLoop& loop, VmParts parts);
  ~Vm();
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  /// Until the agent has answered; InvalidState, with what the console said last, if QEMU ended.
  base::Result<> await_agent(const base::Deadline& deadline);
  /// Makes the guest a container and starts its main process.
  base::Result<> configure(const guest::ContainerConfig& config);
  /// Serves the machine's shared folders; ends with it, and is reaped then.
  void set_file_server(base::ProcessIdentity process) { file_server_ = std::move(process); }
  /// It shares no folder: its disk is all it may have to write when it ends.
  void set_alone() { alone_ = true; }
  /// Nobody reads its disk again.
  void give_up_disk() { disk_given_up_ = true; }
  /// From here on output is stored and the end is reported.
  void keep();
  /// Ends our part; the machine runs on.
  void abandon();
  /// Ends the machine at once. For one that is not kept yet.
  void destroy();

  base::Result<> begin_stop(int signal);
  base::Result<reconciler::ExitStatus> stop(int signal, int64_t grace_ms);
  base::Result<> signal(const std::string& process, int number);
  base::Result<std::string> call(const std::string& method, const std::string& path,
                                 const std::string& body);
  base::Result<std::string> call(const std::string& method, const std::string& path,
                                 const std::string& body, const base::Deadline& deadline);
  base::Result<std::shared_ptr<AgentStream>> open(const std::string& method,
                                                  const std::string& path, bool upload);

  /// Tells the keeper that the end of `process` will be asked for.
  void expect_exit(const std::string& process);
  /// Nobody is going to ask for it any more.
  void forget_exit(const std::string& process);
  /// Its exit code. Blocks; InvalidState if the machine ended first.
  base::Result<int32_t> await_exit(const std::string& process,
                                   const base::Deadline& deadline = base::Deadline::never());

  /// What ended the machine, with the end of its console; nothing while it lives. `suspected`: its
  /// agent's connection broke, so that a moment's wait for the facts is worth it.
  std::optional<std::string> death(bool suspected);

  /// Asks the agent for life, a second at most; see silence.h for what a missing answer means.
  reconciler::VmObservation observe();
  const qemu::VmState& state() const { return parts_.state; }
  const guest::ProcessConfig& main_process() const { return parts_.state.main; }
  /// The container's process has ended, or the machine under it.
  bool ended() const;
  /// Why the machine is held by QEMU, and what to do; empty: it is not.
  std::string paused_reason() const;
  /// False if it is held, and cannot go on now either.
  bool can_run();
  /// A machine whose container has ended, and that waits for room for what it has yet to write, is
  /// ended without that.
  void cut_short();
  /// Nothing of the machine is left, either.
  bool finished() const;
  /// Until then, where the end is near; Timeout.
  base::Result<> await_finished() const;

 private:
  Vm(IoLoop& loop, VmParts parts) : loop_(loop), parts_(std::move(parts)) {}
  base::Result<> begin();
  void on_gone();
  void drain_console();
  base::Result<> watch_disk();
  void on_full_disk(bool full);
  bool await_room(uint64_t pauses_before);
  uint64_t pauses() const;
  void close_watches();
  void ask_for_life();
  base::Error explained(const base::Error& error) const;
  std::string ended_under_it() const;
  void trace_resume();
  void trace_guest(const std::string& answer, int64_t asked_ns);
  void trace_exit(const guest::Event& event);

  void keep_until_end();
  void follow_events();
  bool on_event(const guest::Event& event);
  void report_health(const guest::Event& event);
  void pump_output();
  bool pump_stream(AgentStream& stream);
  bool store(const guest::OutputFrame& frame);
  void power_off();
  reconciler::ExitStatus exit_status() const;
  void tell_end();
  void finish();
  bool leaving() const;
  bool wait(const base::Deadline& deadline, const std::function<bool()>& ready) const;

  IoLoop& loop_;
  VmParts parts_;
  std::shared_ptr<AgentClient> agent_;
  std::unique_ptr<LoopWatch> process_watch_;          // loop thread only
  std::unique_ptr<LoopWatch> console_watch_;          // loop thread only
  std::unique_ptr<qemu::FullDiskWatch> disk_watch_;   // loop thread only
  std::optional<base::ProcessIdentity> file_server_;  ///< Only if we started it.
  std::atomic<bool> alone_ = false;
  std::atomic<bool> disk_given_up_ = false;
  int64_t guest_wall_ahead_ns_ = 0;  ///< Of our CLOCK_BOOTTIME; known if traced.
  std::thread keeper_;
  std::thread pump_;
  uint64_t stored_bytes_ = 0;        // pump only
  uint64_t acknowledged_bytes_ = 0;  // pump only
  uint64_t last_event_ = 0;          // keeper only

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool gone_ = false;       ///< QEMU ended.
  bool abandoned_ = false;  ///< We leave, the machine stays.
  bool forced_ = false;     ///< Its end is our doing.
  bool out_of_memory_ = false;
  std::string paused_reason_;
  uint64_t pauses_ = 0;
  bool cut_short_ = false;
  Silence silence_;
  std::optional<guest::Event> main_exit_;
  bool ending_ = false;  ///< The end is being told and the machine switched off.
  std::optional<reconciler::ExitStatus> ended_;
  bool finished_ = false;
  std::map<std::string, std::optional<int32_t>> exits_;  ///< Of processes somebody waits for.
};

}  // namespace runtime
