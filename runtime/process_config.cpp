#include "runtime/process_config.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <optional>
#include <set>

#include <csignal>
#include <cstring>

#include "base/text.h"

namespace runtime {

using base::ErrorCode;
using base::fail;
using base::Result;

namespace {

constexpr std::string_view default_path =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// By number; what the kernel of the guest knows.
constexpr std::array<std::string_view, 41> capability_names = {"CHOWN",
                                                               "DAC_OVERRIDE",
                                                               "DAC_READ_SEARCH",
                                                               "FOWNER",
                                                               "FSETID",
                                                               "KILL",
                                                               "SETGID",
                                                               "SETUID",
                                                               "SETPCAP",
                                                               "LINUX_IMMUTABLE",
                                                               "NET_BIND_SERVICE",
                                                               "NET_BROADCAST",
                                                               "NET_ADMIN",
                                                               "NET_RAW",
                                                               "IPC_LOCK",
                                                               "IPC_OWNER",
                                                               "SYS_MODULE",
                                                               "SYS_RAWIO",
                                                               "SYS_CHROOT",
                                                               "SYS_PTRACE",
                                                               "SYS_PACCT",
                                                               "SYS_ADMIN",
                                                               "SYS_BOOT",
                                                               "SYS_NICE",
                                                               "SYS_RESOURCE",
                                                               "SYS_TIME",
                                                               "SYS_TTY_CONFIG",
                                                               "MKNOD",
                                                               "LEASE",
                                                               "AUDIT_WRITE",
                                                               "AUDIT_CONTROL",
                                                               "SETFCAP",
                                                               "MAC_OVERRIDE",
                                                               "MAC_ADMIN",
                                                               "SYSLOG",
                                                               "WAKE_ALARM",
                                                               "BLOCK_SUSPEND",
                                                               "AUDIT_READ",
                                                               "PERFMON",
                                                               "BPF",
                                                               "CHECKPOINT_RESTORE"};

constexpr std::array<std::string_view, 14> default_capabilities = {
    "AUDIT_WRITE",      "CHOWN",   "DAC_OVERRIDE", "FOWNER", "FSETID",  "KILL",   "MKNOD",
    "NET_BIND_SERVICE", "NET_RAW", "SETFCAP",      "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"};

/// `cap_net_admin`, `NET_ADMIN`: upper case, without the prefix; checked against the list.
Result<std::string> capability(std::string_view written) {
  std::string name(written);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  if (name.starts_with("CAP_")) name.erase(0, 4);
  const bool known = name == "ALL" || std::find(capability_names.begin(), capability_names.end(),
                                                name) != capability_names.end();
  if (!known)
    return fail(ErrorCode::InvalidArgument, "there is no capability '{}'; see capabilities(7)",
                base::escape_controls(written));
  return name;
}

std::string_view variable_name(std::string_view assignment) {
  return assignment.substr(0, assignment.find('='));
}

/// Keeps the place of a variable that is set again.
void set_variable(std::vector<std::string>& environment, std::string assignment) {
  const std::string_view name = variable_name(assignment);
  for (std::string& present : environment) {
    if (variable_name(present) != name) continue;
    present = std::move(assignment);
    return;
  }
  environment.push_back(std::move(assignment));
}

bool has_variable(const std::vector<std::string>& environment, std::string_view name) {
  return std::any_of(environment.begin(), environment.end(),
                     [&](const std::string& one) { return variable_name(one) == name; });
}

template <class T>
std::optional<T> first_of(const std::optional<T>& one, const std::optional<T>& other) {
  return one ? one : other;
}

std::vector<guest::Interface> interfaces(const std::vector<reconciler::NetworkLease>& leases) {
  std::vector<guest::Interface> result;
  for (const reconciler::NetworkLease& lease : leases)
    result.push_back({.mac = lease.mac,
                      .mtu = lease.mtu,
                      .addresses = {lease.address},
                      .gateway = lease.gateway,
                      .name = fmt::format("eth{}", result.size())});
  return result;
}

std::vector<guest::GuestMount> mounts(const reconciler::ContainerSetup& setup) {
  std::vector<guest::GuestMount> result;
  for (size_t i = 0; i < setup.shares.size(); ++i) {
    const reconciler::ShareSource& share = setup.shares[i];
    result.push_back({.kind = guest::MountKind::Share,
                      .source = fmt::format("share{}", i),
                      .target = share.target,
                      .read_only = share.read_only,
                      .populate = share.populate});
  }
  for (const spec::Mount& mount : setup.service.volumes) {
    if (mount.type != spec::MountType::Tmpfs) continue;
    result.push_back({.kind = guest::MountKind::Tmpfs,
                      .source = {},
                      .target = mount.target,
                      .read_only = mount.read_only,
                      .tmpfs_bytes = mount.tmpfs_bytes.value_or(0),
                      .tmpfs_mode = mount.tmpfs_mode.value_or(01777)});
  }
  return result;
}

std::vector<guest::Rlimit> resource_limits(const spec::Service& service) {
  std::vector<guest::Rlimit> limits;
  for (const auto& [name, limit] : service.ulimits)
    limits.push_back({.name = name, .soft = limit.soft, .hard = limit.hard});
  return limits;
}

}  // namespace

Result<std::vector<std::string>> process_arguments(const reconciler::ImageRuntimeConfig& image,
                                                   const spec::Service& service) {
  std::vector<std::string> arguments = service.entrypoint.value_or(image.entrypoint);
  const std::vector<std::string> none;
  const std::vector<std::string>& command =
      service.command ? *service.command : (service.entrypoint ? none : image.command);
  arguments.insert(arguments.end(), command.begin(), command.end());
  if (arguments.empty())
    return fail(ErrorCode::InvalidArgument,
                "the image '{}' names no command, and none was given: say what to run",
                image.reference);
  return arguments;
}

std::vector<std::string> process_environment(const reconciler::ImageRuntimeConfig& image,
                                             const spec::Service& service) {
  std::vector<std::string> environment;
  for (const std::string& assignment : image.environment)
    if (assignment.find('=') != std::string::npos) set_variable(environment, assignment);
  for (const auto& [name, value] : service.environment) {
    if (value)
      set_variable(environment, name + "=" + *value);
    else
      std::erase_if(environment,
                    [&](const std::string& one) { return variable_name(one) == name; });
  }
  if (!has_variable(environment, "PATH")) environment.emplace_back(default_path);
  if (service.tty && !has_variable(environment, "TERM")) environment.emplace_back("TERM=xterm");
  return environment;
}

Result<std::vector<std::string>> process_capabilities(const spec::Service& service) {
  std::set<std::string> wanted(default_capabilities.begin(), default_capabilities.end());
  const std::set<std::string> all(capability_names.begin(), capability_names.end());
  std::set<std::string> dropped;
  for (const std::string& written : service.cap_drop) {
    const std::string name = TRY(capability(written));
    if (name == "ALL")
      wanted.clear();
    else
      dropped.insert(name);
  }
  for (const std::string& written : service.cap_add) {
    const std::string name = TRY(capability(written));
    if (name == "ALL")
      wanted = all;
    else
      wanted.insert(name);
  }
  for (const std::string& name : dropped) wanted.erase(name);
  if (service.privileged) wanted = all;
  std::vector<std::string> result;
  for (const std::string& name : wanted) result.push_back("CAP_" + name);
  return result;
}

Result<guest::ProcessConfig> process_config(const reconciler::ImageRuntimeConfig& image,
                                            const spec::Service& service, uint16_t rows,
                                            uint16_t columns) {
  guest::ProcessConfig config;
  config.arguments = TRY(process_arguments(image, service));
  config.environment = process_environment(image, service);
  config.working_directory = service.working_dir.value_or(image.working_dir);
  if (config.working_directory.empty()) config.working_directory.assign(1, '/');
  config.user = service.user.value_or(image.user);
  config.groups = service.group_add;
  config.capabilities = TRY(process_capabilities(service));
  config.rlimits = resource_limits(service);
  config.terminal = service.tty;
  config.rows = rows;
  config.columns = columns;
  config.stdin_open = service.stdin_open;
  config.privileged = service.privileged;
  return config;
}

guest::HealthConfig health_config(const reconciler::ImageRuntimeConfig& image,
                                  const spec::Service& service) {
  const spec::HealthCheck own = service.healthcheck.value_or(spec::HealthCheck{});
  const spec::HealthCheck& base = image.healthcheck;
  guest::HealthConfig config;
  const bool replaced = !own.test.empty();
  config.test = replaced ? own.test : base.test;
  // A test of NONE, or `disable`, of the service wins over the image; the image's own NONE counts
  // only if the service brings no test.
  if (own.disable || (!replaced && base.disable)) config.test.clear();
  if (config.test.size() == 1 && config.test[0] == "NONE") config.test.clear();
  const auto set = [](auto& target, const auto& one, const auto& other) {
    if (const auto value = first_of(one, other)) target = *value;
  };
  set(config.interval_ns, own.interval_ns, base.interval_ns);
  set(config.timeout_ns, own.timeout_ns, base.timeout_ns);
  set(config.start_period_ns, own.start_period_ns, base.start_period_ns);
  set(config.start_interval_ns, own.start_interval_ns, base.start_interval_ns);
  set(config.retries, own.retries, base.retries);
  return config;
}

guest::ProcessConfig exec_process_config(const guest::ProcessConfig& main,
                                         const reconciler::ExecRequest& request) {
  guest::ProcessConfig config = main;
  config.arguments = request.arguments;
  for (const std::string& assignment : request.environment) {
    if (assignment.find('=') != std::string::npos) set_variable(config.environment, assignment);
  }
  if (request.terminal && !has_variable(config.environment, "TERM"))
    config.environment.emplace_back("TERM=xterm");
  if (request.working_dir) config.working_directory = *request.working_dir;
  if (request.user) config.user = *request.user;
  config.terminal = request.terminal;
  config.stdin_open = request.stdin_open;
  config.rows = request.rows;
  config.columns = request.columns;
  return config;
}

Result<guest::ContainerConfig> container_config(const reconciler::StartRequest& request) {
  const reconciler::ContainerSetup& setup = request.setup;
  const spec::Service& service = setup.service;
  guest::ContainerConfig config;
  config.id = setup.id;
  config.hostname = service.hostname.value_or(setup.id);
  config.domainname = service.domainname.value_or("");
  config.interfaces = interfaces(request.leases);
  config.hosts = request.hosts;
  config.resolv_conf = request.resolv_conf;
  for (uint32_t i = 0; i < setup.image.layer_disks.size(); ++i) config.layers.push_back(i + 2);
  config.read_only_root = service.read_only;
  config.mounts = mounts(setup);
  if (service.shm_bytes) config.shm_bytes = *service.shm_bytes;
  config.cpus = service.cpus.value_or(0);
  config.memory_bytes = service.memory_bytes.value_or(0);
  config.pids_limit = service.pids_limit.value_or(0);
  config.sysctls = service.sysctls;
  config.init = service.init;
  config.build = service.build_machine;
  if (config.build) {  // No program of the image runs but in its steps, which have its limits.
    config.process.rlimits = resource_limits(service);
    return config;
  }
  config.process = TRY(process_config(setup.image, service, request.rows, request.columns));
  config.health = health_config(setup.image, service);
  return config;
}

Result<int> signal_number(std::string_view name) {
  int number = 0;
  const auto parsed = std::from_chars(name.data(), name.data() + name.size(), number);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == name.data() + name.size();
  if (whole && number > 0 && number <= SIGRTMAX) return number;
  std::string_view bare = name;
  if (bare.starts_with("SIG")) bare.remove_prefix(3);
  for (int candidate = 1; candidate < 32; ++candidate) {
    const char* known = ::sigabbrev_np(candidate);
    if (known != nullptr && bare == known) return candidate;
  }
  if (bare.starts_with("RTMIN+")) {
    const std::string offset(bare.substr(6));
    int plus = 0;
    const auto rest = std::from_chars(offset.data(), offset.data() + offset.size(), plus);
    // 34 is the first real-time signal a container's C library leaves free.
    if (rest.ec == std::errc() && plus >= 0 && plus <= 30) return 34 + plus;
  }
  return fail(ErrorCode::InvalidArgument, "there is no signal '{}'", base::escape_controls(name));
}

}  // namespace runtime
