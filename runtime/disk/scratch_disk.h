#pragma once
/// The container's private writable disk: a sparse ext4 made once, then cloned for each container.

#include <cstdint>
#include <string>

#include "base/result.h"

namespace runtime {

/// What a container may write at most; nothing of it is used before it is written.
inline constexpr uint64_t scratch_disk_bytes = 64ull << 30;

/// Makes an ext4 file system in a new sparse file. No root, no other program.
base::Result<> make_scratch_template(const std::string& path, uint64_t bytes);

/// A copy of `from` at `to`: shared blocks where the file system can, else only what is not a
/// hole. Complete or absent. Already there is success.
base::Result<> clone_disk(const std::string& from, const std::string& to);

}  // namespace runtime
