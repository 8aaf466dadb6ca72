#pragma once
/// Capability sets of the calling thread, by name (capabilities(7)). Linux calls only: the sets of
/// a static program's one thread need no library.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace agent {

/// One bit per capability; `CAP_CHOWN` form. InvalidArgument for an unknown name.
base::Result<uint64_t> capability_bits(const std::vector<std::string>& names);
/// Takes everything out of the bounding set that is not in `kept`.
base::Result<> limit_bounding_set(uint64_t kept);
/// Permitted and effective become `bits`; inheritable and ambient become empty.
base::Result<> set_capabilities(uint64_t bits);

}  // namespace agent
