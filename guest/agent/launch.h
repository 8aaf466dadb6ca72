#pragma once
/// Starting processes: what happens in the child, from the clone to the exec.
///
/// The child sets everything up by itself and tells how it went over a socket that closes at exec:
/// nothing but end of stream means success, otherwise {"code", "message"}. So the agent never
/// touches a container's files: a file server that hangs can hold up a child, never the agent.

#include <sys/types.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "guest/protocol/protocol.h"

namespace agent {

/// The agent's ends of what connects it with a process it has begun to start.
struct Launched {
  pid_t pid = -1;
  base::UniqueFd report;  ///< Readable: see ReportReader.
  /// Without a terminal: pipes. With one, `terminal` comes over `report` and these stay empty.
  base::UniqueFd stdin_writer;
  base::UniqueFd stdout_reader;
  base::UniqueFd stderr_reader;
};

/// Where a new process goes.
struct Place {
  /// Descriptor of the cgroup folder.
  int cgroup_fd = -1;
  /// A process whose namespaces to join (its pidfd), or -1: namespaces of its own, and `prepare`
  /// makes what it finds in them.
  int join_pidfd = -1;
  /// Runs in the child, in new namespaces, before the process's own set-up; ends with the
  /// container's root as "/".
  /// `report` is for report_listening().
  std::function<base::Result<>(int report)> prepare;
  bool init = false;  ///< A reaper of ours stays as PID 1.
  /// Runs instead of the configured program, in the agent's own root. Never returns.
  void (*body)() = nullptr;
};

base::Result<Launched> launch(const guest::ProcessConfig& config, const Place& place);

/// What `launch`'s child said so far. Call when `report` is readable.
struct Report {
  bool done = false;
  base::UniqueFd terminal;
  /// Sockets on which the process's connections arrive, each with the number of its mount.
  std::vector<std::pair<size_t, base::UniqueFd>> listening;
  pid_t pid = -1;  ///< Of the process itself, where it is not the child we made.
  base::Result<> result;
};
/// Called in the child: gives the agent a listening socket.
void report_listening(int report, size_t mount, int socket);
base::Result<> read_report(int fd, Report& report);

/// The first file of that name in the PATH of `environment` that can be run; names with a slash are
/// taken as they are. NotFound: `failed to find target executable x`.
base::Result<std::string> find_executable(const std::string& name,
                                          const std::vector<std::string>& environment);

}  // namespace agent
