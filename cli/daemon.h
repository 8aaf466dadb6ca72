#pragma once
/// The daemon as a process: started, waited for, found again.

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

/// Until the process has ended.
base::Result<> await_daemon_end(const base::ProcessIdentity& daemon,
                                const base::Deadline& deadline);

}  // namespace cli
