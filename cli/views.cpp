#include "cli/views.h"

#include <algorithm>
#include <array>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/text.h"

namespace cli {
namespace {

using nlohmann::json;
using planner::ContainerRecord;
using planner::Phase;

std::string time_text(int64_t wall_ns) {
  return wall_ns == 0 ? std::string() : base::format_wall_time(wall_ns);
}

json time_json(int64_t wall_ns) { return wall_ns == 0 ? json() : json(time_text(wall_ns)); }

std::string health_text(planner::HealthState health) {
  switch (health) {
    case planner::HealthState::None: return "none";
    case planner::HealthState::Starting: return "starting";
    case planner::HealthState::Healthy: return "healthy";
    case planner::HealthState::Unhealthy: return "unhealthy";
  }
  return "none";
}

const char* protocol_text(spec::Protocol protocol) {
  return protocol == spec::Protocol::Udp ? "udp" : "tcp";
}

struct Platform {
  std::string os = "linux";
  std::string architecture = "amd64";
};

Platform platform_of(const spec::Service& service) {
  Platform platform;
  if (!service.platform) return platform;
  const std::vector<std::string> parts = base::split(*service.platform, '/');
  platform.os = parts[0];
  if (parts.size() > 1) platform.architecture = parts[1];
  return platform;
}

std::string hostname_of(const ContainerRecord& record) {
  const std::string name = record.applied.hostname.value_or(record.id);
  return record.applied.domainname ? name + "." + *record.applied.domainname : name;
}

json mount_json(const spec::Mount& mount) {
  json type;
  switch (mount.type) {
    case spec::MountType::Bind: type = {{"virtiofs", json::object()}}; break;
    case spec::MountType::Volume: type = {{"volume", {{"name", mount.source}}}}; break;
    case spec::MountType::Tmpfs: type = {{"tmpfs", json::object()}}; break;
  }
  return {{"type", type},
          {"source", mount.source},
          {"destination", mount.target},
          {"options", mount.read_only ? json::array({"ro"}) : json::array()}};
}

json process_json(const spec::Service& service) {
  std::vector<std::string> words = service.entrypoint.value_or(std::vector<std::string>());
  if (service.command) words.insert(words.end(), service.command->begin(), service.command->end());
  json process = {{"terminal", service.tty}, {"environment", json::array()}};
  // Without a word of its own the container runs what its image says: `image inspect`.
  if (!words.empty()) {
    process["executable"] = words.front();
    process["arguments"] = std::vector<std::string>(words.begin() + 1, words.end());
  }
  for (const auto& [key, value] : service.environment)
    if (value) process["environment"].push_back(key + "=" + *value);
  if (service.working_dir) process["workingDirectory"] = *service.working_dir;
  if (service.user) process["user"] = {{"raw", {{"userString", *service.user}}}};
  process["supplementalGroups"] = service.group_add;
  process["rlimits"] = json::array();
  for (const auto& [name, limit] : service.ulimits)
    process["rlimits"].push_back({{"limit", name}, {"soft", limit.soft}, {"hard", limit.hard}});
  return process;
}

json ports_json(const ContainerRecord& record) {
  json ports = json::array();
  const auto add = [&](const std::string& address, uint16_t host, uint16_t container,
                       spec::Protocol protocol) {
    ports.push_back({{"hostAddress", address},
                     {"hostPort", host},
                     {"containerPort", container},
                     {"proto", protocol_text(protocol)},
                     {"count", 1}});
  };
  if (!record.published.empty())
    for (const planner::PublishedPort& port : record.published)
      add(port.host_ip, port.published, port.target, port.protocol);
  else
    for (const spec::Port& port : record.applied.ports)
      // Of a choice it is not known yet.
      add(port.host_ip, port.published_last == 0 ? port.published : uint16_t{0}, port.target,
          port.protocol);
  return ports;
}

json resources_json(const ContainerRecord& record) {
  json resources = json::object();
  if (record.machine_cpus != 0) resources["cpus"] = record.machine_cpus;
  if (record.machine_memory_bytes != 0) resources["memoryInBytes"] = record.machine_memory_bytes;
  return resources;
}

json configuration_json(const ContainerRecord& record) {
  const spec::Service& service = record.applied;
  const Platform platform = platform_of(service);
  json configuration = {
      {"id", record.id},
      {"image", {{"reference", service.image}, {"descriptor", {{"digest", record.image_digest}}}}},
      {"hostname", hostname_of(record)},
      {"mounts", json::array()},
      {"publishedPorts", ports_json(record)},
      {"labels", service.labels},
      {"sysctls", service.sysctls},
      {"networks", json::array()},
      {"dns",
       {{"nameservers", service.dns},
        {"searchDomains", service.dns_search},
        {"options", service.dns_options}}},
      {"initProcess", process_json(service)},
      {"platform", {{"os", platform.os}, {"architecture", platform.architecture}}},
      {"resources", resources_json(record)},
      {"readOnly", service.read_only},
      {"useInit", service.init},
      {"capAdd", service.cap_add},
      {"capDrop", service.cap_drop},
      {"creationDate", time_json(record.created_wall_ns)},
  };
  for (const spec::Mount& mount : service.volumes)
    configuration["mounts"].push_back(mount_json(mount));
  for (const auto& [network, attachment] : service.networks)
    configuration["networks"].push_back(network);
  if (service.stop_signal) configuration["stopSignal"] = *service.stop_signal;
  if (service.shm_bytes) configuration["shmSize"] = *service.shm_bytes;
  return configuration;
}

std::string addresses(const ContainerRecord& record) {
  std::vector<std::string> plain;
  if (record.phase == Phase::Running)
    for (const planner::NetworkPlace& place : record.places)
      plain.push_back(place.address.substr(0, place.address.find('/')));
  return base::join(plain, ",");
}

std::string cpus_text(const ContainerRecord& record) {
  return record.machine_cpus == 0 ? "" : fmt::format("{}", record.machine_cpus);
}

std::string memory_text(const ContainerRecord& record) {
  constexpr uint64_t mebibyte = 1u << 20;
  if (record.machine_memory_bytes == 0) return "";
  return fmt::format("{} MB", record.machine_memory_bytes / mebibyte);
}

/// 24 digits say enough to tell images apart.
std::string short_digest(const std::string& digest) {
  constexpr size_t digits = 24;
  const std::string hex = digest.substr(digest.find(':') + 1);
  return hex.size() <= digits ? hex : hex.substr(0, digits) + "...";
}

/// As many digits as name an image.
std::string reference_digits(const std::string& digest) {
  constexpr size_t digits = 12;
  return digest.substr(digest.find(':') + 1, digits);
}

}  // namespace

std::string status_text(const ContainerRecord& record) {
  switch (record.phase) {
    case Phase::Running: return record.paused_reason.empty() ? "running" : "paused";
    case Phase::Created:
    case Phase::Exited: return "stopped";
    case Phase::Missing:
    case Phase::Unknown: return "unknown";
  }
  return "unknown";
}

Row container_header() {
  return {"ID", "IMAGE", "OS", "ARCH", "STATE", "ADDR", "CPUS", "MEMORY", "STARTED"};
}

Row container_row(const ContainerRecord& record) {
  const spec::Service& service = record.applied;
  const Platform platform = platform_of(service);
  return {record.id,
          service.image,
          platform.os,
          platform.architecture,
          status_text(record),
          addresses(record),
          cpus_text(record),
          memory_text(record),
          record.phase == Phase::Running ? time_text(record.started_wall_ns) : ""};
}

json container_json(const ContainerRecord& record) {
  json networks = json::array();
  if (record.phase == Phase::Running)
    for (const planner::NetworkPlace& place : record.places)
      networks.push_back({{"network", place.network},
                          {"hostname", hostname_of(record)},
                          {"address", place.address},
                          {"gateway", place.gateway},
                          {"macAddress", place.mac}});
  json container = {{"status", status_text(record)},
                    {"configuration", configuration_json(record)},
                    {"networks", networks},
                    {"startedDate", time_json(record.started_wall_ns)},
                    {"finishedDate", time_json(record.finished_wall_ns)},
                    {"health", health_text(record.health)},
                    {"restartCount", record.restart_count},
                    {"outOfMemory", record.out_of_memory}};
  container["exitCode"] = record.phase == Phase::Exited ? json(record.exit_code) : json();
  if (!record.exit_reason.empty()) container["exitReason"] = record.exit_reason;
  if (!record.paused_reason.empty()) container["pausedReason"] = record.paused_reason;
  if (!record.project.empty()) container["project"] = record.project;
  if (!record.service.empty()) container["service"] = record.service;
  return container;
}

Row network_header() { return {"NETWORK", "STATE", "SUBNET"}; }

Row network_row(const planner::NetworkRecord& record) {
  return {record.name, record.alive ? "running" : "stopped", record.subnet};
}

json network_json(const planner::NetworkRecord& record) {
  return {{"id", record.name},
          {"state", record.alive ? "running" : "stopped"},
          {"configuration",
           {{"name", record.name},
            {"mode", record.applied.internal ? "hostOnly" : "nat"},
            {"labels", record.applied.labels},
            {"creationDate", time_json(record.created_wall_ns)}}},
          {"status", {{"address", record.subnet}, {"gateway", record.gateway}}},
          {"builtin", record.builtin},
          {"project", record.project}};
}

Row volume_header() { return {"NAME", "TYPE", "DRIVER", "OPTIONS"}; }

Row volume_row(const planner::VolumeRecord& record) {
  return {record.name, record.anonymous ? "anonymous" : "named", "local", ""};
}

json volume_json(const planner::VolumeRecord& record) {
  return {{"id", record.name},
          {"configuration",
           {{"name", record.name},
            {"driver", "local"},
            {"labels", record.applied.labels},
            {"options", json::object()},
            {"creationDate", time_json(record.created_wall_ns)}}},
          {"anonymous", record.anonymous},
          {"present", record.present},
          {"project", record.project}};
}

ImageName image_name(const std::string& reference) {
  std::string name = reference.substr(0, reference.find('@'));
  const size_t colon = name.rfind(':');
  std::string tag;
  if (colon != std::string::npos && name.find('/', colon) == std::string::npos) {
    tag = name.substr(colon + 1);
    name.erase(colon);
  }
  for (const std::string_view prefix : {"docker.io/library/", "docker.io/"})
    if (name.starts_with(prefix)) {
      name.erase(0, prefix.size());
      break;
    }
  return {.name = name, .tag = tag};
}

std::string size_text(int64_t bytes) {
  constexpr std::array<const char*, 4> units = {"KB", "MB", "GB", "TB"};
  double amount = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; amount >= 1024 && unit + 1 < units.size(); ++unit) amount /= 1024;
  return fmt::format("{:.1f} {}", amount, units[unit]);
}

