#pragma once
/// The fields of every struct of the model, listed once.
///
/// JSON writing, JSON reading and the comparison behind a plan all walk these lists, so a field
/// that is added to stack.h and here is complete everywhere, and one that is forgotten here fails
/// the round-trip test in json_test.cpp. Names are those of the wire: renaming one breaks stored
/// state.

#include <array>
#include <string_view>
#include <tuple>
#include <utility>

#include "spec/stack.h"

namespace spec {

template <class Struct, class Member>
struct Field {
  const char* name;
  Member Struct::*member;
};

template <class Struct, class Member>
constexpr Field<Struct, Member> field(const char* name, Member Struct::*member) {
  return {name, member};
}

/// Specialised for each struct: `list` is a tuple of Field.
template <class Struct>
struct Fields;

template <class Struct>
concept HasFields = requires {
  Fields<Struct>::list;
};

/// Calls `visit(field)` for each field in declaration order.
template <HasFields Struct, class Visitor>
void for_each_field(Visitor&& visit) {
  std::apply([&](const auto&... each) { (visit(each), ...); }, Fields<Struct>::list);
}

/// Specialised for each enum: `list` pairs each value with its name in stack files and JSON.
template <class Enum>
struct EnumNames;

template <class Enum>
using EnumName = std::pair<Enum, std::string_view>;

template <>
struct EnumNames<Protocol> {
  static constexpr std::array list = {EnumName<Protocol>{Protocol::Tcp, "tcp"},
                                      EnumName<Protocol>{Protocol::Udp, "udp"}};
};

template <>
struct EnumNames<MountType> {
  static constexpr std::array list = {EnumName<MountType>{MountType::Bind, "bind"},
                                      EnumName<MountType>{MountType::Volume, "volume"},
                                      EnumName<MountType>{MountType::Tmpfs, "tmpfs"}};
};

template <>
struct EnumNames<DependencyCondition> {
  using Name = EnumName<DependencyCondition>;
  static constexpr std::array list = {
      Name{DependencyCondition::Started, "service_started"},
      Name{DependencyCondition::Healthy, "service_healthy"},
      Name{DependencyCondition::CompletedSuccessfully, "service_completed_successfully"}};
};

template <>
struct EnumNames<RestartCondition> {
  using Name = EnumName<RestartCondition>;
  static constexpr std::array list = {Name{RestartCondition::No, "no"},
                                      Name{RestartCondition::OnFailure, "on-failure"},
                                      Name{RestartCondition::Always, "always"},
                                      Name{RestartCondition::UnlessStopped, "unless-stopped"}};
};

template <>
struct EnumNames<BootMode> {
  static constexpr std::array list = {EnumName<BootMode>{BootMode::Clone, "clone"},
                                      EnumName<BootMode>{BootMode::Cold, "cold"}};
};

template <class Enum>
constexpr std::string_view enum_name(Enum value) {
  for (const auto& [candidate, name] : EnumNames<Enum>::list)
    if (candidate == value) return name;
  return {};
}

template <>
struct Fields<Port> {
  static constexpr auto list =
      std::make_tuple(field("host_ip", &Port::host_ip), field("published", &Port::published),
                      field("target", &Port::target), field("protocol", &Port::protocol),
                      field("published_last", &Port::published_last));
};

template <>
struct Fields<Mount> {
  static constexpr auto list = std::make_tuple(
      field("type", &Mount::type), field("source", &Mount::source), field("target", &Mount::target),
      field("read_only", &Mount::read_only), field("create_host_path", &Mount::create_host_path),
      field("no_copy", &Mount::no_copy), field("tmpfs_bytes", &Mount::tmpfs_bytes),
      field("tmpfs_mode", &Mount::tmpfs_mode));
};

template <>
struct Fields<Dependency> {
  static constexpr auto list = std::make_tuple(field("condition", &Dependency::condition),
                                               field("restart", &Dependency::restart),
                                               field("required", &Dependency::required));
};

template <>
struct Fields<HealthCheck> {
  static constexpr auto list =
      std::make_tuple(field("disable", &HealthCheck::disable), field("test", &HealthCheck::test),
                      field("interval_ns", &HealthCheck::interval_ns),
                      field("timeout_ns", &HealthCheck::timeout_ns),
                      field("start_period_ns", &HealthCheck::start_period_ns),
                      field("start_interval_ns", &HealthCheck::start_interval_ns),
                      field("retries", &HealthCheck::retries));
};

template <>
struct Fields<RestartPolicy> {
  static constexpr auto list = std::make_tuple(field("condition", &RestartPolicy::condition),
                                               field("retries_max", &RestartPolicy::retries_max));
};

template <>
struct Fields<Attachment> {
  static constexpr auto list = std::make_tuple(
      field("aliases", &Attachment::aliases), field("ipv4_address", &Attachment::ipv4_address),
      field("mac_address", &Attachment::mac_address), field("priority", &Attachment::priority),
      field("gateway_priority", &Attachment::gateway_priority));
};

template <>
struct Fields<Ulimit> {
  static constexpr auto list =
      std::make_tuple(field("soft", &Ulimit::soft), field("hard", &Ulimit::hard));
};

template <>
struct Fields<Service> {
  static constexpr auto list = std::make_tuple(
      field("image", &Service::image), field("platform", &Service::platform),
      field("command", &Service::command), field("entrypoint", &Service::entrypoint),
      field("environment", &Service::environment), field("working_dir", &Service::working_dir),
      field("user", &Service::user), field("group_add", &Service::group_add),
      field("hostname", &Service::hostname), field("domainname", &Service::domainname),
      field("container_name", &Service::container_name), field("labels", &Service::labels),
      field("annotations", &Service::annotations), field("ports", &Service::ports),
      field("expose", &Service::expose), field("networks", &Service::networks),
      field("network_mode", &Service::network_mode), field("dns", &Service::dns),
      field("dns_search", &Service::dns_search), field("dns_options", &Service::dns_options),
      field("extra_hosts", &Service::extra_hosts), field("volumes", &Service::volumes),
      field("read_only", &Service::read_only), field("shm_bytes", &Service::shm_bytes),
      field("depends_on", &Service::depends_on), field("healthcheck", &Service::healthcheck),
      field("restart", &Service::restart), field("stop_signal", &Service::stop_signal),
      field("stop_grace_period_ns", &Service::stop_grace_period_ns),
      field("scale", &Service::scale), field("cpus", &Service::cpus),
      field("memory_bytes", &Service::memory_bytes), field("pids_limit", &Service::pids_limit),
      field("cap_add", &Service::cap_add), field("cap_drop", &Service::cap_drop),
      field("privileged", &Service::privileged), field("init", &Service::init),
      field("stdin_open", &Service::stdin_open), field("tty", &Service::tty),
      field("ulimits", &Service::ulimits), field("sysctls", &Service::sysctls),
      field("boot", &Service::boot), field("build_machine", &Service::build_machine));
};

template <>
struct Fields<Network> {
  static constexpr auto list =
      std::make_tuple(field("name", &Network::name), field("external", &Network::external),
                      field("internal", &Network::internal), field("subnet", &Network::subnet),
                      field("gateway", &Network::gateway), field("labels", &Network::labels));
};

template <>
struct Fields<Volume> {
  static constexpr auto list =
      std::make_tuple(field("name", &Volume::name), field("external", &Volume::external),
                      field("labels", &Volume::labels));
};

template <>
struct Fields<Build> {
  static constexpr auto list = std::make_tuple(
      field("context", &Build::context), field("dockerfile", &Build::dockerfile),
      field("dockerfile_inline", &Build::dockerfile_inline), field("args", &Build::args),
      field("target", &Build::target), field("labels", &Build::labels), field("tags", &Build::tags),
      field("platforms", &Build::platforms), field("no_cache", &Build::no_cache),
      field("no_cache_filter", &Build::no_cache_filter), field("pull", &Build::pull),
      field("network", &Build::network), field("shm_bytes", &Build::shm_bytes),
      field("ulimits", &Build::ulimits), field("ssh", &Build::ssh),
      field("cache_from", &Build::cache_from), field("cache_to", &Build::cache_to),
      field("additional_contexts", &Build::additional_contexts),
      field("extra_hosts", &Build::extra_hosts), field("privileged", &Build::privileged));
};

template <>
struct Fields<Stack> {
  static constexpr auto list =
      std::make_tuple(field("name", &Stack::name), field("working_dir", &Stack::working_dir),
                      field("files", &Stack::files), field("services", &Stack::services),
                      field("networks", &Stack::networks), field("volumes", &Stack::volumes),
                      field("builds", &Stack::builds));
};

}  // namespace spec
