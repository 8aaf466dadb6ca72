#pragma once
/// The daemon as a process: started, waited for, found again.

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/deadline.h"
#include "base/process.h"
#include "base/result.h"
#include "cli/context.h"

namespace cli {

/// Who answers at the socket; nullopt if nobody does.
std::optional<base::ProcessIdentity> running_daemon(const Context& context);

/// Starts the daemon and waits until it answers. Its own words if it ends before.
base::Result<> start_daemon(const Context& context, const base::Deadline& deadline);

/// What runs without a daemon, since one was killed.
struct Orphans {
  size_t machines = 0;
  size_t networks = 0;
};
Orphans find_orphans(const Context& context);
/// Ends them as a daemon would have: a process of its own takes them over first. `grace_ms`
/// instead of each container's own.
base::Result<> end_orphans(const Context& context, std::optional<int64_t> grace_ms);

/// Until the process has ended.
base::Result<> await_daemon_end(const base::ProcessIdentity& daemon,
                                const base::Deadline& deadline);

}  // namespace cli
