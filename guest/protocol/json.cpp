#include <array>
#include <concepts>
#include <utility>

#include <nlohmann/json.hpp>

#include "guest/protocol/protocol.h"

namespace guest {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;

// ---- names of enumerators ----

template <class T>
struct Named {
  T value;
  std::string_view name;
};

constexpr std::array mount_kinds = {Named<MountKind>{MountKind::Share, "share"},
                                    Named<MountKind>{MountKind::Tmpfs, "tmpfs"}};
constexpr std::array step_mount_kinds = {Named<StepMountKind>{StepMountKind::Tree, "tree"},
                                         Named<StepMountKind>{StepMountKind::Share, "share"},
                                         Named<StepMountKind>{StepMountKind::Tmpfs, "tmpfs"},
                                         Named<StepMountKind>{StepMountKind::Secret, "secret"},
                                         Named<StepMountKind>{StepMountKind::Socket, "socket"}};
constexpr std::array event_kinds = {Named<EventKind>{EventKind::Started, "started"},
                                    Named<EventKind>{EventKind::Exited, "exited"},
                                    Named<EventKind>{EventKind::Health, "health"},
                                    Named<EventKind>{EventKind::OutOfMemory, "out-of-memory"}};
constexpr std::array health_statuses = {Named<HealthStatus>{HealthStatus::None, "none"},
                                        Named<HealthStatus>{HealthStatus::Starting, "starting"},
                                        Named<HealthStatus>{HealthStatus::Healthy, "healthy"},
                                        Named<HealthStatus>{HealthStatus::Unhealthy, "unhealthy"}};

template <class Names, class T>
std::string name_of(const Names& names, T value) {
  for (const auto& named : names)
    if (named.value == value) return std::string(named.name);
  return {};
}

// ---- reading: an absent member keeps its default, a wrong type is an error that names it ----

Result<> read_value(const json& value, const char* key, std::string& out) {
  if (!value.is_string()) return fail(ErrorCode::InvalidArgument, "'{}' must be a text", key);
  out = value.get<std::string>();
  // Every text ends up in a system call, which would silently stop at the zero.
  if (out.find('\0') != std::string::npos)
    return fail(ErrorCode::InvalidArgument, "'{}' contains a zero byte", key);
  return {};
}

Result<> read_value(const json& value, const char* key, bool& out) {
  if (!value.is_boolean())
    return fail(ErrorCode::InvalidArgument, "'{}' must be true or false", key);
  out = value.get<bool>();
  return {};
}

Result<> read_value(const json& value, const char* key, double& out) {
  if (!value.is_number()) return fail(ErrorCode::InvalidArgument, "'{}' must be a number", key);
  out = value.get<double>();
  return {};
}

template <std::integral T>
Result<> read_value(const json& value, const char* key, T& out) {
  if (!value.is_number_integer())
    return fail(ErrorCode::InvalidArgument, "'{}' must be a whole number", key);
  const bool fits = value.is_number_unsigned() ? std::in_range<T>(value.get<uint64_t>())
                                               : std::in_range<T>(value.get<int64_t>());
  if (!fits) return fail(ErrorCode::InvalidArgument, "'{}' is out of range", key);
  out = value.is_number_unsigned() ? static_cast<T>(value.get<uint64_t>())
                                   : static_cast<T>(value.get<int64_t>());
  return {};
}

template <class T>
Result<> read(const json& object, const char* key, T& out);

Result<> read_value(const json& value, const char* key, Interface& out);
Result<> read_value(const json& value, const char* key, GuestMount& out);
Result<> read_value(const json& value, const char* key, StepMount& out);
Result<> read_value(const json& value, const char* key, Emulator& out);
Result<> read_value(const json& value, const char* key, Rlimit& out);
Result<> read_value(const json& value, const char* key, ProcessConfig& out);
Result<> read_value(const json& value, const char* key, HealthConfig& out);
Result<> read_value(const json& value, const char* key, ProcessState& out);
Result<> read_value(const json& value, const char* key, NetworkStatistics& out);

template <class T>
Result<> read_value(const json& value, const char* key, std::vector<T>& out) {
  if (!value.is_array()) return fail(ErrorCode::InvalidArgument, "'{}' must be a list", key);
  out.clear();
  out.reserve(value.size());
  for (const json& item : value) {
    T read_item{};
    TRY(read_value(item, key, read_item));
    out.push_back(std::move(read_item));
  }
  return {};
}

Result<> read_value(const json& value, const char* key, std::map<std::string, std::string>& out) {
  if (!value.is_object()) return fail(ErrorCode::InvalidArgument, "'{}' must be an object", key);
  out.clear();
  for (const auto& [name, text] : value.items()) TRY(read_value(text, key, out[name]));
  return {};
}

template <class T>
Result<> read(const json& object, const char* key, T& out) {
  const auto member = object.find(key);
  if (member == object.end() || member->is_null()) return {};
  return read_value(*member, key, out);
}

template <class Names, class T>
Result<> read_name(const json& object, const char* key, const Names& names, T& out) {
  std::string text = name_of(names, out);
  TRY(read(object, key, text));
  for (const auto& named : names) {
    if (named.name != text) continue;
    out = named.value;
    return {};
  }
  return fail(ErrorCode::InvalidArgument, "'{}' cannot be '{}'", key, text);
}

Result<> must_be_object(const json& value, const char* key) {
  if (!value.is_object()) return fail(ErrorCode::InvalidArgument, "'{}' must be an object", key);
  return {};
}

Result<> read_value(const json& value, const char* key, Interface& out) {
  TRY(must_be_object(value, key));
  TRY(read(value, "mac", out.mac));
  TRY(read(value, "mtu", out.mtu));
  TRY(read(value, "addresses", out.addresses));
  TRY(read(value, "gateway", out.gateway));
  return read(value, "name", out.name);
}

Result<> read_value(const json& value, const char* key, GuestMount& out) {
  TRY(must_be_object(value, key));
  TRY(read_name(value, "kind", mount_kinds, out.kind));
  TRY(read(value, "source", out.source));
  TRY(read(value, "target", out.target));
  TRY(read(value, "read_only", out.read_only));
  TRY(read(value, "populate", out.populate));
  TRY(read(value, "tmpfs_bytes", out.tmpfs_bytes));
  return read(value, "tmpfs_mode", out.tmpfs_mode);
}

Result<> read_value(const json& value, const char* key, Emulator& out) {
  TRY(must_be_object(value, key));
  TRY(read(value, "architecture", out.architecture));
  TRY(read(value, "partition", out.partition));
  return read(value, "bytes", out.bytes);
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

Result<> read_hex(const json& object, const char* key, std::string& out) {
  std::string digits;
  TRY(read(object, key, digits));
  out.clear();
  for (size_t i = 0; i + 1 < digits.size(); i += 2) {
    const int high = digit_of(digits[i]), low = digit_of(digits[i + 1]);
    if (high < 0 || low < 0) break;
    out += static_cast<char>(high * 16 + low);
  }
  if (2 * out.size() == digits.size()) return {};
  return fail(ErrorCode::InvalidArgument, "'{}' must be pairs of hex digits", key);
}

std::string hex_of(const std::string& bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char c : bytes) {
    text += digits[static_cast<unsigned char>(c) >> 4];
    text += digits[static_cast<unsigned char>(c) & 15];
  }
  return text;
}

Result<> read_value(const json& value, const char* key, StepMount& out) {
  TRY(must_be_object(value, key));
  TRY(read_name(value, "kind", step_mount_kinds, out.kind));
  TRY(read(value, "source", out.source));
  TRY(read(value, "source_path", out.source_path));
  TRY(read(value, "target", out.target));
  TRY(read(value, "read_only", out.read_only));
  TRY(read(value, "tmpfs_bytes", out.tmpfs_bytes));
  TRY(read(value, "mode", out.mode));
  TRY(read(value, "user", out.user));
  TRY(read(value, "group", out.group));
  return read_hex(value, "content", out.content);
}

Result<> read_value(const json& value, const char* key, Rlimit& out) {
  TRY(must_be_object(value, key));
  TRY(read(value, "name", out.name));
  TRY(read(value, "soft", out.soft));
  return read(value, "hard", out.hard);
}

Result<> read_value(const json& value, const char* key, ProcessConfig& out) {
  TRY(must_be_object(value, key));
  TRY(read(value, "arguments", out.arguments));
  TRY(read(value, "environment", out.environment));
  TRY(read(value, "working_directory", out.working_directory));
  TRY(read(value, "user", out.user));
  TRY(read(value, "groups", out.groups));
  TRY(read(value, "capabilities", out.capabilities));
  TRY(read(value, "rlimits", out.rlimits));
  TRY(read(value, "terminal", out.terminal));
  TRY(read(value, "rows", out.rows));
  TRY(read(value, "columns", out.columns));
  TRY(read(value, "stdin_open", out.stdin_open));
  TRY(read(value, "no_new_privileges", out.no_new_privileges));
  return read(value, "privileged", out.privileged);
}

Result<> read_value(const json& value, const char* key, HealthConfig& out) {
  TRY(must_be_object(value, key));
  TRY(read(value, "test", out.test));
  TRY(read(value, "interval_ns", out.interval_ns));
  TRY(read(value, "timeout_ns", out.timeout_ns));
  TRY(read(value, "start_period_ns", out.start_period_ns));
  TRY(read(value, "start_interval_ns", out.start_interval_ns));
  return read(value, "retries", out.retries);
}

Result<> read_value(const json& value, const char* key, ProcessState& out) {
  TRY(must_be_object(value, key));
  TRY(read(value, "id", out.id));
  TRY(read(value, "running", out.running));
  TRY(read(value, "exit_code", out.exit_code));
  TRY(read(value, "output_bytes", out.output_bytes));
  return read(value, "acknowledged_bytes", out.acknowledged_bytes);
}

Result<> read_value(const json& value, const char* key, NetworkStatistics& out) {
  TRY(must_be_object(value, key));
  TRY(read(value, "interface", out.interface));
  TRY(read(value, "received_bytes", out.received_bytes));
  TRY(read(value, "received_packets", out.received_packets));
  TRY(read(value, "sent_bytes", out.sent_bytes));
  return read(value, "sent_packets", out.sent_packets);
}

// ---- writing ----

json item_to_json(const Interface& value);
json item_to_json(const GuestMount& value);
json item_to_json(const StepMount& value);
json item_to_json(const Rlimit& value);
json item_to_json(const ProcessState& value);
json item_to_json(const NetworkStatistics& value);

json item_to_json(const Interface& value) {
  return {{"mac", value.mac},
          {"mtu", value.mtu},
          {"addresses", value.addresses},
          {"gateway", value.gateway},
          {"name", value.name}};
}

json item_to_json(const GuestMount& value) {
  return {{"kind", name_of(mount_kinds, value.kind)},
          {"source", value.source},
          {"target", value.target},
          {"read_only", value.read_only},
          {"populate", value.populate},
          {"tmpfs_bytes", value.tmpfs_bytes},
          {"tmpfs_mode", value.tmpfs_mode}};
}

json item_to_json(const StepMount& value) {
  return {{"kind", name_of(step_mount_kinds, value.kind)},
          {"source", value.source},
          {"source_path", value.source_path},
          {"target", value.target},
          {"read_only", value.read_only},
          {"tmpfs_bytes", value.tmpfs_bytes},
          {"mode", value.mode},
          {"user", value.user},
          {"group", value.group},
          {"content", hex_of(value.content)}};
}

json item_to_json(const Rlimit& value) {
  return {{"name", value.name}, {"soft", value.soft}, {"hard", value.hard}};
}

json item_to_json(const ProcessState& value) {
  return {{"id", value.id},
          {"running", value.running},
          {"exit_code", value.exit_code},
          {"output_bytes", value.output_bytes},
          {"acknowledged_bytes", value.acknowledged_bytes}};
}

json item_to_json(const NetworkStatistics& value) {
  return {{"interface", value.interface},
          {"received_bytes", value.received_bytes},
          {"received_packets", value.received_packets},
          {"sent_bytes", value.sent_bytes},
          {"sent_packets", value.sent_packets}};
}

template <class T>
json list(const std::vector<T>& items) {
  json made = json::array();
  for (const T& item : items) made.push_back(item_to_json(item));
  return made;
}

json process_to_json(const ProcessConfig& value) {
  return {{"arguments", value.arguments},
          {"environment", value.environment},
          {"working_directory", value.working_directory},
          {"user", value.user},
          {"groups", value.groups},
          {"capabilities", value.capabilities},
          {"rlimits", list(value.rlimits)},
          {"terminal", value.terminal},
          {"rows", value.rows},
          {"columns", value.columns},
          {"stdin_open", value.stdin_open},
          {"no_new_privileges", value.no_new_privileges},
          {"privileged", value.privileged}};
}

}  // namespace

