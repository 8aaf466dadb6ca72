#pragma once
/// Bounds of builds; what others share is in base/limits.h.

#include <cstddef>
#include <cstdint>

namespace builder::limits {

inline constexpr uint64_t cache_bytes_max = 20ull << 30;  ///< Layers the cache keeps alive.
inline constexpr size_t cache_entries_max = 20'000;
inline constexpr uint64_t cache_file_bytes_max = 64u << 20;
inline constexpr size_t stages_parallel_max = 4;
inline constexpr size_t output_lines_kept = 20;  ///< Of a step, for its error.
inline constexpr size_t output_line_bytes_max = 4u << 10;
inline constexpr uint64_t download_bytes_max = 8ull << 30;  ///< One ADD of a URL.
inline constexpr int redirects_max = 10;
inline constexpr int connect_timeout_ms = 30'000;
inline constexpr int download_idle_timeout_s = 60;
inline constexpr int git_timeout_ms = 600'000;
inline constexpr uint64_t git_output_bytes_max = 1u << 20;
inline constexpr uint64_t settings_bytes_max = 1u << 20;

}  // namespace builder::limits
