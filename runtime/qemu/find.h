#pragma once
/// Machines that nobody wrote down to the end.

#include <cstdint>
#include <string>

#include "base/process.h"
#include "base/result.h"

namespace runtime::qemu {

/// Whether that process runs the machine with `uuid`.
bool has_uuid(int64_t pid, const std::string& uuid);
/// The process that was started with this uuid; NotFound.
base::Result<base::ProcessIdentity> find_by_uuid(const std::string& uuid);

}  // namespace runtime::qemu