std::string unconfigured_mac(size_t index) { return fmt::format("02:00:00:00:00:{:02x}", index); }

json to_json(const HealthConfig& config) {
  return {{"test", config.test},
          {"interval_ns", config.interval_ns},
          {"timeout_ns", config.timeout_ns},
          {"start_period_ns", config.start_period_ns},
          {"start_interval_ns", config.start_interval_ns},
          {"retries", config.retries}};
}

json to_json(const ContainerConfig& config) {
  return {{"id", config.id},
          {"hostname", config.hostname},
          {"domainname", config.domainname},
          {"wall_ns", config.wall_ns},
          {"entropy_hex", config.entropy_hex},
          {"interfaces", list(config.interfaces)},
          {"hosts", config.hosts},
          {"resolv_conf", config.resolv_conf},
          {"layers", config.layers},
          {"emulator",
           {{"architecture", config.emulator.architecture},
            {"partition", config.emulator.partition},
            {"bytes", config.emulator.bytes}}},
          {"read_only_root", config.read_only_root},
          {"mounts", list(config.mounts)},
          {"shm_bytes", config.shm_bytes},
          {"cpus", config.cpus},
          {"memory_bytes", config.memory_bytes},
          {"pids_limit", config.pids_limit},
          {"sysctls", config.sysctls},
          {"init", config.init},
          {"build", config.build},
          {"trace", config.trace},
          {"rehearsal", config.rehearsal},
          {"process", process_to_json(config.process)},
          {"health", to_json(config.health)}};
}

