#pragma once
/// One daemon per app root: an flock held for life, freed by the kernel however we end.

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace api {

/// Busy at once, naming the holder's pid, if another daemon has it. The pid in the file is a hint
/// for people only; nothing is decided by it.
base::Result<base::UniqueFd> lock_app_root(const std::string& app_root);

}  // namespace api
