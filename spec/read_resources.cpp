/// Readers of limits and rights, and of top-level networks and volumes.

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <limits>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/names.h"
#include "base/text.h"
#include "base/units.h"
#include "spec/readers.h"

namespace spec::readers {
namespace {

constexpr std::array capability_names = {"ALL",
                                         "AUDIT_CONTROL",
                                         "AUDIT_READ",
                                         "AUDIT_WRITE",
                                         "BLOCK_SUSPEND",
                                         "BPF",
                                         "CHECKPOINT_RESTORE",
                                         "CHOWN",
                                         "DAC_OVERRIDE",
                                         "DAC_READ_SEARCH",
                                         "FOWNER",
                                         "FSETID",
                                         "IPC_LOCK",
                                         "IPC_OWNER",
                                         "KILL",
                                         "LEASE",
                                         "LINUX_IMMUTABLE",
                                         "MAC_ADMIN",
                                         "MAC_OVERRIDE",
                                         "MKNOD",
                                         "NET_ADMIN",
                                         "NET_BIND_SERVICE",
                                         "NET_BROADCAST",
                                         "NET_RAW",
                                         "PERFMON",
                                         "SETFCAP",
                                         "SETGID",
                                         "SETPCAP",
                                         "SETUID",
                                         "SYSLOG",
                                         "SYS_ADMIN",
                                         "SYS_BOOT",
                                         "SYS_CHROOT",
                                         "SYS_MODULE",
                                         "SYS_NICE",
                                         "SYS_PACCT",
                                         "SYS_PTRACE",
                                         "SYS_RAWIO",
                                         "SYS_RESOURCE",
                                         "SYS_TIME",
                                         "SYS_TTY_CONFIG",
                                         "WAKE_ALARM"};

constexpr std::array ulimit_names = {"core",    "cpu",      "data",   "fsize",      "locks",
                                     "memlock", "msgqueue", "nice",   "nofile",     "nproc",
                                     "rss",     "rtprio",   "rttime", "sigpending", "stack"};

template <size_t count>
bool is_one_of(const std::array<const char*, count>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

template <size_t count>
std::string suggestion(const std::array<const char*, count>& list, std::string_view word) {
  const auto nearest = base::did_you_mean(word, {list.begin(), list.end()});
  return nearest ? fmt::format("did you mean '{}'?", *nearest) : "";
}

/// `CAP_NET_ADMIN`, `net_admin` → `NET_ADMIN`; a set, so sorted and once each.
std::vector<std::string> capabilities(Reading& reading, const Node& node) {
  std::vector<std::string> result;
  for (size_t i = 0; i < node.children.size(); ++i) {
    const Node& item = node.children[i];
    std::string name = item.text;
    for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    if (name.starts_with("CAP_")) name.erase(0, 4);
    if (is_one_of(capability_names, name))
      result.push_back(std::move(name));
    else
      at_index(reading, i)
          .error(item, fmt::format("'{}' is not a capability", item.text),
                 "write for instance NET_ADMIN, or ALL", suggestion(capability_names, name));
  }
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

void read_flag(Reading& reading, const Node& node, bool& to) {
  to = boolean(reading, node).value_or(to);
}

constexpr int64_t ulimit_max = std::numeric_limits<int64_t>::max();

void read_ulimit(Reading& reading, const Node& node, Ulimit& limit) {
  if (node.is_scalar()) {
    limit.soft = limit.hard = integer(reading, node, -1, ulimit_max).value_or(0);
    return;
  }
  const Node* soft = node.find("soft");
  const Node* hard = node.find("hard");
  if (soft == nullptr || hard == nullptr)
    return reading.error(node, "needs both 'soft' and 'hard'",
                         "add the other one, or write one number for both");
  limit.soft = integer(reading, *soft, -1, ulimit_max).value_or(0);
  limit.hard = integer(reading, *hard, -1, ulimit_max).value_or(0);
  const bool too_soft = limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard);
  if (too_soft) reading.error(*soft, "the soft limit is above the hard limit", "lower it");
}

void read_subnet(Reading& reading, const Node& node) {
  if (const Node* subnet = node.find("subnet")) {
    if (is_ipv4_subnet(subnet->text))
      reading.network->subnet = subnet->text;
    else
      inside(reading, "subnet")
          .error(*subnet, fmt::format("'{}' is not a subnet", subnet->text),
                 "write an IPv4 network such as 10.1.0.0/24");
  }
  const Node* gateway = node.find("gateway");
  if (gateway == nullptr) return;
  const auto& subnet = reading.network->subnet;
  if (!is_ipv4(gateway->text) || !subnet || !subnet_contains(*subnet, gateway->text))
    return inside(reading, "gateway")
        .error(*gateway, fmt::format("'{}' is not an address of the subnet", gateway->text),
               "write an IPv4 address inside 'subnet'");
  reading.network->gateway = gateway->text;
}

}  // namespace

void cpus(Reading& reading, const Node& node) {
  double value = 0;
  const char* end = node.text.data() + node.text.size();
  const auto [last, error] = std::from_chars(node.text.data(), end, value);
  if (error != std::errc() || last != end || !(value > 0) ||
      value > base::limits::container_cpus_max)
    return reading.error(node, fmt::format("'{}' is not a number of processors", node.text),
                         fmt::format("write a number above 0, at most {}, such as 2 or 0.5",
                                     base::limits::container_cpus_max));
  reading.service().cpus = value;
}

void mem_limit(Reading& reading, const Node& node) {
  const auto value = bytes(reading, node);
  if (!value) return;
  if (*value < base::limits::container_memory_bytes_min)
    return reading.error(node, "too little memory for a VM",
                         fmt::format("write at least {}",
                                     base::format_bytes(base::limits::container_memory_bytes_min)));
  reading.service().memory_bytes = *value;
}

void pids_limit(Reading& reading, const Node& node) {
  const auto value = integer(reading, node, -1, std::numeric_limits<int32_t>::max());
  if (value && *value == 0)
    return reading.error(node, "no process could run", "write -1 for no limit");
  reading.service().pids_limit = value;
}

void shm_size(Reading& reading, const Node& node) {
  reading.service().shm_bytes = bytes(reading, node);
}

void cap_add(Reading& reading, const Node& node) {
  reading.service().cap_add = capabilities(reading, node);
}
void cap_drop(Reading& reading, const Node& node) {
  reading.service().cap_drop = capabilities(reading, node);
}

void privileged(Reading& reading, const Node& node) {
  read_flag(reading, node, reading.service().privileged);
}
void read_only(Reading& reading, const Node& node) {
  read_flag(reading, node, reading.service().read_only);
}
void init(Reading& reading, const Node& node) { read_flag(reading, node, reading.service().init); }
void stdin_open(Reading& reading, const Node& node) {
  read_flag(reading, node, reading.service().stdin_open);
}
void tty(Reading& reading, const Node& node) { read_flag(reading, node, reading.service().tty); }

void ulimits(Reading& reading, const Node& node) {
  for (const Node& child : node.children) {
    Reading inner = inside(reading, child.key);
    if (!is_one_of(ulimit_names, child.key))
      inner.error(child, fmt::format("'{}' is not a resource limit", child.key),
                  "write for instance nofile or nproc", suggestion(ulimit_names, child.key));
    else
      read_ulimit(inner, child, reading.service().ulimits[child.key]);
  }
}

void sysctls(Reading& reading, const Node& node) {
  for (const Pair& pair : pairs(reading, node)) {
    if (pair.value && !pair.value->empty() && pair.key.find("..") == std::string::npos)
      reading.service().sysctls[pair.key] = *pair.value;
    else
      inside(reading, pair.key)
          .error(*pair.node, "a kernel setting needs a name and a value",
                 "write for instance net.core.somaxconn: 512");
  }
}

void resource_name(Reading& reading, const Node& node) {
  const auto value = text(reading, node);
  if (!value) return;
  const auto outcome = reading.network != nullptr ? base::check_name("network", *value)
                                                  : base::check_volume_name(*value);
  if (!outcome) return reading.error(node, "not a valid name", outcome.error().to_string());
  (reading.network != nullptr ? reading.network->name : reading.volume->name) = *value;
}

/// `external: true`; the old form `external: {name: x}` names it as well.
void resource_external(Reading& reading, const Node& node) {
  bool& external =
      reading.network != nullptr ? reading.network->external : reading.volume->external;
  if (!node.is_map()) return read_flag(reading, node, external);
  external = true;
  if (const Node* name = node.find("name")) {
    Reading inner = inside(reading, "name");
    resource_name(inner, *name);
  }
}

void resource_labels(Reading& reading, const Node& node) {
  Labels& labels = reading.network != nullptr ? reading.network->labels : reading.volume->labels;
  for (Pair& pair : pairs(reading, node)) labels[pair.key] = pair.value.value_or("");
}

void network_driver(Reading& reading, const Node& node) {
  if (node.text == "bridge" || node.text == "default") return;
  reading.error(node, fmt::format("driver '{}' is not supported", node.text),
                "every network is a bridge of its own; remove the driver");
}

void network_internal(Reading& reading, const Node& node) {
  read_flag(reading, node, reading.network->internal);
}

void network_ipam(Reading& reading, const Node& node) {
  if (const Node* driver = node.find("driver"); driver != nullptr && driver->text != "default")
    inside(reading, "driver")
        .error(*driver, fmt::format("driver '{}' is not supported", driver->text),
               "remove it; addresses are given out by the network itself");
  const Node* config = node.find("config");
  if (config == nullptr) return;
  if (config->children.size() > 1)
    return inside(reading, "config")
        .error(config->children[1], "a network has one subnet", "remove the others");
  if (config->children.empty()) return;
  Reading inner = inside(reading, "config[0]");
  read_subnet(inner, config->children.front());
}

void network_ipv4(Reading& reading, const Node& node) {
  if (boolean(reading, node) == false)
    reading.error(node, "a network without IPv4 is not supported by this version", "remove it");
}

void network_ipv6(Reading& reading, const Node& node) {
  if (boolean(reading, node) == true)
    reading.error(node, "IPv6 is not supported by this version", "remove it");
}

void volume_driver(Reading& reading, const Node& node) {
  if (node.text == "local") return;
  reading.error(node, fmt::format("driver '{}' is not supported", node.text),
                "volumes are folders of this host; remove the driver");
}

}  // namespace spec::readers
