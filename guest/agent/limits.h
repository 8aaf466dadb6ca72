#pragma once
/// Bounds of the agent alone; what daemon and agent share is in base/limits.h.

#include <cstddef>
#include <cstdint>

#include "base/limits.h"

namespace agent::limits {

inline constexpr size_t processes_max = 128;  ///< Running or not yet forgotten.
inline constexpr size_t streams_max = 256;    ///< HTTP/2 streams at once.
inline constexpr size_t path_bytes_max = 4096;
/// Bodies being received, all streams together.
inline constexpr size_t bodies_bytes_max = 8u << 20;
/// HTTP/2 window of a request: so much stdin waits here for a process that does not read.
inline constexpr int32_t stream_window_bytes = 128 << 10;
inline constexpr int32_t connection_window_bytes = 8 << 20;

/// Output kept for all processes together. A process may hold `output_share_bytes` in any case.
inline constexpr size_t output_total_bytes_max = 16u << 20;
inline constexpr size_t output_share_bytes = 64u << 10;
/// How long output is awaited after a process's end when a descendant keeps its pipe open.
inline constexpr int output_drain_ms = 500;

inline constexpr size_t events_unacknowledged_max = 1024;
inline constexpr size_t probe_output_bytes_max = 4096;

inline constexpr int container_start_timeout_ms = 120'000;  ///< Filling a new volume included.
inline constexpr int process_start_timeout_ms = 30'000;
inline constexpr int port_wait_timeout_ms = 20'000;
inline constexpr int shutdown_step_timeout_ms = 10'000;
/// A greeting inside an unfinished frame counts after so much silence.
inline constexpr int greeting_silence_ms = 200;

inline constexpr size_t account_line_bytes_max = 4096;
inline constexpr uint64_t account_file_bytes_max = 256u << 20;
inline constexpr size_t groups_max = 1024;
inline constexpr size_t symlink_levels_max = 40;
inline constexpr uint64_t emulator_bytes_max = 64u << 20;

/// Of a build machine. The kernel joins at most 500 folders to one.
inline constexpr size_t overlay_layers_max = 400;
inline constexpr size_t trees_max = 1024;
inline constexpr size_t layer_id_bytes_max = 128;
inline constexpr size_t layer_depth_max = 256;
inline constexpr size_t layer_folders_max = 1'000'000;
inline constexpr size_t relayed_connections_max = 64;  ///< Not yet taken over by the host.
/// HTTP/2 window of a request that brings a tar.
inline constexpr int32_t upload_window_bytes = 1 << 20;
inline constexpr uint64_t small_file_bytes_max = 1u << 20;  ///< /proc, /sys, modules.alias line.

static_assert(output_share_bytes < base::limits::agent_output_unacknowledged_bytes_max);
static_assert(bodies_bytes_max >= base::limits::agent_message_bytes_max);

}  // namespace agent::limits
