#include "spec/attributes.h"

#include <array>

#include "spec/readers.h"

namespace spec {
namespace {

using namespace form;
constexpr Forms one_or_list = text | list;
constexpr Forms map_or_list = map | list;
constexpr Forms flag = boolean | text;  // texts, because variables become texts
constexpr Forms whole = integer | text;
constexpr Forms quantity = number | integer | text;
constexpr Forms anything = text | integer | number | boolean | null | list | map;

constexpr Merge by_kind = Merge::ByKind;
constexpr Merge replace = Merge::Replace;
constexpr Merge key_values = Merge::KeyValues;
constexpr Merge names = Merge::Names;
constexpr Merge list_of = Merge::ListOf;

constexpr Runtime supported = Runtime::Supported;

constexpr Attribute ok(std::string_view pattern, Forms forms, Merge merge = by_kind,
                       Reader reader = nullptr) {
  return {pattern, forms, merge, supported, reader, {}};
}
constexpr Attribute later(std::string_view pattern, std::string_view advice) {
  return {pattern, anything, by_kind, Runtime::Later, nullptr, advice};
}
constexpr Attribute reject(std::string_view pattern, std::string_view advice) {
  return {pattern, anything, by_kind, Runtime::Reject, nullptr, advice};
}
constexpr Attribute note(std::string_view pattern, std::string_view advice) {
  return {pattern, anything, by_kind, Runtime::Note, nullptr, advice};
}

constexpr std::string_view remove_it = "remove it";
constexpr std::string_view share_of_cpu = "limit the processor with 'cpus' instead";
constexpr std::string_view nothing_reserved = "machines get what they use, up to their limits";
constexpr std::string_view own_kernel = "each container has a kernel of its own; remove it";
constexpr std::string_view bind_a_file = "mount the file with 'volumes' instead";
constexpr std::string_view write_out = "write the service out, or share parts by YAML anchors";
constexpr std::string_view as_services =
    "do it in the container's command, or in a service that "
    "others wait for (service_completed_successfully)";

constexpr std::array table = {
    // The file.
    Attribute{"version", quantity, replace, Runtime::Obsolete, nullptr, remove_it},
    ok("name", text, replace),
    later("include", "name the other file with another -f"),
    ok("services", map),
    ok("networks", map | null),
    ok("volumes", map | null),
    later("configs", bind_a_file),
    ok("secrets", map | null),
    later("models", "run the model as a service"),

    // Image, process, identity.
    ok("services.*", map),
    ok("services.*.image", text, replace, readers::image),
    ok("services.*.build", text | map, Merge::Context, readers::build),
    ok("services.*.build.context", text, replace),
    ok("services.*.build.dockerfile", text, replace),
    ok("services.*.build.dockerfile_inline", text, replace),
    ok("services.*.build.args", map_or_list, key_values),
    ok("services.*.build.target", text, replace),
    ok("services.*.build.labels", map_or_list, key_values),
    ok("services.*.build.tags", list, list_of),
    ok("services.*.build.platforms", list, list_of),
    ok("services.*.build.no_cache", flag, replace),
    ok("services.*.build.no_cache_filter", one_or_list, list_of),
    ok("services.*.build.pull", flag, replace),
    ok("services.*.build.network", text, replace),
    ok("services.*.build.shm_size", quantity, replace),
    ok("services.*.build.ssh", one_or_list | map),
    ok("services.*.build.secrets", list),
    ok("services.*.build.secrets[]", text | map),
    ok("services.*.build.secrets[].source", text),
    ok("services.*.build.secrets[].target", text),
    ok("services.*.build.secrets[].uid", whole),
    ok("services.*.build.secrets[].gid", whole),
    ok("services.*.build.secrets[].mode", whole),
    ok("services.*.build.cache_from", list, list_of),
    ok("services.*.build.cache_to", list, list_of),
    ok("services.*.build.additional_contexts", map_or_list, key_values),
    ok("services.*.build.extra_hosts", map_or_list),
    ok("services.*.build.extra_hosts.*", text | list),
    ok("services.*.build.privileged", flag, replace),
    ok("services.*.build.ulimits", map),
    ok("services.*.build.ulimits.*", integer | text | map, replace),
    ok("services.*.build.ulimits.*.soft", whole),
    ok("services.*.build.ulimits.*.hard", whole),
    ok("services.*.build.entitlements", list, list_of),
    ok("services.*.build.entitlements[]", text),
    note("services.*.build.provenance", "images are made without attestations"),
    note("services.*.build.sbom", "images are made without attestations"),
    ok("services.*.build.isolation", text, replace),
    ok("services.*.pull_policy", text, replace, readers::pull_policy),
    later("services.*.pull_refresh_after", "run `container up --pull always` as often as you like"),
    ok("services.*.platform", text, replace, readers::platform),
    later("services.*.runtime", "remove it: every container gets a VM"),
    ok("services.*.command", text | list | null, replace, readers::command),
    ok("services.*.entrypoint", text | list | null, replace, readers::entrypoint),
    ok("services.*.working_dir", text, replace, readers::working_dir),
    ok("services.*.user", text, replace, readers::user),
    ok("services.*.group_add", list, list_of, readers::group_add),
    ok("services.*.group_add[]", text | integer),
    ok("services.*.environment", map_or_list, key_values, readers::environment),
    ok("services.*.env_file", text | list, list_of, readers::env_file),
    ok("services.*.env_file[]", text | map),
    ok("services.*.env_file[].path", text),
    ok("services.*.env_file[].required", flag),
    ok("services.*.env_file[].format", text),
    later("services.*.label_file", "write the labels under 'labels'"),
    ok("services.*.labels", map_or_list, key_values, readers::labels),
    ok("services.*.annotations", map_or_list, key_values, readers::annotations),
    ok("services.*.container_name", text, replace, readers::container_name),
    ok("services.*.hostname", text, replace, readers::hostname),
    ok("services.*.domainname", text, replace, readers::domainname),
    ok("services.*.init", flag, replace, readers::init),
    ok("services.*.stdin_open", flag, replace, readers::stdin_open),
    ok("services.*.tty", flag, replace, readers::tty),
    later("services.*.attach", "logs of every service are collected; remove it"),
    ok("services.*.stop_signal", text | integer, replace, readers::stop_signal),
    ok("services.*.stop_grace_period", text | integer, replace, readers::stop_grace_period),
    ok("services.*.restart", text, replace, readers::restart),
    ok("services.*.scale", whole, replace, readers::scale),
    later("services.*.profiles", "keep optional services in a file of their own, given with -f"),
    ok("services.*.depends_on", map_or_list, names, readers::depends_on),
    ok("services.*.depends_on.*", map | null),
    ok("services.*.depends_on.*.condition", text),
    ok("services.*.depends_on.*.restart", flag),
    ok("services.*.depends_on.*.required", flag),
    later("services.*.extends", write_out),
    later("services.*.provider", "run the provider by hand and remove the service"),
    later("services.*.develop", "remove it; run 'container up' again after a change"),
    ok("services.*.healthcheck", map, by_kind, readers::healthcheck),
    ok("services.*.healthcheck.test", text | list | null, replace),
    ok("services.*.healthcheck.interval", text | integer, replace),
    ok("services.*.healthcheck.timeout", text | integer, replace),
    ok("services.*.healthcheck.start_period", text | integer, replace),
    ok("services.*.healthcheck.start_interval", text | integer, replace),
    ok("services.*.healthcheck.retries", whole, replace),
    ok("services.*.healthcheck.disable", flag, replace),
    later("services.*.pre_start", as_services),
    later("services.*.post_start", as_services),
    later("services.*.pre_stop", "handle the stop signal in the container's own process"),
    later("services.*.use_api_socket", remove_it),
    reject("services.*.credential_spec", "it exists on Windows only; remove it"),
    reject("services.*.isolation", "it exists on Windows only; remove it"),
    ok("services.*.logging", map, by_kind, readers::logging),
    ok("services.*.logging.driver", text, replace),
    note("services.*.logging.options", "logs are kept and rotated by the system"),
    later("services.*.gpus", "devices cannot be given to a container yet; remove it"),
    later("services.*.models", "run the model as a service"),
    later("services.*.volumes_from", "name the same volumes in both services"),
    later("services.*.links",
          "services of a network know each other by name; use 'depends_on' "
          "for the order and 'networks.<name>.aliases' for other names"),
    later("services.*.external_links", "join both to an external network"),
    ok("services.*.x-boot", text, replace, readers::boot),

    // Resources and rights.
    ok("services.*.cpus", quantity, replace, readers::cpus),
    reject("services.*.cpu_count", share_of_cpu),
    reject("services.*.cpu_percent", share_of_cpu),
    later("services.*.cpu_shares", share_of_cpu),
    later("services.*.cpu_quota", share_of_cpu),
    later("services.*.cpu_period", share_of_cpu),
    later("services.*.cpu_rt_runtime", share_of_cpu),
    later("services.*.cpu_rt_period", share_of_cpu),
    later("services.*.cpuset", share_of_cpu),
    ok("services.*.mem_limit", quantity, replace, readers::mem_limit),
    note("services.*.mem_reservation", nothing_reserved),
    later("services.*.memswap_limit", "containers have no swap space; remove it"),
    later("services.*.mem_swappiness", "containers have no swap space; remove it"),
    reject("services.*.oom_kill_disable", "no kernel of today can do it; remove it"),
    later("services.*.oom_score_adj", own_kernel),
    ok("services.*.pids_limit", whole, replace, readers::pids_limit),
    ok("services.*.shm_size", quantity, replace, readers::shm_size),
    ok("services.*.ulimits", map, by_kind, readers::ulimits),
    ok("services.*.ulimits.*", integer | text | map, replace),
    ok("services.*.ulimits.*.soft", whole),
    ok("services.*.ulimits.*.hard", whole),
    later("services.*.blkio_config", remove_it),
    later("services.*.storage_opt", remove_it),
    ok("services.*.sysctls", map_or_list, key_values, readers::sysctls),
    ok("services.*.privileged", flag, replace, readers::privileged),
    ok("services.*.cap_add", list, list_of, readers::cap_add),
    ok("services.*.cap_drop", list, list_of, readers::cap_drop),
    later("services.*.security_opt", "drop rights with 'cap_drop' and 'user'; remove it"),
    ok("services.*.read_only", flag, replace, readers::read_only),
    ok("services.*.tmpfs", one_or_list, list_of, readers::tmpfs),
    later("services.*.devices", "devices of the host cannot be given to a VM yet; remove it"),
    later("services.*.device_cgroup_rules", own_kernel),
    reject("services.*.cgroup", own_kernel),
    reject("services.*.cgroup_parent", own_kernel),
    reject("services.*.userns_mode", own_kernel),
    reject("services.*.uts", own_kernel),
    reject("services.*.ipc", own_kernel),
    reject("services.*.pid", own_kernel),

    // deploy.
    ok("services.*.deploy", map, by_kind, readers::deploy),
    ok("services.*.deploy.mode", text, replace),
    ok("services.*.deploy.replicas", whole, replace),
    later("services.*.deploy.endpoint_mode", "names always rotate over replicas; remove it"),
    later("services.*.deploy.labels", "write them under the service's 'labels'"),
    ok("services.*.deploy.resources", map),
    ok("services.*.deploy.resources.limits", map),
    ok("services.*.deploy.resources.limits.cpus", quantity, replace),
    ok("services.*.deploy.resources.limits.memory", quantity, replace),
    ok("services.*.deploy.resources.limits.pids", whole, replace),
    ok("services.*.deploy.resources.reservations", map),
    note("services.*.deploy.resources.reservations.cpus", nothing_reserved),
    note("services.*.deploy.resources.reservations.memory", nothing_reserved),
    later("services.*.deploy.resources.reservations.devices",
          "devices cannot be given to a container yet; remove it"),
    later("services.*.deploy.resources.reservations.generic_resources", remove_it),
    later("services.*.deploy.restart_policy", "use the service's 'restart' instead"),
    later("services.*.deploy.update_config", remove_it),
    later("services.*.deploy.rollback_config", remove_it),
    note("services.*.deploy.placement", "there is one host only"),

    // Network.
    ok("services.*.networks", map_or_list, names, readers::networks),
    ok("services.*.networks.*", map | null),
    ok("services.*.networks.*.aliases", list, list_of),
    ok("services.*.networks.*.ipv4_address", text, replace),
    later("services.*.networks.*.ipv6_address", "give an ipv4_address instead"),
    later("services.*.networks.*.link_local_ips", remove_it),
    ok("services.*.networks.*.mac_address", text, replace),
    later("services.*.networks.*.interface_name", "interfaces are called eth0, eth1, …"),
    later("services.*.networks.*.driver_opts", remove_it),
    ok("services.*.networks.*.gw_priority", whole, replace),
    ok("services.*.networks.*.priority", whole, replace),
    ok("services.*.network_mode", text, replace, readers::network_mode),
    ok("services.*.mac_address", text, replace, readers::mac_address),
    ok("services.*.dns", one_or_list, list_of, readers::dns),
    ok("services.*.dns_opt", list, list_of, readers::dns_opt),
    ok("services.*.dns_search", one_or_list, list_of, readers::dns_search),
    ok("services.*.extra_hosts", map_or_list, by_kind, readers::extra_hosts),
    ok("services.*.extra_hosts.*", text | list),
    ok("services.*.expose", list, list_of, readers::expose),
    ok("services.*.expose[]", text | integer),
    ok("services.*.ports", list, Merge::Ports, readers::ports),
    ok("services.*.ports[]", text | integer | map),
    ok("services.*.ports[].target", whole),
    ok("services.*.ports[].published", whole),
    ok("services.*.ports[].host_ip", text),
    ok("services.*.ports[].protocol", text),
    note("services.*.ports[].app_protocol", "it describes the port only"),
    note("services.*.ports[].name", "it describes the port only"),
    note("services.*.ports[].mode", "there is one host only"),

    // Mounts.
    ok("services.*.volumes", list, Merge::Mounts, readers::volumes),
    ok("services.*.volumes[]", text | map),
    ok("services.*.volumes[].type", text),
    ok("services.*.volumes[].source", text),
    ok("services.*.volumes[].target", text),
    ok("services.*.volumes[].read_only", flag),
    note("services.*.volumes[].consistency", "mounts are always consistent"),
    ok("services.*.volumes[].bind", map),
    ok("services.*.volumes[].bind.create_host_path", flag),
    later("services.*.volumes[].bind.propagation", "mounts made later on the host do not show"),
    later("services.*.volumes[].bind.recursive", remove_it),
    note("services.*.volumes[].bind.selinux", "the VM is the boundary"),
    ok("services.*.volumes[].volume", map),
    ok("services.*.volumes[].volume.nocopy", flag),
    later("services.*.volumes[].volume.subpath", "use a volume of its own"),
    later("services.*.volumes[].volume.labels", "give the volume a name under 'volumes'"),
    ok("services.*.volumes[].tmpfs", map),
    ok("services.*.volumes[].tmpfs.size", quantity),
    ok("services.*.volumes[].tmpfs.mode", whole),
    later("services.*.volumes[].image", "copy the files into the service's image"),
    later("services.*.configs", bind_a_file),
    later("services.*.secrets", bind_a_file),

    // Top-level secrets, for builds.
    ok("secrets.*", map),
    ok("secrets.*.file", text, replace),
    ok("secrets.*.environment", text, replace),
    later("secrets.*.external", "name its 'file', or the variable that holds it: 'environment'"),
    later("secrets.*.driver", "name its 'file', or the variable that holds it: 'environment'"),
    later("secrets.*.driver_opts", remove_it),
    later("secrets.*.template_driver", "write the file as it shall be"),
    note("secrets.*.name", "builds know a secret by its key"),
    note("secrets.*.labels", "nothing of a secret is kept"),

    // Top-level networks.
    ok("networks.*", map | null),
    ok("networks.*.name", text, replace, readers::resource_name),
    ok("networks.*.driver", text, replace, readers::network_driver),
    later("networks.*.driver_opts", remove_it),
    ok("networks.*.external", flag | map, replace, readers::resource_external),
    ok("networks.*.external.name", text),
    ok("networks.*.internal", flag, replace, readers::network_internal),
    ok("networks.*.ipam", map, by_kind, readers::network_ipam),
    ok("networks.*.ipam.driver", text, replace),
    ok("networks.*.ipam.config", list, Merge::Subnets),
    ok("networks.*.ipam.config[]", map),
    ok("networks.*.ipam.config[].subnet", text),
    ok("networks.*.ipam.config[].gateway", text),
    later("networks.*.ipam.config[].ip_range", "addresses are taken from all of the subnet"),
    later("networks.*.ipam.config[].aux_addresses", remove_it),
    later("networks.*.ipam.options", remove_it),
    ok("networks.*.enable_ipv4", flag, replace, readers::network_ipv4),
    ok("networks.*.enable_ipv6", flag, replace, readers::network_ipv6),
    note("networks.*.attachable", "every network can be joined"),
    ok("networks.*.labels", map_or_list, key_values, readers::resource_labels),

    // Top-level volumes.
    ok("volumes.*", map | null),
    ok("volumes.*.name", text, replace, readers::resource_name),
    ok("volumes.*.driver", text, replace, readers::volume_driver),
    later("volumes.*.driver_opts", "mount the folder with a bind mount instead"),
    ok("volumes.*.external", flag | map, replace, readers::resource_external),
    ok("volumes.*.external.name", text),
    ok("volumes.*.labels", map_or_list, key_values, readers::resource_labels),
};

AttributeBranch& descend(AttributeBranch& from, std::string_view step) {
  if (step == "*") {
    if (!from.any) from.any = std::make_unique<AttributeBranch>();
    return *from.any;
  }
  return from.named[std::string(step)];
}

AttributeBranch make_tree() {
  AttributeBranch root;
  for (const Attribute& attribute : table) {
    AttributeBranch* branch = &root;
    std::string_view rest = attribute.pattern;
    while (!rest.empty()) {
      const size_t dot = rest.find('.');
      std::string_view step = rest.substr(0, dot);
      rest.remove_prefix(dot == std::string_view::npos ? rest.size() : dot + 1);
      const bool is_item = step.ends_with("[]");
      if (is_item) step.remove_suffix(2);
      branch = &descend(*branch, step);
      if (!is_item) continue;
      if (!branch->item) branch->item = std::make_unique<AttributeBranch>();
      branch = branch->item.get();
    }
    branch->row = &attribute;
  }
  return root;
}

}  // namespace

std::span<const Attribute> attributes() { return table; }

const AttributeBranch* AttributeBranch::member(std::string_view key) const {
  if (const auto found = named.find(key); found != named.end()) return &found->second;
  return any.get();
}

std::vector<std::string> AttributeBranch::member_names() const {
  std::vector<std::string> result;
  for (const auto& [name, branch] : named) result.push_back(name);
  return result;
}

const AttributeBranch& attribute_tree() {
  static const AttributeBranch tree = make_tree();
  return tree;
}

bool is_extension(std::string_view key) { return key.starts_with("x-"); }

}  // namespace spec
