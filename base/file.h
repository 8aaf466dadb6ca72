#pragma once
/// Whole files and folders: read with a bound, written so that a crash leaves the old or the new.

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace base {

/// The whole file, at most `bytes_max` bytes; a larger one is InvalidArgument.
Result<std::string> read_file(const std::string& path, uint64_t bytes_max);

/// Replaces `path` with `content`: temporary file beside it, fsync, rename, fsync of the folder.
Result<> write_file_atomically(const std::string& path, std::string_view content,
                               unsigned mode = 0600);

/// The same for what need not survive a loss of power: nothing waits for a disk. After one there
/// may be neither the old nor the new.
Result<> replace_file(const std::string& path, std::string_view content, unsigned mode = 0600);

/// Makes `path` and its missing parents, mode 0700; already there is success.
Result<> make_directories(const std::string& path);

/// Makes a rename or an unlink in `folder` survive a loss of power.
Result<> sync_directory(const std::string& folder);

/// Removes a tree. Symbolic links are removed, never followed. Absent is success.
Result<> remove_tree(const std::string& path);

bool path_exists(const std::string& path);

}  // namespace base
