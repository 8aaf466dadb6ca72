#pragma once
/// Machines that nobody wrote down to the end.

#include <string>

#include "base/process.h"
#include "base/result.h"

namespace runtime::qemu {

/// The process that was started with this uuid; NotFound.
base::Result<base::ProcessIdentity> find_by_uuid(const std::string& uuid);

}  // namespace runtime::qemu
