#pragma once
/// The readers named in the attribute table: each puts one attribute, its forms already checked,
/// into the model. They report what is wrong with a value and carry on.

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "spec/build_secret.h"
#include "spec/node.h"
#include "spec/pull_policy.h"
#include "spec/reporter.h"
#include "spec/stack.h"

namespace spec {

struct EnvFile {
  std::string path;  ///< Absolute.
  bool required = true;
  bool raw = false;
  Place place;
};

/// What the readers need to know of the run.
struct ReadContext {
  Reporter& reporter;
  std::string project_directory;
  std::string home_directory;
  const std::map<std::string, std::string>& environment;
  size_t ports_left = 0;  ///< Of limits::stack_ports_max.
};

/// An entry of `build.secrets`, before it has met the top-level `secrets`.
struct BuildSecretUse {
  std::string source;
  BuildSecret secret;
  Place place;
  std::string address;
};

/// A service on its way into the model: what later steps need besides the service itself.
struct ServiceDraft {
  std::string name;
  const Node* node = nullptr;
  Service service;
  bool has_image = false;  ///< Something is written as image or build, be it wrong.
  std::optional<Build> build;
  std::vector<BuildSecretUse> build_secrets;
  std::vector<std::pair<std::string, Place>> build_services;  ///< Whose images its build uses.
  std::optional<PullPolicy> pull_policy;
  std::vector<EnvFile> env_files;
  std::vector<Place> port_places;          ///< One per port.
  std::vector<Place> mount_places;         ///< One per mount.
  std::optional<std::string> mac_address;  ///< Of the service; belongs to its only network.
  /// What `deploy` says; must agree with the service's own attribute.
  std::optional<double> deploy_cpus;
  std::optional<uint64_t> deploy_memory_bytes;
  std::optional<int64_t> deploy_pids;
  std::optional<uint32_t> deploy_replicas;
  std::optional<uint32_t> scale;
};

/// Where the next attribute goes; exactly one of the targets is set.
struct Reading {
  ReadContext& context;
  std::string address;
  ServiceDraft* draft = nullptr;
  Network* network = nullptr;
  Volume* volume = nullptr;

  Service& service() const { return draft->service; }
  void error(const Node& node, std::string summary, std::string detail = {},
             std::string suggestion = {}) const;
};

namespace readers {

// Values, used by the readers below; nullopt after a report.
std::optional<std::string> text(Reading& reading, const Node& node);
std::optional<int64_t> integer(Reading& reading, const Node& node, int64_t min, int64_t max);
std::optional<bool> boolean(Reading& reading, const Node& node);
std::optional<uint64_t> bytes(Reading& reading, const Node& node);
std::optional<int64_t> duration(Reading& reading, const Node& node);
/// Octal, as a text, as 0700 or as 0o700; a bare decimal number is refused: nobody means its value.
std::optional<uint32_t> file_mode(Reading& reading, const Node& node);
/// One text or a list of texts.
std::vector<std::string> texts(Reading& reading, const Node& node);
struct Pair {
  std::string key;
  std::optional<std::string> value;
  const Node* node = nullptr;
};
/// Map, or list of `k=v`; `k` alone has no value.
std::vector<Pair> pairs(Reading& reading, const Node& node);
/// The readings of a member or an item, with its address.
Reading inside(const Reading& reading, std::string_view key);
Reading at_index(const Reading& reading, size_t index);
std::string absolute_path(const ReadContext& context, const std::string& path);
bool is_ipv4(const std::string& address);
bool is_ip(const std::string& address);
/// `10.1.0.0/24`, with the host bits clear.
bool is_ipv4_subnet(const std::string& subnet);
bool subnet_contains(const std::string& subnet, const std::string& address);

/// Top-level `secrets` by key; where each one's bytes are.
std::map<std::string, BuildSecret> secrets(ReadContext& context, const Node& node);

// Process and identity.
void image(Reading& reading, const Node& node);
void platform(Reading& reading, const Node& node);
void command(Reading& reading, const Node& node);
void entrypoint(Reading& reading, const Node& node);
void environment(Reading& reading, const Node& node);
void env_file(Reading& reading, const Node& node);
void working_dir(Reading& reading, const Node& node);
void user(Reading& reading, const Node& node);
void group_add(Reading& reading, const Node& node);
void hostname(Reading& reading, const Node& node);
void domainname(Reading& reading, const Node& node);
void container_name(Reading& reading, const Node& node);
void labels(Reading& reading, const Node& node);
void annotations(Reading& reading, const Node& node);
void logging(Reading& reading, const Node& node);
void restart(Reading& reading, const Node& node);
void stop_signal(Reading& reading, const Node& node);
void stop_grace_period(Reading& reading, const Node& node);
void scale(Reading& reading, const Node& node);
void depends_on(Reading& reading, const Node& node);
void healthcheck(Reading& reading, const Node& node);
void deploy(Reading& reading, const Node& node);
void boot(Reading& reading, const Node& node);
void pull_policy(Reading& reading, const Node& node);
void build(Reading& reading, const Node& node);

// Resources and rights.
void cpus(Reading& reading, const Node& node);
void mem_limit(Reading& reading, const Node& node);
void pids_limit(Reading& reading, const Node& node);
void shm_size(Reading& reading, const Node& node);
void cap_add(Reading& reading, const Node& node);
void cap_drop(Reading& reading, const Node& node);
void privileged(Reading& reading, const Node& node);
void read_only(Reading& reading, const Node& node);
void init(Reading& reading, const Node& node);
void stdin_open(Reading& reading, const Node& node);
void tty(Reading& reading, const Node& node);
void ulimits(Reading& reading, const Node& node);
void sysctls(Reading& reading, const Node& node);

// Network and mounts.
void ports(Reading& reading, const Node& node);
void expose(Reading& reading, const Node& node);
void networks(Reading& reading, const Node& node);
void network_mode(Reading& reading, const Node& node);
void mac_address(Reading& reading, const Node& node);
void dns(Reading& reading, const Node& node);
void dns_search(Reading& reading, const Node& node);
void dns_opt(Reading& reading, const Node& node);
void extra_hosts(Reading& reading, const Node& node);
void volumes(Reading& reading, const Node& node);
void tmpfs(Reading& reading, const Node& node);

// Top-level networks and volumes.
void resource_name(Reading& reading, const Node& node);
void resource_external(Reading& reading, const Node& node);
void resource_labels(Reading& reading, const Node& node);
void network_driver(Reading& reading, const Node& node);
void network_internal(Reading& reading, const Node& node);
void network_ipam(Reading& reading, const Node& node);
void network_ipv6(Reading& reading, const Node& node);
void network_ipv4(Reading& reading, const Node& node);
void volume_driver(Reading& reading, const Node& node);

}  // namespace readers
}  // namespace spec
