#pragma once
/// Loading kernel modules when the kernel asks for them: what `modprobe` does, no more.

#include <string>

#include "base/result.h"

namespace agent {

/// Where the modules disk is mounted; holds one folder per kernel release (modules.dep(5)).
inline constexpr const char* modules_folder = "/lib/modules";

/// Loads the module called `name`, or those that have it as an alias, after what they need.
base::Result<> load_module(const std::string& name);

}  // namespace agent
