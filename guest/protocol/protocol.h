#pragma once
/// What the daemon and the agent say to each other: HTTP/2 (RFC 9113) with JSON bodies over one
/// byte stream, the virtio-serial port `agent_port_name`. The daemon is the client.
///
/// Connection. Neither side of a virtio-serial port learns reliably that the other was replaced,
/// and bytes in flight are lost when the host side goes away. So every connection opens with one
/// line from the host, `hello_prefix` + session (32 hex digits) + " " + epoch (decimal) + "\n",
/// sent again each second until the agent has answered with the same line; the agent drops
/// whatever it was doing on the old session, refuses an epoch lower than the highest it has seen,
/// and the host discards everything before the answer. Then HTTP/2 begins, with prior knowledge.
///
/// Nothing is lost. Output of a process and events carry offsets; the agent keeps them until they
/// are acknowledged, sends them again after a reconnect, and stops reading a process's pipes when
/// `agent_output_unacknowledged_bytes_max` are waiting. Exit codes are events, kept alike.
///
/// Requests (`:path`, all bodies JSON unless said otherwise; errors: status 4xx/5xx and
/// {"code": "not-found", "message": "..."} with the codes of base::ErrorCode):
///
///   GET  /v1/state                       AgentState: configured?, processes, boot time, version
///   POST /v1/container                   ContainerConfig: everything personal in one message; sets
///                                        the VM up and starts the main process. 409 if done
///                                        before.
///                                        {"id": "main"}; traced, also "spans" (base/trace.h) on
///                                        the guest's clock, and what it shows: "boottime_ns",
///                                        "wall_ns"
///   POST /v1/processes                   ExecConfig → {"id": "..."}; starts one more process
///   POST /v1/processes/ID/stdin          request body: raw bytes, end of stream closes stdin
///   GET  /v1/processes/ID/output?offset=N&stream=out|err|all
///                                        response body: output frames from N on, ends after the
///                                        process's output has ended
///   POST /v1/processes/ID/acknowledge    {"offset": N}: everything before N is stored
///   POST /v1/processes/ID/signal         {"signal": 15}
///   POST /v1/processes/ID/resize         {"rows": 24, "columns": 80}
///   DELETE /v1/processes/ID              forgets a process (exec); one that runs goes on unread
///   GET  /v1/events?after=N              response body: one Event a line, for ever
///   POST /v1/events/acknowledge          {"sequence": N}: everything up to N is stored
///   POST /v1/health                      HealthConfig, replaces the running probe
///   POST /v1/hosts                       {"hosts": "...", "resolv_conf": "..."}: rewrites these
///   POST /v1/time                        {"forward_ns": N}: moves the wall clock, also back; not
///                                        where CAP_SYS_TIME is there without CAP_SYS_ADMIN
///   GET  /v1/statistics                  cpu, memory, pids, io, network counters (Statistics)
///   POST /v1/rehearsal                   undoes a container of `rehearsal` that has ended
///   POST /v1/shutdown                    ends what runs, writes the disks, and then answers
///
/// A build machine (ContainerConfig::build) runs no program of its image but steps, each on an
/// overlay of the image's layers, the layers added here and those earlier steps left:
///
///   POST /v1/layers/ID                   request body: a tar of any length, unpacked as the layer
///   on
///                                        top. Names are clamped to it, whiteouts are honoured.
///                                        409 while a step runs or another layer is being made
///   GET  /v1/layers/ID                   response body: the layer as an OCI tar, each folder's
///   marks
///                                        and children sorted by name. What goes wrong under way is
///                                        told in the trailer `failure`
///   POST /v1/trees/NAME                  request body: a tar, unpacked beside the root for mounts
///   POST /v1/steps                       StepConfig → {"id": "..."}: runs a process on a fresh
///   layer
///                                        on top; from there on it is a process like an exec's.
///                                        When it ends with 0 its layer (named StepConfig::id)
///                                        stays, otherwise it is gone before the end is told
///   GET  /v1/steps/ID/connections        response body: one {"connection": "...", "mount": N} a
///   line,
///                                        for each connection a process of the step makes to the
///                                        socket of its N-th mount; ends with the step
///   POST /v1/connections/ID              both bodies: the bytes of such a connection, once
///
/// Output frame: 1 byte stream (1 stdout, 2 stderr; a tty has only 1), 8 bytes big-endian offset of
/// the first payload byte in the process's combined output, 4 bytes big-endian length, payload.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"

