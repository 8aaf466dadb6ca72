/// Plans that name what they want: down, create, start, stop, kill, remove. Each is the smallest
/// graph that does it; order between containers comes from the depends_on of their records.

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "base/names.h"
#include "planner/draft.h"
#include "planner/plan.h"

namespace planner {

namespace {

using base::ErrorCode;
using Records = std::vector<const ContainerRecord*>;

base::Result<Records> find_containers(const std::vector<std::string>& ids, const Snapshot& actual) {
  Records records;
  std::set<std::string> seen;
  for (const std::string& id : ids) {
    const auto found = actual.containers.find(id);
    if (found == actual.containers.end())
      return base::fail(ErrorCode::NotFound,
                        "container '{}' does not exist; 'container ls --all' lists those that do",
                        id);
    if (seen.insert(id).second) records.push_back(&found->second);
  }
  return records;
}

/// The project of all of them, or "" if they are of several or of none.
std::string common_project(const Records& records) {
  if (records.empty()) return "";
  const std::string& project = records.front()->project;
  const bool all = std::all_of(records.begin(), records.end(),
                               [&](const auto* record) { return record->project == project; });
  return all ? project : "";
}

using Nodes = std::map<const ContainerRecord*, Draft::Node>;

/// Calls `edge(dependent, dependency)` for every pair of `records` that depend on each other.
template <class Edge>
void for_each_dependency(const Records& records, const Edge& edge) {
  std::map<std::pair<std::string_view, std::string_view>, Records> of_service;
  for (const ContainerRecord* record : records)
    if (!record->service.empty() && !record->one_off)
      of_service[{record->project, record->service}].push_back(record);
  for (const ContainerRecord* record : records)
    for (const auto& [name, how] : record->applied.depends_on)
      if (const auto found = of_service.find({record->project, name}); found != of_service.end())
        for (const ContainerRecord* dependency : found->second) edge(*record, *dependency, how);
}

Draft::Node add_stop(Draft& draft, const ContainerRecord& record, const std::string& reason,
                     std::optional<std::string> signal, std::optional<int64_t> grace_ms) {
  return draft.add(address_of(record), StopContainer{record.id, std::move(signal), grace_ms},
                   reason);
}

void order_stops(Draft& draft, const Records& records, const Nodes& stops) {
  for_each_dependency(records, [&](const ContainerRecord& dependent,
                                   const ContainerRecord& dependency, const auto&) {
    const auto first = stops.find(&dependent);
    const auto second = stops.find(&dependency);
    if (first != stops.end() && second != stops.end()) draft.order(first->second, second->second);
  });
}

/// Removes the networks of `project` once nobody is on them.
void remove_networks(Draft& draft, const std::string& project, const Snapshot& actual,
                     const Nodes& removals) {
  std::map<std::string, Records> users;
  for (const auto& [id, record] : actual.containers)
    for (const auto& [network, attachment] : record.applied.networks)
      users[network].push_back(&record);
  for (const auto& [name, network] : actual.networks) {
    if (network.project != project || network.builtin || network.applied.external) continue;
    const Records& attached = users[name];
    const auto stranger =
        std::find_if(attached.begin(), attached.end(),
                     [&](const ContainerRecord* user) { return !removals.contains(user); });
    if (stranger != attached.end()) {
      draft.note(
          NoteKind::Warning, "network." + network.key,
          fmt::format("network '{}' is still used by container '{}'; kept", name, (*stranger)->id));
      continue;
    }
    const auto node = draft.add("network." + network.key, RemoveNetwork{name}, "the project goes");
    for (const ContainerRecord* user : attached) draft.order(removals.at(user), node);
  }
}

}  // namespace

base::Result<Plan> plan_down(const std::string& project, const Snapshot& actual,
                             const DownOptions& options) {
  if (project.empty())
    return base::fail(ErrorCode::InvalidArgument, "down needs the name of a project");
  Draft draft;
  Records records;
  for (const auto& [id, record] : actual.containers)
    if (record.project == project) records.push_back(&record);
  Nodes stops;
  Nodes removals;
  for (const ContainerRecord* record : records) {
    if (may_run(*record))
      stops[record] = add_stop(draft, *record, "the project goes", {}, options.stop_grace_ms);
    removals[record] = draft.add(address_of(*record), RemoveContainer{record->id, options.volumes},
                                 "the project goes");
    if (may_run(*record)) draft.order(stops[record], removals[record]);
  }
  order_stops(draft, records, stops);
  remove_networks(draft, project, actual, removals);
  if (!options.volumes) return std::move(draft).finish(project, "down", actual);
  for (const auto& [name, volume] : actual.volumes) {
    if (volume.project != project || volume.applied.external || volume.anonymous) continue;
    const auto node = draft.add("volume." + volume.key, RemoveVolume{name},
                                "the project goes, with its volumes, as asked");
    for (const auto& [record, removal] : removals) draft.order(removal, node);
  }
  return std::move(draft).finish(project, "down", actual);
}

base::Result<Plan> plan_create(const ContainerRecord& record,
                               const std::vector<VolumeRecord>& volumes, const Snapshot& actual,
                               bool start) {
  TRY(base::check_name("container", record.id));
  if (actual.containers.contains(record.id))
    return base::fail(ErrorCode::Exists,
                      "container '{}' exists already; remove it or choose another name", record.id);
  for (const auto& [network, attachment] : record.applied.networks)
    if (!actual.networks.contains(network) && network != builtin_network_name)
      return base::fail(ErrorCode::NotFound,
                        "network '{}' does not exist; create it with 'container network create {}'",
                        network, network);
  Draft draft;
  ContainerRecord wanted = record;
  wanted.wanted = start ? Wanted::Running : Wanted::Stopped;
  const std::string address = address_of(record);
  std::vector<Draft::Node> before;
  for (const VolumeRecord& volume : volumes) {
    const auto found = actual.volumes.find(volume.name);
    if (found != actual.volumes.end() && found->second.present) continue;
    TRY(base::check_volume_name(volume.name));
    before.push_back(draft.add("volume." + volume.name,
                               CreateVolume{found == actual.volumes.end() ? volume : found->second},
                               "the container uses it and it does not exist"));
  }
  for (const auto& [network, attachment] : record.applied.networks) {
    const auto found = actual.networks.find(network);
    if (found == actual.networks.end())
      before.push_back(draft.add("network." + network, CreateNetwork{builtin_network()},
                                 "the built-in network is needed for the first time"));
    else if (!found->second.alive)
      before.push_back(draft.add("network." + network, CreateNetwork{found->second},
                                 "it does not answer any more"));
  }
  const auto create = draft.add(address, CreateContainer{wanted}, "asked to create it");
  for (const auto node : before) draft.order(node, create);
  if (start)
    draft.order(create, draft.add(address, StartContainer{record.id}, "asked to start it"));
  return std::move(draft).finish(record.project, start ? "run" : "create", actual);
}

base::Result<Plan> plan_start(const std::vector<std::string>& ids, const Snapshot& actual,
                              const std::string& reason) {
  const Records records = TRY(find_containers(ids, actual));
  Draft draft;
  Nodes starts;
  for (const ContainerRecord* record : records) {
    if (record->phase == Phase::Running && record->wanted == Wanted::Running) continue;
    std::optional<Draft::Node> create;
    if (record->phase == Phase::Missing) {
      draft.note(
          NoteKind::Drift, address_of(*record),
          fmt::format("the disk of container '{}' is missing; it will be made anew", record->id));
      create = draft.add(address_of(*record), CreateContainer{*record}, "its disk is missing");
    }
    const auto node = draft.add(address_of(*record), StartContainer{record->id}, reason);
    if (create) draft.order(*create, node);
    starts.emplace(record, node);
  }
  for_each_dependency(records, [&](const ContainerRecord& dependent,
                                   const ContainerRecord& dependency, const auto& how) {
    const auto first = starts.find(&dependency);
    const auto second = starts.find(&dependent);
    if (how.required && first != starts.end() && second != starts.end())
      draft.order(first->second, second->second);
  });
  return std::move(draft).finish(common_project(records), "start", actual);
}

base::Result<Plan> plan_stop(const std::vector<std::string>& ids, const Snapshot& actual,
                             std::optional<std::string> signal, std::optional<int64_t> grace_ms) {
  const Records records = TRY(find_containers(ids, actual));
  Draft draft;
  Nodes stops;
  // One that is not running but is wanted so is stopped as well: else its policy would start it.
  for (const ContainerRecord* record : records)
    if (has_vm(*record) || record->wanted == Wanted::Running)
      stops.emplace(record, add_stop(draft, *record, "asked to stop it", signal, grace_ms));
  order_stops(draft, records, stops);
  return std::move(draft).finish(common_project(records), "stop", actual);
}

base::Result<Plan> plan_kill(const std::vector<std::string>& ids, const Snapshot& actual,
                             const std::string& signal) {
  const Records records = TRY(find_containers(ids, actual));
  Draft draft;
  for (const ContainerRecord* record : records) {
    if (!has_vm(*record))
      return base::fail(ErrorCode::InvalidState, "cannot kill '{}': it is not running", record->id);
    draft.add(address_of(*record), KillContainer{record->id, signal},
              fmt::format("asked to send it {}", signal));
  }
  return std::move(draft).finish(common_project(records), "kill", actual);
}

base::Result<Plan> plan_remove(const std::vector<std::string>& ids, const Snapshot& actual,
                               bool force, bool anonymous_volumes) {
  const Records records = TRY(find_containers(ids, actual));
  Draft draft;
  Nodes stops;
  for (const ContainerRecord* record : records) {
    if (has_vm(*record) && !force)
      return base::fail(ErrorCode::InvalidState,
                        "cannot remove '{}': it is running; stop it first, or force the removal",
                        record->id);
    const auto removal = draft.add(
        address_of(*record), RemoveContainer{record->id, anonymous_volumes}, "asked to remove it");
    if (!may_run(*record)) continue;
    stops.emplace(record, add_stop(draft, *record, "asked to remove it", "KILL", 0));
    draft.order(stops.at(record), removal);
  }
  order_stops(draft, records, stops);
  return std::move(draft).finish(common_project(records), "remove", actual);
}

}  // namespace planner
