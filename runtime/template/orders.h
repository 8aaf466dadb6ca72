#pragma once
/// The QMP conversations that move a whole guest: saved into a file, or brought back from it.
///
/// Memory is not part of the file: it is a shared file of its own (`x-ignore-shared`).

#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"
#include "base/trace.h"

namespace runtime {

/// Saves devices and processors into `state_fd` and leaves the guest stopped for good.
base::Result<> save_guest(const std::string& monitor_socket, int state_fd,
                          const base::Deadline& deadline);

/// Tells a QEMU that waits for its state (`-incoming defer`) to take it from `state_fd` and to
/// run. Does not wait: QEMU need not have come up yet. The connection must be kept until the guest
/// answers. A QEMU that cannot take the state ends.
base::Result<base::UniqueFd> order_resume(const std::string& monitor_socket, int state_fd);

/// Stops the guest on a connection of order_resume(), for the time being.
base::Result<> stop_guest(int connection, const base::Deadline& deadline);

/// Lets a guest that was stopped go on. Does not wait; the connection must be kept until the guest
/// answers.
base::Result<base::UniqueFd> order_continue(const std::string& monitor_socket);

/// What QEMU has told so far of carrying out `order_resume`: from `begin_ns` (CLOCK_BOOTTIME) until
/// it took the order, and until the guest ran. Takes it off the connection.
std::vector<base::Span> spans_of_resume(int connection, int64_t begin_ns);

}  // namespace runtime
