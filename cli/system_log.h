#pragma once
/// The daemon's log file, as `system logs` shows it: the last while, and on from there.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace cli {

/// Nanoseconds since 1970 of a line that begins with an RFC 3339 time; nullopt for any other.
std::optional<int64_t> time_of_line(std::string_view line);

/// The part of `text` that begins with the first line not older than `since_ns`. Lines without a
/// time belong to the one before them.
std::string_view lines_since(std::string_view text, int64_t since_ns);

/// Prints it. With `follow` until a signal ends us.
base::Result<> show_system_log(const std::string& path, int64_t since_ns, bool follow);

}  // namespace cli
