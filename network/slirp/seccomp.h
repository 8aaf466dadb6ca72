#pragma once
/// The system calls a running way out may make: on its TAP, on IPv4 sockets, on its own memory.

#include "base/result.h"

namespace network::slirp {

/// From here on this process opens no file, starts no program, maps nothing executable, and has no
/// sockets but TCP, UDP and echo over IPv4. What else it tries fails with EPERM. Needs
/// no-new-privileges to be set. Unsupported where the kernel has no seccomp filters.
base::Result<> confine_to_sockets();

}  // namespace network::slirp
