#pragma once
/// Every bound of the system, with its name and unit. Reaching one is a reported error.

#include <cstdint>

namespace base::limits {

inline constexpr int json_depth_max = 128;
inline constexpr uint64_t api_request_bytes_max = 16u << 20;
inline constexpr unsigned api_connections_max = 512;
inline constexpr unsigned api_idle_timeout_s = 60;     ///< Between two bytes of a request.
inline constexpr unsigned api_upload_timeout_s = 600;  ///< The same for an image that is loaded.
inline constexpr uint64_t api_connection_bytes_max = 64u << 10;  ///< Headers, and a piece of body.
inline constexpr int64_t api_wait_ms_max = 366ll * 86'400'000;   ///< Of any wait a client asks for.
inline constexpr uint64_t api_thread_stack_bytes = 1u << 20;
inline constexpr uint64_t api_event_stream_bytes_max = 32u << 20;    ///< Plan and progress unread.
inline constexpr uint64_t api_output_stream_bytes_max = 256u << 10;  ///< Output unread: then hold.
inline constexpr int api_loop_call_timeout_ms = 30'000;
inline constexpr int api_ready_timeout_ms = 60'000;
inline constexpr int daemon_stop_timeout_ms = 20'000;
inline constexpr int cli_answer_timeout_ms = 60'000;         ///< Between two bytes of an answer.
inline constexpr uint64_t cli_answer_bytes_max = 64u << 20;  ///< Of an answer held in memory.
inline constexpr uint64_t cli_line_bytes_max = 32u << 20;    ///< Of one line of an endless answer.
inline constexpr uint64_t cli_lines_unread_bytes_max = 4u << 20;
inline constexpr uint64_t cli_stdin_unsent_bytes_max = 256u << 10;
inline constexpr uint64_t cli_log_line_bytes_max = 64u << 10;  ///< Longer ones are shown in pieces.
inline constexpr int cli_signals_to_give_up = 3;
inline constexpr int cli_last_word_timeout_ms = 5'000;  ///< Of a start whose process has ended.
inline constexpr int cli_reader_left_grace_ms = 2'000;  ///< From SIGPIPE to SIGKILL.
inline constexpr int cli_watch_quiet_ms = 200;          ///< After the last change of a file.
inline constexpr uint64_t plan_file_bytes_max = 16u << 20;
inline constexpr int64_t state_reserve_bytes = 16 << 20;  ///< Given up when the disk is full.
inline constexpr int state_growth_step_bytes = 256 << 10;

inline constexpr uint64_t stack_file_bytes_max = 4u << 20;
inline constexpr int stack_depth_max = 128;
inline constexpr int stack_toml_depth_max = 32;  ///< Its parser takes 3 KB of stack for each.
inline constexpr uint64_t stack_key_bytes_max = 1'024;       ///< Of one key; YAML's own bound.
inline constexpr int stack_nodes_max = 100'000;              ///< Alias bombs end here.
inline constexpr uint64_t stack_text_bytes_max = 16u << 20;  ///< After aliases and variables.
inline constexpr uint64_t stack_env_bytes_max = 64u
                                                << 20;  ///< Files of variables, as often as read.
inline constexpr uint32_t stack_diagnostics_max = 1'000;
inline constexpr uint64_t stack_diagnostic_bytes_max = 1'000;  ///< Of one text of a diagnostic.
inline constexpr uint32_t stack_ports_max =
    16'384;  ///< Published ports of a stack, ranges expanded.
inline constexpr uint32_t stack_scale_max = 1'000;  ///< Replicas of one service.

inline constexpr uint64_t manifest_bytes_max = 4u << 20;  ///< OCI manifest or index.
inline constexpr uint64_t image_config_bytes_max = 8u << 20;
inline constexpr int image_index_depth_max = 4;
inline constexpr uint32_t image_layers_max = 64;  ///< Partitions of an image disk.
inline constexpr int64_t image_lease_s =
    24 * 3600;  ///< What a dead pull keeps, since its last blob.
inline constexpr uint32_t image_leases_max = 1024;  ///< With a name, alive or not.
inline constexpr uint32_t image_lease_digests_max = 262'144;
inline constexpr uint32_t image_lease_name_bytes_max = 1024;
inline constexpr uint64_t layer_unpacked_bytes_max = 64ull << 30;
inline constexpr uint32_t layer_entries_max = 4'000'000;

inline constexpr uint64_t dockerfile_bytes_max = 4u << 20;
inline constexpr uint32_t dockerfile_problems_max = 200;    ///< Then the rest is counted only.
inline constexpr uint64_t expansion_bytes_max = 1u << 20;   ///< Of one word, variables replaced.
inline constexpr uint64_t expansion_steps_max = 64u << 20;  ///< Characters × pattern items.
inline constexpr uint32_t expansion_depth_max = 64;         ///< `${a:-${b:-…}}`
inline constexpr uint64_t ignore_file_bytes_max = 1u << 20;
inline constexpr uint32_t ignore_patterns_max = 10'000;
inline constexpr uint64_t context_bytes_max = 64ull << 30;  ///< A context or archive, decompressed.
inline constexpr uint32_t context_entries_max = 4'000'000;
inline constexpr uint32_t tree_depth_max = 256;
inline constexpr uint32_t symlinks_followed_max = 40;         ///< Of one path, as Linux.
inline constexpr uint64_t account_file_bytes_max = 1u << 20;  ///< /etc/passwd of an image.
inline constexpr uint64_t digest_cache_bytes_max = 256u << 20;
inline constexpr uint32_t digest_cache_grace_ms = 2'000;  ///< Younger files are not remembered.

inline constexpr uint32_t container_name_max = 63;
inline constexpr uint32_t networks_per_container_max = 4;  ///< What is left of 8 device slots.
inline constexpr uint64_t container_memory_bytes_min = 64u << 20;
inline constexpr uint32_t container_cpus_max = 64;

inline constexpr uint32_t agent_message_bytes_max = 4u << 20;
inline constexpr uint32_t agent_output_unacknowledged_bytes_max = 1u << 20;
inline constexpr int agent_call_timeout_ms = 10'000;
inline constexpr int vm_boot_timeout_ms = 30'000;
inline constexpr int vm_clone_timeout_ms = 10'000;  ///< Then the template counts as bad.
inline constexpr uint32_t templates_max = 8;
inline constexpr uint64_t templates_bytes_max = 1ull << 30;   ///< On disk, all of them.
inline constexpr uint64_t templates_room_bytes = 1ull << 30;  ///< Left free, or none is made.
inline constexpr int vm_exit_timeout_ms = 5'000;
inline constexpr int vm_probe_timeout_ms = 5'000;   ///< Does a guest boot under KVM at all?
inline constexpr int vm_answer_timeout_ms = 1'000;  ///< Of a question that only asks for life.

inline constexpr uint64_t log_segment_bytes_max = 10u << 20;
inline constexpr uint32_t log_segments_max = 3;
inline constexpr uint64_t console_log_bytes_max = 4u << 20;

inline constexpr uint32_t parallel_steps_max = 16;
inline constexpr uint32_t plans_waiting_max = 256;
/// Exits in a row that a wait for a container with a restart policy puts up with.
inline constexpr uint32_t await_restarts_max = 5;
/// A wait carried on after a restart of the daemon: nobody is there any more to cancel it.
inline constexpr int64_t resumed_await_ms_max = 120'000;
inline constexpr int64_t observe_interval_ms = 10'000;  ///< What no event tells is looked for.
inline constexpr int64_t restart_backoff_first_ms = 100;
inline constexpr int64_t restart_backoff_max_ms = 60'000;
inline constexpr int64_t restart_backoff_reset_after_ms = 10'000;

static_assert(agent_output_unacknowledged_bytes_max <= agent_message_bytes_max);
static_assert(restart_backoff_first_ms < restart_backoff_max_ms);

}  // namespace base::limits
