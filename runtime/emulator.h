#pragma once
/// Which program of the host lets a machine run images of another architecture.

#include <optional>
#include <string>

#include "base/result.h"

namespace runtime {

/// Path of the static user-mode emulator for `architecture` (as OCI images name it: `arm64`) in
/// `folder`; nothing for what runs as it is. Unsupported, with what to install, if there is none.
base::Result<std::optional<std::string>> find_emulator(const std::string& architecture,
                                                       const std::string& folder);

}  // namespace runtime
