#pragma once
/// Carries FUSE messages between /dev/fuse and the port of the VM's file server, unchanged.
///
/// Two processes of their own do it, one for each way, with blocking calls: the agent never waits
/// for a file server, and a stalled one stalls only those who use its files.

#include <string>

#include "base/result.h"

namespace agent {

/// Mounts the file server's tree at `folder`. `port` is the device of the files port.
base::Result<> start_file_pump(const std::string& port, const std::string& folder);

}  // namespace agent