json to_json(const ExecConfig& config) {
  return {{"id", config.id}, {"process", process_to_json(config.process)}};
}

json to_json(const StepConfig& config) {
  return {{"id", config.id},
          {"process", process_to_json(config.process)},
          {"network", config.network},
          {"mounts", list(config.mounts)},
          {"hostname", config.hostname},
          {"extra_hosts", config.extra_hosts}};
}

json to_json(const Event& event) {
  return {{"sequence", event.sequence}, {"kind", name_of(event_kinds, event.kind)},
          {"process", event.process},   {"exit_code", event.exit_code},
          {"signal", event.signal},     {"output_bytes", event.output_bytes},
          {"wall_ns", event.wall_ns},   {"health", name_of(health_statuses, event.health)},
          {"detail", event.detail}};
}

json to_json(const AgentState& state) {
  return {{"version", state.version},
          {"boot_id", state.boot_id},
          {"configured", state.configured},
          {"build", state.build},
          {"boot_to_ready_ns", state.boot_to_ready_ns},
          {"wall_ns", state.wall_ns},
          {"last_event", state.last_event},
          {"processes", list(state.processes)}};
}

json to_json(const Statistics& statistics) {
  return {{"cpu_usage_ns", statistics.cpu_usage_ns},
          {"cpu_user_ns", statistics.cpu_user_ns},
          {"cpu_system_ns", statistics.cpu_system_ns},
          {"cpus", statistics.cpus},
          {"memory_bytes", statistics.memory_bytes},
          {"memory_cache_bytes", statistics.memory_cache_bytes},
          {"memory_limit_bytes", statistics.memory_limit_bytes},
          {"processes", statistics.processes},
          {"read_bytes", statistics.read_bytes},
          {"written_bytes", statistics.written_bytes},
          {"networks", list(statistics.networks)}};
}

