#pragma once
/// What a process takes away from itself before it becomes a machine: user, groups, capabilities,
/// new privileges, core dumps, most open files, and (where the kernel has Landlock) every path but
/// the system's libraries and what is named.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

#include "base/result.h"

namespace runtime {

/// The words of a launch: options, `--`, the program and its arguments.
struct LaunchRequest {
  std::optional<uid_t> uid;
  std::vector<gid_t> groups;
  std::vector<std::string> readable;
  std::vector<std::string> writable;
  std::string preload;               ///< A library loaded into the program first; none: empty.
  std::vector<std::string> program;  ///< Path and arguments.
};

/// `[--uid N] [--group N]… [--read PATH]… [--write PATH]… [--preload FILE] -- PROGRAM ARGUMENT…`
base::Result<LaunchRequest> parse_launch(const std::vector<std::string>& words);

/// Irreversible, and for a process with one thread.
base::Result<> confine(const LaunchRequest& request);

}  // namespace runtime
