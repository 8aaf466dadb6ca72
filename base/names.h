#pragma once
/// The names users choose, and the rules they follow. Checked at every door, because names become
/// file names, DNS labels and socket paths.

#include <string>
#include <string_view>

#include "base/result.h"

namespace base {

/// `^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`, at most 63 bytes. `what` is "container", "exec session", …
Result<> check_name(std::string_view what, std::string_view name);

/// Volumes: the same letters, at most 255 bytes.
Result<> check_volume_name(std::string_view name);

/// Projects: `^[a-z0-9][a-z0-9_-]*$` (Compose Specification), at most 63 bytes.
Result<> check_project_name(std::string_view name);

/// Lower case, everything but `[a-z0-9_-]` dropped, leading `_` and `-` trimmed; may be empty.
std::string normalized_project_name(std::string_view folder);

/// RFC 1123 host name, labels of 1 to 63 letters, digits and inner hyphens, 253 in all.
Result<> check_hostname(std::string_view name);

}  // namespace base