Result<ContainerConfig> container_config_from_json(const json& object) {
  TRY(must_be_object(object, "container"));
  ContainerConfig config;
  TRY(read(object, "id", config.id));
  TRY(read(object, "hostname", config.hostname));
  TRY(read(object, "domainname", config.domainname));
  TRY(read(object, "wall_ns", config.wall_ns));
  TRY(read(object, "entropy_hex", config.entropy_hex));
  TRY(read(object, "interfaces", config.interfaces));
  TRY(read(object, "hosts", config.hosts));
  TRY(read(object, "resolv_conf", config.resolv_conf));
  TRY(read(object, "layers", config.layers));
  TRY(read(object, "emulator", config.emulator));
  TRY(read(object, "read_only_root", config.read_only_root));
  TRY(read(object, "mounts", config.mounts));
  TRY(read(object, "shm_bytes", config.shm_bytes));
  TRY(read(object, "cpus", config.cpus));
  TRY(read(object, "memory_bytes", config.memory_bytes));
  TRY(read(object, "pids_limit", config.pids_limit));
  TRY(read(object, "sysctls", config.sysctls));
  TRY(read(object, "init", config.init));
  TRY(read(object, "build", config.build));
  TRY(read(object, "trace", config.trace));
  TRY(read(object, "rehearsal", config.rehearsal));
  TRY(read(object, "process", config.process));
  TRY(read(object, "health", config.health));
  return config;
}

