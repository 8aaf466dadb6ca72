#pragma once
/// Takes away from this process what a file server never needs.

#include <vector>

#include "base/result.h"
#include "files/server.h"

namespace files {

/// No new privileges, no core files, descriptors up to the hard limit; under Landlock, where the
/// kernel has it, nothing is reachable by path but the shares and /proc/self. To be called after
/// the shares are open and before the first request. Without Landlock it says so in `missing`.
base::Result<> confine(const std::vector<Share>& shares, std::string& missing);

}  // namespace files