namespace guest {

inline constexpr int protocol_version = 1;
inline constexpr std::string_view agent_port_name = "container.agent";
/// In front of a step's id: its process's.
inline constexpr std::string_view step_process_prefix = "step-";
/// A second port carries FUSE messages between the guest's /dev/fuse and the VM's file server
/// (files/), unchanged: each begins with its own length (fuse_in_header / fuse_out_header).
inline constexpr std::string_view files_port_name = "container.files";
inline constexpr std::string_view hello_prefix = "container-agent hello ";
/// Payload of an HTTP/2 frame, both ways: fewer and larger pieces cost the guest less.
inline constexpr uint32_t frame_bytes_max = 64u << 10;
/// Trailer of a response whose body could not be completed: why.
inline constexpr std::string_view failure_trailer = "failure";
inline constexpr std::string_view main_process_id = "main";
/// The only argument of the agent where it is the program of a rehearsed container.
inline constexpr std::string_view rehearsal_word = "rehearse";
inline constexpr size_t output_frame_header_bytes = 13;

/// The MAC of the n-th NIC (from 0) before it is configured. It is part of the VM's shape, the same
/// for every VM, and tells the agent which NIC is which.
std::string unconfigured_mac(size_t index);

struct Interface {
  std::string mac;  ///< Set on the n-th NIC, in the order of this list.
  uint32_t mtu = 1500;
  std::vector<std::string> addresses;  ///< CIDR: `192.168.64.3/24`.
  std::string gateway;                 ///< Empty: no default route through this one.
  std::string name;                    ///< `eth0`
};

enum class MountKind { Share, Tmpfs };

struct GuestMount {
  MountKind kind = MountKind::Share;
  std::string source;  ///< Share: name of a top-level entry of the file server.
  std::string target;  ///< Absolute, in the container; resolved inside its root.
  bool read_only = false;
  bool populate = false;     ///< Share that is an empty new volume: copy image content.
  uint64_t tmpfs_bytes = 0;  ///< 0: no limit but memory.
  uint32_t tmpfs_mode = 01777;
};

struct Rlimit {
  std::string name;  ///< `nofile`
  int64_t soft = 0;  ///< -1: unlimited
  int64_t hard = 0;
};

struct ProcessConfig {
  std::vector<std::string> arguments;    ///< argv; arguments[0] is looked up in PATH.
  std::vector<std::string> environment;  ///< `K=V`, in order.
  std::string working_directory = "/";   ///< Made if missing.
  std::string user;                 ///< `uid|name[:gid|group]`, resolved in the guest; "": root
  std::vector<std::string> groups;  ///< Supplementary, besides /etc/group.
  std::vector<std::string> capabilities;  ///< Full set, `CAP_CHOWN` form.
  std::vector<Rlimit> rlimits;
  bool terminal = false;
  uint16_t rows = 24;
  uint16_t columns = 80;
  bool stdin_open = false;  ///< Otherwise stdin is /dev/null.
  bool no_new_privileges = false;
  bool privileged = false;  ///< No masked or read-only paths.
};

struct HealthConfig {
  std::vector<std::string> test;  ///< argv; empty: no probe.
  int64_t interval_ns = 30'000'000'000;
  int64_t timeout_ns = 30'000'000'000;
  int64_t start_period_ns = 0;
  int64_t start_interval_ns = 5'000'000'000;
  uint32_t retries = 3;
};

/// Runs programs of another architecture than the machine's.
struct Emulator {
  std::string architecture;  ///< As in OCI images: `arm64`. Empty: none is needed.
  uint32_t partition = 0;    ///< Of the image disk: the program, and nothing else.
  uint64_t bytes = 0;        ///< Its size; the partition may be a little larger.
};

struct ContainerConfig {
  std::string id;
  std::string hostname;
  std::string domainname;
  int64_t wall_ns = 0;      ///< The host's clock, set first.
  std::string entropy_hex;  ///< Fed and credited to the kernel's generator.
  std::vector<Interface> interfaces;
  std::string hosts;        ///< Content of /etc/hosts.
  std::string resolv_conf;  ///< Content of /etc/resolv.conf.
  /// Partitions of the image disk (1-based), lowest layer first. Partition 1 is the modules disk.
  std::vector<uint32_t> layers;
  Emulator emulator;
  bool read_only_root = false;
  std::vector<GuestMount> mounts;
  uint64_t shm_bytes = 64u << 20;
  double cpus = 0;            ///< cgroup quota; 0: none.
  uint64_t memory_bytes = 0;  ///< cgroup limit; 0: none.
  int64_t pids_limit = 0;     ///< 0 and -1: none.
  std::map<std::string, std::string> sysctls;
  bool init = false;  ///< A reaper of ours as PID 1 of the container.
  /// A build machine: `process` is not run, mounts are seen by the steps that ask for them.
  bool build = false;
  bool trace = false;  ///< The answer tells what took how long.
  /// Nobody's container, made so that the way to one is known; ends with POST /v1/rehearsal.
  bool rehearsal = false;
  ProcessConfig process;
  HealthConfig health;
};

struct ExecConfig {
  std::string id;
  ProcessConfig process;
};

enum class StepMountKind { Tree, Share, Tmpfs, Secret, Socket };

struct StepMount {
  StepMountKind kind = StepMountKind::Tmpfs;
  std::string source;       ///< Tree: its name. Share: target of a mount of the ContainerConfig.
  std::string source_path;  ///< Tree: path inside it; "": its root.
  std::string target;       ///< Absolute, in the step's root; made for the step if missing.
  bool read_only = false;   ///< Tree: otherwise writes go to a layer that is thrown away.
  uint64_t tmpfs_bytes = 0;
  uint32_t mode = 0400;  ///< Secret, Socket.
  uint32_t user = 0;
  uint32_t group = 0;
  std::string content;  ///< Secret: any bytes; hex digits on the wire.
};

/// One step of a build machine.
struct StepConfig {
  std::string id;  ///< `[a-z0-9-]+`; also the name of the layer it leaves.
  ProcessConfig process;
  bool network = true;  ///< false: nothing but a loopback of its own.
  std::vector<StepMount> mounts;
  std::string hostname;                  ///< Empty: the machine's.
  std::vector<std::string> extra_hosts;  ///< `name=address`
};

enum class EventKind { Started, Exited, Health, OutOfMemory };
enum class HealthStatus { None, Starting, Healthy, Unhealthy };

struct Event {
  uint64_t sequence = 0;  ///< From 1, without gaps, for the life of the VM.
  EventKind kind = EventKind::Started;
  std::string process;    ///< `main` or an exec id.
  int32_t exit_code = 0;  ///< 128+n after signal n.
  int32_t signal = 0;
  uint64_t output_bytes = 0;  ///< Exited: length of the whole combined output.
  int64_t wall_ns = 0;
  HealthStatus health = HealthStatus::None;
  std::string detail;  ///< Health: end of the probe's output, at most 4 KiB.
};

struct ProcessState {
  std::string id;
  bool running = false;
  int32_t exit_code = 0;
  uint64_t output_bytes = 0;
  uint64_t acknowledged_bytes = 0;
};

struct AgentState {
  int version = protocol_version;
  std::string boot_id;  ///< Empty until configured.
  bool configured = false;
  bool build = false;            ///< A build machine.
  int64_t boot_to_ready_ns = 0;  ///< CLOCK_BOOTTIME when the agent first listened.
  int64_t wall_ns = 0;           ///< What its clock shows.
  uint64_t last_event = 0;
  std::vector<ProcessState> processes;
};

struct NetworkStatistics {
  std::string interface;
  uint64_t received_bytes = 0;
  uint64_t received_packets = 0;
  uint64_t sent_bytes = 0;
  uint64_t sent_packets = 0;
};

/// Counters of the container's cgroup, and of the VM's interfaces (`lo` left out).
struct Statistics {
  uint64_t cpu_usage_ns = 0;
  uint64_t cpu_user_ns = 0;
  uint64_t cpu_system_ns = 0;
  uint32_t cpus = 0;  ///< Virtual processors online.
  uint64_t memory_bytes = 0;
  uint64_t memory_cache_bytes = 0;  ///< Part of memory_bytes the kernel could give back.
  uint64_t memory_limit_bytes = 0;  ///< The smaller of the cgroup's limit and the VM's memory.
  uint64_t processes = 0;
  uint64_t read_bytes = 0;
  uint64_t written_bytes = 0;
  std::vector<NetworkStatistics> networks;
};

nlohmann::json to_json(const ContainerConfig& config);
nlohmann::json to_json(const ExecConfig& config);
nlohmann::json to_json(const StepConfig& config);
nlohmann::json to_json(const HealthConfig& config);
nlohmann::json to_json(const Event& event);
nlohmann::json to_json(const AgentState& state);
nlohmann::json to_json(const Statistics& statistics);
base::Result<ContainerConfig> container_config_from_json(const nlohmann::json& json);
base::Result<ExecConfig> exec_config_from_json(const nlohmann::json& json);
base::Result<StepConfig> step_config_from_json(const nlohmann::json& json);
base::Result<HealthConfig> health_config_from_json(const nlohmann::json& json);
base::Result<Event> event_from_json(const nlohmann::json& json);
base::Result<AgentState> agent_state_from_json(const nlohmann::json& json);
base::Result<Statistics> statistics_from_json(const nlohmann::json& json);

}  // namespace guest