std::string reclaimed_text(int64_t bytes) {
  return fmt::format("Reclaimed {} in disk space\n", bytes == 0 ? "Zero KB" : size_text(bytes));
}

Row image_header() { return {"NAME", "TAG", "DIGEST"}; }

Row image_row(const json& image) {
  const ImageName name = image_name(base::json_string_or(image, "reference", ""));
  return {name.name, name.tag, short_digest(base::json_string_or(image, "digest", ""))};
}

Row variant_header() {
  return {"NAME",      "TAG",     "INDEX DIGEST",   "OS", "ARCH", "VARIANT",
          "FULL SIZE", "CREATED", "MANIFEST DIGEST"};
}

std::vector<Row> variant_rows(const json& image) {
  const ImageName name = image_name(base::json_string_or(image, "reference", ""));
  const std::string index = reference_digits(base::json_string_or(image, "digest", ""));
  std::vector<Row> rows;
  for (const json& variant : image.value("variants", json::array())) {
    const json platform = variant.value("platform", json::object());
    rows.push_back({name.name, name.tag, index, base::json_string_or(platform, "os", ""),
                    base::json_string_or(platform, "architecture", ""),
                    base::json_string_or(platform, "variant", ""),
                    size_text(base::json_int_or(variant, "size", 0)),
                    base::json_string_or(variant, "created", ""),
                    reference_digits(base::json_string_or(variant, "digest", ""))});
  }
  if (rows.empty()) rows.push_back({name.name, name.tag, index, "", "", "", "", "", ""});
  return rows;
}

