#pragma once
/// What the user wants: a Stack of services, networks and volumes, canonical and complete.
///
/// Every reader (YAML, TOML, the command line) produces this one model; the planner, the state
/// store and the wire use nothing else. Canonical means: short forms expanded, paths absolute,
/// durations in nanoseconds, sizes in bytes, env files read, lists that are sets sorted.
/// Absent is std::nullopt and means "as the image or the system says".
///
/// Each struct lists its fields once more in spec/fields.h; from that list come its JSON form, its
/// comparison and the field names a plan prints. Source of names: the Compose Specification.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace spec {

/// `KEY` without a value in a file means: remove it, even if the image sets it.
using Environment = std::map<std::string, std::optional<std::string>>;
using Labels = std::map<std::string, std::string>;

enum class Protocol { Tcp, Udp };

/// One published port. Ranges on both sides are expanded by the reader; a range of the host alone
/// is a choice.
struct Port {
  std::string host_ip = "127.0.0.1";  ///< What was not written is loopback, on purpose.
  uint16_t published = 0;             ///< 0: any free port, chosen at start.
  uint16_t target = 0;
  Protocol protocol = Protocol::Tcp;
  uint16_t published_last = 0;  ///< Not 0: a choice, the first free one of `published` to this.
  bool operator==(const Port&) const = default;
};

enum class MountType { Bind, Volume, Tmpfs };

struct Mount {
  MountType type = MountType::Volume;
  /// Bind: absolute host path. Volume: key of Stack::volumes, empty for an anonymous volume.
  std::string source;
  std::string target;  ///< Absolute path in the container.
  bool read_only = false;
  bool create_host_path = true;  ///< Bind: make a missing source folder.
  bool no_copy = false;          ///< Volume: do not take over the image's content.
  std::optional<uint64_t> tmpfs_bytes;
  std::optional<uint32_t> tmpfs_mode;
};

enum class DependencyCondition { Started, Healthy, CompletedSuccessfully };

struct Dependency {
  DependencyCondition condition = DependencyCondition::Started;
  bool restart = false;  ///< Restart us when the dependency is replaced.
  bool required = true;  ///< false: a missing or failed dependency is a warning.
};

struct HealthCheck {
  bool disable = false;
  /// As written after CMD, or {"/bin/sh","-c",text} for CMD-SHELL. Empty: the image's own.
  std::vector<std::string> test;
  std::optional<int64_t> interval_ns;        ///< Default 30 s.
  std::optional<int64_t> timeout_ns;         ///< Default 30 s.
  std::optional<int64_t> start_period_ns;    ///< Default 0 s.
  std::optional<int64_t> start_interval_ns;  ///< Default 5 s.
  std::optional<uint32_t> retries;           ///< Default 3.
};

enum class RestartCondition { No, OnFailure, Always, UnlessStopped };

struct RestartPolicy {
  RestartCondition condition = RestartCondition::No;
  std::optional<uint32_t> retries_max;  ///< OnFailure only.
};

struct Attachment {
  std::vector<std::string> aliases;  ///< Besides the service and container name.
  std::optional<std::string> ipv4_address;
  std::optional<std::string> mac_address;
  int32_t priority = 0;          ///< Higher attaches first.
  int32_t gateway_priority = 0;  ///< The highest gets the default route.
};

struct Ulimit {
  int64_t soft = 0;  ///< -1: unlimited.
  int64_t hard = 0;
};

enum class BootMode { Clone, Cold };

struct Service {
  std::string image;
  std::optional<std::string> platform;
  std::optional<std::vector<std::string>> command;     ///< Empty list: none, not the image's.
  std::optional<std::vector<std::string>> entrypoint;  ///< Set: the image's CMD is dropped too.
  Environment environment;                             ///< env_file already merged in.
  std::optional<std::string> working_dir;
  std::optional<std::string> user;
  std::vector<std::string> group_add;
  std::optional<std::string> hostname;
  std::optional<std::string> domainname;
  std::optional<std::string> container_name;
  Labels labels;
  Labels annotations;

  std::vector<Port> ports;
  std::vector<std::string> expose;
  /// Keys of Stack::networks. Empty with `network_mode` "none"; otherwise at least `default`.
  std::map<std::string, Attachment> networks;
  std::string network_mode;  ///< "" or "none".
  std::vector<std::string> dns;
  std::vector<std::string> dns_search;
  std::vector<std::string> dns_options;
  std::vector<std::string> extra_hosts;  ///< `name=address`.

  std::vector<Mount> volumes;
  bool read_only = false;
  std::optional<uint64_t> shm_bytes;

  std::map<std::string, Dependency> depends_on;
  std::optional<HealthCheck> healthcheck;
  RestartPolicy restart;
  std::optional<std::string> stop_signal;
  std::optional<int64_t> stop_grace_period_ns;  ///< Default 10 s.
  uint32_t scale = 1;

  std::optional<double> cpus;
  std::optional<uint64_t> memory_bytes;
  std::optional<int64_t> pids_limit;
  std::vector<std::string> cap_add;  ///< `NET_ADMIN` form, or `ALL`.
  std::vector<std::string> cap_drop;
  bool privileged = false;
  bool init = false;
  bool stdin_open = false;
  bool tty = false;
  std::map<std::string, Ulimit> ulimits;
  std::map<std::string, std::string> sysctls;

  BootMode boot = BootMode::Clone;  ///< Ours: `x-boot`.
  /// Ours, of no file: a machine for the steps of image builds (reconciler/ports/build.h). No
  /// program of the image runs in it by itself.
  bool build_machine = false;
};

struct Network {
  std::string name;  ///< Full name; `<project>_<key>` unless set.
  bool external = false;
  bool internal = false;              ///< No way out, by address as well as by name.
  std::optional<std::string> subnet;  ///< IPv4 CIDR; otherwise chosen by the network port.
  std::optional<std::string> gateway;
  Labels labels;
};

struct Volume {
  std::string name;  ///< Full name; `<project>_<key>` unless set.
  bool external = false;
  Labels labels;
};

/// How the image of a service is made: its `build` section.
struct Build {
  std::string context;     ///< Absolute folder, or an address (`https://…/x.git#main`).
  std::string dockerfile;  ///< Inside the context or absolute; empty: the usual names.
  std::optional<std::string> dockerfile_inline;
  std::map<std::string, std::string> args;
  std::string target;  ///< Empty: the last stage.
  Labels labels;
  std::vector<std::string> tags;       ///< Besides the service's image.
  std::vector<std::string> platforms;  ///< Empty: the service's, else the host's.
  bool no_cache = false;
  std::vector<std::string> no_cache_filter;  ///< Stages: these alone are made anew.
  bool pull = false;
  std::string network;  ///< "" or "none".
  std::optional<uint64_t> shm_bytes;
  std::map<std::string, Ulimit> ulimits;
  std::vector<std::string> ssh;  ///< `default`, `id=path`.
  std::vector<std::string> cache_from;
  std::vector<std::string> cache_to;
  std::map<std::string, std::string> additional_contexts;
  std::vector<std::string> extra_hosts;  ///< `name=address`.
  bool privileged = false;
};

struct Stack {
  std::string name;                ///< Project; empty for containers of `container run`.
  std::string working_dir;         ///< Project folder; empty for `container run`.
  std::vector<std::string> files;  ///< The stack files it was read from, absolute.
  std::map<std::string, Service> services;
  std::map<std::string, Network> networks;
  std::map<std::string, Volume> volumes;
  /// By service. Apart from the services, since a container is what its image is, however made.
  std::map<std::string, Build> builds;
};

}  // namespace spec
