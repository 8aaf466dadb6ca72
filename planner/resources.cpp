/// Plans about networks and volumes by themselves: make, remove, prune. No container is touched by
/// them, and nothing that a container uses goes.

#include <map>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/names.h"
#include "base/text.h"
#include "planner/draft.h"
#include "planner/plan.h"

namespace planner {

namespace {

using base::ErrorCode;

/// Name → one container that uses it, the first by name.
using Users = std::map<std::string, std::string>;

Users network_users(const Snapshot& actual) {
  Users users;
  for (const auto& [id, record] : actual.containers)
    for (const auto& [network, attachment] : record.applied.networks) users.emplace(network, id);
  return users;
}

Users volume_users(const Snapshot& actual) {
  Users users;
  for (const auto& [id, record] : actual.containers) {
    for (const spec::Mount& mount : record.applied.volumes)
      if (mount.type == spec::MountType::Volume && !mount.source.empty())
        users.emplace(mount.source, id);
    for (const std::string& volume : record.anonymous_volumes) users.emplace(volume, id);
  }
  return users;
}

/// `kind` is "network" or "volume".
template <class Record>
base::Error not_found(std::string_view kind, const std::string& name,
                      const std::map<std::string, Record>& records) {
  std::vector<std::string> names;
  for (const auto& [known, record] : records) names.push_back(known);
  const auto meant = base::did_you_mean(name, names);
  return base::Error(
      ErrorCode::NotFound,
      fmt::format("{} not found: {}; {}", kind, base::escape_controls(name),
                  meant ? fmt::format("did you mean '{}'?", *meant)
                        : fmt::format("'container {} list' shows those there are", kind)));
}

template <class Remove>
void add_removal(Draft& draft, std::string_view kind, const std::string& name, const char* reason) {
  draft.add(fmt::format("{}.{}", kind, name), Remove{name}, reason);
}

/// For one that was named.
template <class Remove, class Record>
base::Result<> remove_unused(Draft& draft, std::string_view kind, const std::string& name,
                             const std::map<std::string, Record>& records, const Users& users) {
  if (!records.contains(name)) return tl::unexpected<base::Error>(not_found(kind, name, records));
  if (const auto user = users.find(name); user != users.end())
    return base::fail(ErrorCode::Busy,
                      "{} '{}' is used by container '{}' and cannot be deleted; remove that "
                      "container first",
                      kind, name, user->second);
  add_removal<Remove>(draft, kind, name, "asked to remove it");
  return {};
}

/// For `--all`: what is used stays, and the plan says so.
template <class Remove>
void remove_unless_used(Draft& draft, std::string_view kind, const std::string& name,
                        const Users& users) {
  const auto user = users.find(name);
  if (user == users.end()) return add_removal<Remove>(draft, kind, name, "asked to remove all");
  draft.note(NoteKind::Warning, fmt::format("{}.{}", kind, name),
             fmt::format("{} '{}' is used by container '{}'; kept", kind, name, user->second));
}

std::set<std::string> distinct(const std::vector<std::string>& names) {
  return {names.begin(), names.end()};
}

}  // namespace

// ---- networks ----------------------------------------------------------------------------------

base::Result<Plan> plan_create_network(const NetworkRecord& record, const Snapshot& actual) {
  TRY(base::check_name("network", record.name));
  if (record.name == builtin_network_name)
    return base::fail(ErrorCode::Exists,
                      "network '{}' is built in; it is there as soon as a container joins it",
                      record.name);
  if (record.name == "none" || record.name == "host")
    return base::fail(ErrorCode::InvalidArgument,
                      "a network cannot be called '{}': '--network {}' does not mean one that was "
                      "made; choose another name",
                      record.name, record.name);
  if (actual.networks.contains(record.name))
    return base::fail(ErrorCode::Exists,
                      "network '{}' exists already; use it, remove it first, or choose another "
                      "name",
                      record.name);
  Draft draft;
  draft.add("network." + record.name, CreateNetwork{record}, "asked to create it");
  return std::move(draft).finish("", "network create", actual);
}

base::Result<Plan> plan_remove_network(const std::vector<std::string>& names,
                                       const Snapshot& actual) {
  Draft draft;
  const Users users = network_users(actual);
  for (const std::string& name : distinct(names)) {
    if (name == builtin_network_name)
      return base::fail(ErrorCode::InvalidState,
                        "cannot delete a builtin network: {}; it takes nothing while no container "
                        "is on it",
                        name);
    TRY(remove_unused<RemoveNetwork>(draft, "network", name, actual.networks, users));
  }
  return std::move(draft).finish("", "network remove", actual);
}

Plan plan_remove_all_networks(const Snapshot& actual) {
  Draft draft;
  const Users users = network_users(actual);
  for (const auto& [name, network] : actual.networks)
    if (!network.builtin) remove_unless_used<RemoveNetwork>(draft, "network", name, users);
  return std::move(draft).finish("", "network remove", actual);
}

Plan plan_prune_networks(const Snapshot& actual) {
  Draft draft;
  const Users users = network_users(actual);
  std::set<std::string> projects;
  for (const auto& [id, record] : actual.containers)
    if (!record.project.empty()) projects.insert(record.project);
  for (const auto& [name, network] : actual.networks)
    if (!network.builtin && !users.contains(name) && !projects.contains(network.project))
      add_removal<RemoveNetwork>(draft, "network", name, "no container uses it");
  return std::move(draft).finish("", "network prune", actual);
}

// ---- volumes -----------------------------------------------------------------------------------

base::Result<Plan> plan_create_volume(const VolumeRecord& record, const Snapshot& actual) {
  TRY(base::check_volume_name(record.name));
  Draft draft;
  const auto found = actual.volumes.find(record.name);
  if (found == actual.volumes.end()) {
    draft.add("volume." + record.name, CreateVolume{record}, "asked to create it");
  } else if (found->second.present) {
    return base::fail(ErrorCode::Exists,
                      "volume '{}' exists already; use it, remove it first, or choose another name",
                      record.name);
  } else {
    draft.add("volume." + record.name, CreateVolume{found->second}, "its folder is missing");
  }
  return std::move(draft).finish("", "volume create", actual);
}

base::Result<Plan> plan_remove_volume(const std::vector<std::string>& names,
                                      const Snapshot& actual) {
  Draft draft;
  const Users users = volume_users(actual);
  for (const std::string& name : distinct(names))
    TRY(remove_unused<RemoveVolume>(draft, "volume", name, actual.volumes, users));
  return std::move(draft).finish("", "volume remove", actual);
}

Plan plan_remove_all_volumes(const Snapshot& actual) {
  Draft draft;
  const Users users = volume_users(actual);
  for (const auto& [name, volume] : actual.volumes)
    remove_unless_used<RemoveVolume>(draft, "volume", name, users);
  return std::move(draft).finish("", "volume remove", actual);
}

Plan plan_prune_volumes(const Snapshot& actual, bool named) {
  Draft draft;
  const Users users = volume_users(actual);
  for (const auto& [name, volume] : actual.volumes)
    if ((named || volume.anonymous) && !users.contains(name))
      add_removal<RemoveVolume>(draft, "volume", name, "no container uses it");
  return std::move(draft).finish("", "volume prune", actual);
}

}  // namespace planner
