#pragma once
/// What exists: the planner's second input. Records come from the state store, observations from
/// the drivers; the reconciler joins them into one Snapshot.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "spec/stack.h"

namespace planner {

/// What the user wants of a container that exists.
enum class Wanted { Running, Stopped };

/// Missing: a record without disk or VM. Unknown: its VM does not answer.
enum class Phase { Created, Running, Exited, Missing, Unknown };
enum class HealthState { None, Starting, Healthy, Unhealthy };

struct PublishedPort {
  std::string host_ip;
  uint16_t published = 0;  ///< As bound, never 0.
  uint16_t target = 0;
  spec::Protocol protocol = spec::Protocol::Tcp;
};

struct NetworkPlace {
  std::string network;  ///< Full name.
  std::string address;  ///< CIDR.
  std::string gateway;
  std::string mac;
};

/// One container: what was applied, and what is known of it. Durable.
struct ContainerRecord {
  std::string id;            ///< `<project>-<service>-<n>`, container_name, or chosen.
  std::string project;       ///< Empty for `container run`.
  std::string service;       ///< Key in the stack; empty for `container run`.
  uint32_t index = 1;        ///< Replica number, from 1.
  bool one_off = false;      ///< `container run`: no stack's plan touches it.
  bool auto_remove = false;  ///< `--rm`
  uint64_t generation = 1;   ///< Grows with every change of `applied`.
  spec::Service applied;     ///< Networks and volumes are full names in here.
  std::string image_digest;
  Wanted wanted = Wanted::Running;
  std::string working_dir;  ///< Of the project, for labels.

  // Observed; kept so that a restart of the daemon loses nothing.
  Phase phase = Phase::Created;
  HealthState health = HealthState::None;
  std::string paused_reason;  ///< Of a running one whose machine is held; empty: it is not.
  int32_t exit_code = 0;
  bool out_of_memory = false;
  std::string exit_reason;  ///< For a VM that died under its process.
  uint32_t restart_count = 0;
  int64_t created_wall_ns = 0;
  int64_t started_wall_ns = 0;
  int64_t finished_wall_ns = 0;
  uint32_t machine_cpus = 0;  ///< 0: not known.
  uint64_t machine_memory_bytes = 0;
  std::vector<NetworkPlace> places;
  std::vector<PublishedPort> published;
  std::vector<std::string> anonymous_volumes;
};

struct NetworkRecord {
  std::string name;
  std::string project;  ///< Empty: made by hand, or builtin.
  std::string key;
  spec::Network applied;
  std::string subnet;
  std::string gateway;
  bool builtin = false;  ///< `default`: never removed.
  int64_t created_wall_ns = 0;
  bool alive = true;  ///< Observed: its process answers.
};

struct VolumeRecord {
  std::string name;
  std::string project;
  std::string key;
  spec::Volume applied;
  bool anonymous = false;
  int64_t created_wall_ns = 0;
  bool present = true;  ///< Observed: its folder is there.
};

struct Snapshot {
  uint64_t serial = 0;
  std::string lineage;
  std::map<std::string, ContainerRecord> containers;  ///< By id.
  std::map<std::string, NetworkRecord> networks;      ///< By full name.
  std::map<std::string, VolumeRecord> volumes;        ///< By full name.
  std::map<std::string, std::string> image_digests;   ///< By reference as written in a service.
};

nlohmann::json to_json(const ContainerRecord& record);
nlohmann::json to_json(const NetworkRecord& record);
nlohmann::json to_json(const VolumeRecord& record);
base::Result<ContainerRecord> container_record_from_json(const nlohmann::json& json);
base::Result<NetworkRecord> network_record_from_json(const nlohmann::json& json);
base::Result<VolumeRecord> volume_record_from_json(const nlohmann::json& json);

}  // namespace planner
