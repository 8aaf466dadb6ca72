#pragma once
/// Bounds of what registries may do to us, with their units. Reaching one is a reported error.

#include <cstddef>
#include <cstdint>

namespace image::registry::limits {

inline constexpr size_t body_buffer_bytes = 1u << 20;  ///< Of an answer nobody reads.
inline constexpr int connect_timeout_ms = 20'000;
inline constexpr int idle_timeout_s = 30;      ///< Below bytes_per_s_min.
inline constexpr long bytes_per_s_min = 1024;  ///< Slower is as good as silent.
inline constexpr int redirects_max = 5;
inline constexpr int attempts_max = 6;  ///< In a row, without a byte of progress.
inline constexpr int64_t backoff_first_ms = 250;
inline constexpr int64_t backoff_max_ms = 10'000;
inline constexpr int64_t retry_after_max_ms = 120'000;   ///< Longer: an error that says so.
inline constexpr uint64_t answer_bytes_max = 1u << 20;   ///< Tokens and error texts.
inline constexpr uint64_t chunk_bytes = 4u << 20;        ///< Of a blob that comes in ranges.
inline constexpr uint64_t lone_chunk_bytes = 64u << 20;  ///< The same without company.
inline constexpr uint64_t chunked_blob_bytes_min = 32u << 20;
inline constexpr uint64_t upload_chunk_bytes = 64u << 20;
inline constexpr uint32_t downloads_max = 64;  ///< Of --max-concurrent-downloads.
inline constexpr uint32_t downloads_default = 3;
inline constexpr int64_t progress_interval_ms = 100;
inline constexpr uint32_t manifests_max = 1'000;  ///< Of one pull.

}  // namespace image::registry::limits