json image_json(const json& image) {
  const std::string reference = base::json_string_or(image, "reference", "");
  const std::string digest = base::json_string_or(image, "digest", "");
  return {{"id", digest.substr(digest.find(':') + 1)},
          {"reference", reference},
          {"name", reference},
          {"descriptor", {{"digest", digest}}},
          {"configuration",
           {{"name", reference},
            {"creationDate", base::json_string_or(image, "created", "")},
            {"descriptor", {{"digest", digest}}}}},
          {"platform",
           {{"os", base::json_string_or(image, "os", "")},
            {"architecture", base::json_string_or(image, "architecture", "")}}},
          {"sizeInBytes", base::json_int_or(image, "size_bytes", 0)}};
}

json image_details_json(const json& image) {
  const std::string reference = base::json_string_or(image, "reference", "");
  const std::string digest = base::json_string_or(image, "digest", "");
  const json descriptor = image.value("descriptor", json({{"digest", digest}}));
  const json variants = image.value("variants", json::array());
  std::string created;  // of the newest of its platforms
  for (const json& variant : variants)
    created = std::max(created, base::json_string_or(variant, "created", ""));
  return {{"id", digest.substr(digest.find(':') + 1)},
          {"name", reference},
          {"reference", reference},
          {"descriptor", descriptor},
          {"configuration",
           {{"name", reference}, {"creationDate", created}, {"descriptor", descriptor}}},
          {"variants", variants}};
}

Row disk_use_header() { return {"TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"}; }

std::vector<Row> disk_use_rows(const json& use) {
  constexpr std::pair<const char*, const char*> kinds[] = {
      {"Images", "images"}, {"Containers", "containers"}, {"Local Volumes", "volumes"}};
  std::vector<Row> rows;
  for (const auto& [title, key] : kinds) {
    const json kind = use.value(key, json::object());
    const int64_t size = base::json_int_or(kind, "sizeInBytes", 0);
    const int64_t reclaimable = base::json_int_or(kind, "reclaimable", 0);
    rows.push_back({title, std::to_string(base::json_int_or(kind, "total", 0)),
                    std::to_string(base::json_int_or(kind, "active", 0)), size_text(size),
                    fmt::format("{} ({}%)", size_text(reclaimable),
                                size == 0 ? 0 : reclaimable * 100 / size)});
  }
  return rows;
}

}  // namespace cli