Result<ExecConfig> exec_config_from_json(const json& object) {
  TRY(must_be_object(object, "exec"));
  ExecConfig config;
  TRY(read(object, "id", config.id));
  TRY(read(object, "process", config.process));
  return config;
}

Result<StepConfig> step_config_from_json(const json& object) {
  TRY(must_be_object(object, "step"));
  StepConfig config;
  TRY(read(object, "id", config.id));
  TRY(read(object, "process", config.process));
  TRY(read(object, "network", config.network));
  TRY(read(object, "mounts", config.mounts));
  TRY(read(object, "hostname", config.hostname));
  TRY(read(object, "extra_hosts", config.extra_hosts));
  return config;
}

Result<HealthConfig> health_config_from_json(const json& object) {
  HealthConfig config;
  TRY(read_value(object, "health", config));
  return config;
}

Result<Event> event_from_json(const json& object) {
  TRY(must_be_object(object, "event"));
  Event event;
  TRY(read(object, "sequence", event.sequence));
  TRY(read_name(object, "kind", event_kinds, event.kind));
  TRY(read(object, "process", event.process));
  TRY(read(object, "exit_code", event.exit_code));
  TRY(read(object, "signal", event.signal));
  TRY(read(object, "output_bytes", event.output_bytes));
  TRY(read(object, "wall_ns", event.wall_ns));
  TRY(read_name(object, "health", health_statuses, event.health));
  TRY(read(object, "detail", event.detail));
  return event;
}

Result<AgentState> agent_state_from_json(const json& object) {
  TRY(must_be_object(object, "state"));
  AgentState state;
  TRY(read(object, "version", state.version));
  TRY(read(object, "boot_id", state.boot_id));
  TRY(read(object, "configured", state.configured));
  TRY(read(object, "build", state.build));
  TRY(read(object, "boot_to_ready_ns", state.boot_to_ready_ns));
  TRY(read(object, "wall_ns", state.wall_ns));
  TRY(read(object, "last_event", state.last_event));
  TRY(read(object, "processes", state.processes));
  return state;
}

Result<Statistics> statistics_from_json(const json& object) {
  TRY(must_be_object(object, "statistics"));
  Statistics statistics;
  TRY(read(object, "cpu_usage_ns", statistics.cpu_usage_ns));
  TRY(read(object, "cpu_user_ns", statistics.cpu_user_ns));
  TRY(read(object, "cpu_system_ns", statistics.cpu_system_ns));
  TRY(read(object, "cpus", statistics.cpus));
  TRY(read(object, "memory_bytes", statistics.memory_bytes));
  TRY(read(object, "memory_cache_bytes", statistics.memory_cache_bytes));
  TRY(read(object, "memory_limit_bytes", statistics.memory_limit_bytes));
  TRY(read(object, "processes", statistics.processes));
  TRY(read(object, "read_bytes", statistics.read_bytes));
  TRY(read(object, "written_bytes", statistics.written_bytes));
  TRY(read(object, "networks", statistics.networks));
  return statistics;
}

}  // namespace guest
