#pragma once
/// Processes of ours: started without a shell, watched by pidfd, told apart from a reused pid.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"

namespace base {

/// A process that cannot be confused with a later one of the same pid: its start time (field 22 of
/// /proc/PID/stat, in clock ticks) and the host's boot id belong to it.
struct ProcessIdentity {
  int64_t pid = 0;
  uint64_t start_ticks = 0;
  std::string boot_id;
};

struct SpawnOptions {
  std::vector<std::string> arguments;    ///< arguments[0] is the program's path.
  std::vector<std::string> environment;  ///< `K=V`; nothing is inherited.
  /// Descriptors given to the child: {ours, number in the child}. 0, 1, 2 not named: /dev/null.
  std::vector<std::pair<int, int>> descriptors;
  bool new_session = true;  ///< Outlives our terminal.
};

/// Starts a process. Everything not named in `descriptors` is closed in it. Safe from any thread.
Result<ProcessIdentity> spawn(const SpawnOptions& options);

/// A pidfd for exactly this process; NotFound if it is gone (or its pid belongs to another).
Result<UniqueFd> open_process(const ProcessIdentity& identity);

/// Identity of a live process.
Result<ProcessIdentity> identify_process(int64_t pid);

/// Signals through a pidfd; success if the process is gone already.
Result<> signal_process(int pidfd, int signal);

/// Waits for the end of the process behind `pidfd`; reaps it if it is our child and then returns
/// its wait status, else nullopt. Timeout if it still runs at `deadline`.
Result<std::optional<int>> await_process(int pidfd, int64_t pid, const Deadline& deadline);

struct Finished {
  int exit_code = 0;   ///< 128+n after signal n.
  std::string output;  ///< stdout and stderr, at most 64 KiB of each.
};
/// Runs to the end with a deadline (then SIGKILL and Timeout) and collects what it printed.
Result<Finished> run_process(const std::vector<std::string>& arguments, const Deadline& deadline);

}  // namespace base
