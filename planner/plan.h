#pragma once
/// Turns what should exist (a Stack) and what does exist (a Snapshot) into an ordered Plan.
///
/// Pure: no files, no clock, no network. The same inputs give the same bytes of output. Executes
/// nothing; see reconciler/. A Plan is a value: it prints as text and JSON, can be saved, reviewed
/// and applied later; `check_fresh` tells whether the world is still the one it was made for.

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "planner/snapshot.h"
#include "spec/json.h"
#include "spec/stack.h"

namespace planner {

struct CreateNetwork {
  NetworkRecord record;
};
struct RemoveNetwork {
  std::string name;
};
struct CreateVolume {
  VolumeRecord record;
};
struct RemoveVolume {
  std::string name;  ///< Destroys data: only ever planned when asked for.
};
/// Disk and record; the process is a StartContainer of its own.
struct CreateContainer {
  ContainerRecord record;
};
/// What the guest does not see, or the agent can change in place: the record becomes this.
struct UpdateContainer {
  ContainerRecord record;
};
struct StartContainer {
  std::string id;
};
struct StopContainer {
  std::string id;
  std::optional<std::string> signal;  ///< Absent: the service's, else the image's, else SIGTERM.
  std::optional<int64_t> grace_ms;    ///< Absent: the service's, else 10 s.
};
struct KillContainer {
  std::string id;
  std::string signal = "KILL";
};
struct RemoveContainer {
  std::string id;
  bool anonymous_volumes = false;
};
/// Waits for a condition of depends_on (or of --wait); fails when it can no longer come true.
struct AwaitContainer {
  std::string id;
  spec::DependencyCondition condition = spec::DependencyCondition::Started;
  /// false: failure of the wait, or of a step before it, is a warning and the plan goes on.
  bool required = true;
  bool healthy_if_checked = false;  ///< With Started: healthy too, where there is a healthcheck.
  int64_t timeout_ms = 0;           ///< 0: as long as the condition can still come true.
};

using Operation = std::variant<CreateNetwork, RemoveNetwork, CreateVolume, RemoveVolume,
                               CreateContainer, UpdateContainer, StartContainer, StopContainer,
                               KillContainer, RemoveContainer, AwaitContainer>;

struct StepId {
  uint32_t value = 0;
  friend bool operator==(const StepId&, const StepId&) = default;
  friend auto operator<=>(const StepId&, const StepId&) = default;
};

struct Step {
  StepId id;            ///< From 1, in an order that respects `after`.
  std::string address;  ///< `service.web[1]`, `network.front`, `container.x`
  Operation operation;
  std::vector<StepId> after;               ///< These must have succeeded first.
  std::string reason;                      ///< A sentence: the difference that asked for this step.
  std::vector<spec::FieldChange> changes;  ///< Fields, for updates and replacements.
  bool replaces = false;                   ///< Part of a replacement (stop, remove, create, start).
};

enum class NoteKind { Orphan, Drift, Warning };
struct Note {
  NoteKind kind = NoteKind::Warning;
  std::string address;
  std::string text;
};

/// What the plan took for granted about one resource, in words: `absent`, `generation 3`.
struct Basis {
  std::string address;  ///< `container.x`, `network.x`, `volume.x`: full names.
  std::string state;
};

struct Plan {
  int format_version = 1;
  std::string project;
  std::string command;       ///< `up`, `down`, `run`, `stop`, …
  uint64_t base_serial = 0;  ///< Snapshot it was made from.
  std::string lineage;
  std::vector<Basis> basis;  ///< Of every resource a step touches; see check_fresh.
  std::vector<Step> steps;
  std::vector<Note> notes;
};

struct UpOptions {
  std::vector<std::string> services;  ///< Empty: all. Their dependencies come along.
  bool force_recreate = false;
  bool no_recreate = false;
  bool no_start = false;
  bool no_dependencies = false;
  bool remove_orphans = false;
  bool wait = false;  ///< Add an AwaitContainer for every service.
  int64_t wait_timeout_ms = 0;
  std::optional<int64_t> stop_grace_ms;
  std::vector<std::pair<std::string, uint32_t>> scale;
};

/// Makes reality match `wanted`. Fails with InvalidArgument on a dependency cycle (the message
/// walks it by name) and with NotFound for an image that is not in the snapshot.
base::Result<Plan> plan_up(const spec::Stack& wanted, const Snapshot& actual,
                           const UpOptions& options = {});

struct DownOptions {
  bool volumes = false;
  bool remove_orphans = false;  ///< Without a file everything of the project goes anyway.
  std::optional<int64_t> stop_grace_ms;
};
/// Removes everything of `project`, dependents before dependencies. Works from records alone.
base::Result<Plan> plan_down(const std::string& project, const Snapshot& actual,
                             const DownOptions& options = {});

/// One container outside any stack. `record.id` must be free; its networks must exist, but for the
/// built-in `default`, which is made along with it.
base::Result<Plan> plan_create(const ContainerRecord& record,
                               const std::vector<VolumeRecord>& volumes, const Snapshot& actual,
                               bool start);
base::Result<Plan> plan_start(const std::vector<std::string>& ids, const Snapshot& actual,
                              const std::string& reason);
base::Result<Plan> plan_stop(const std::vector<std::string>& ids, const Snapshot& actual,
                             std::optional<std::string> signal, std::optional<int64_t> grace_ms);
base::Result<Plan> plan_kill(const std::vector<std::string>& ids, const Snapshot& actual,
                             const std::string& signal);
/// InvalidState for a running one unless `force`.
base::Result<Plan> plan_remove(const std::vector<std::string>& ids, const Snapshot& actual,
                               bool force, bool anonymous_volumes);
/// A network outside any stack. Exists if there is one of that name; `default` is the system's own.
base::Result<Plan> plan_create_network(const NetworkRecord& record, const Snapshot& actual);
/// All are checked before one is removed: NotFound, Busy naming the container that uses it, and
/// InvalidState for the built-in one.
base::Result<Plan> plan_remove_network(const std::vector<std::string>& names,
                                       const Snapshot& actual);
/// Every network but the built-in one; a note for each that stays because a container uses it.
Plan plan_remove_all_networks(const Snapshot& actual);
/// What no container uses and no project that has containers calls its own: those may come back
/// to it with the next `up`.
Plan plan_prune_networks(const Snapshot& actual);

/// A volume outside any stack. Exists if there is one of that name, unless its folder is missing.
base::Result<Plan> plan_create_volume(const VolumeRecord& record, const Snapshot& actual);
/// All are checked before one is removed: NotFound, and Busy naming the container that uses it.
base::Result<Plan> plan_remove_volume(const std::vector<std::string>& names,
                                      const Snapshot& actual);
/// Every volume; a note for each that stays because a container uses it.
Plan plan_remove_all_volumes(const Snapshot& actual);
/// Anonymous volumes that no container uses, or with `named` all that none uses.
Plan plan_prune_volumes(const Snapshot& actual, bool named);

/// InvalidState if the store is another one, or if a record that the plan relies on has changed
/// since; says which, and to plan again.
base::Result<> check_fresh(const Plan& plan, const Snapshot& actual);

/// The text people read; `up` and `plan` print the same. No steps: "No changes. …".
std::string render_text(const Plan& plan);
/// One line for a step, also used for progress: `+ service.web[1]  create container`.
std::string describe(const Step& step);

nlohmann::json to_json(const Plan& plan);
base::Result<Plan> plan_from_json(const nlohmann::json& json);

}  // namespace planner
