#include "api/commands.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "base/names.h"
#include "base/overloaded.h"
#include "base/text.h"
#include "reconciler/policy.h"
#include "spec/json.h"

namespace api {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;
using planner::ContainerRecord;
using planner::Phase;
using planner::Plan;
using planner::Snapshot;

// --- reading
// --------------------------------------------------------------------------------------

/// The member, or null where it is absent or null.
const json* member(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

tl::unexpected<base::Error> wrong_type(const char* key, std::string_view wanted,
                                       const json& value) {
  return base::fail(ErrorCode::InvalidArgument, "'{}' must be {}, not {}", key, wanted,
                    value.type_name());
}

std::optional<uint64_t> whole_number(const json& value) {
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  if (value.is_number_integer() && value.get<int64_t>() >= 0) return value.get<uint64_t>();
  return std::nullopt;
}

Result<> check_keys(const json& object, std::string_view what,
                    const std::vector<std::string>& known) {
  if (!object.is_object())
    return base::fail(ErrorCode::InvalidArgument, "{} must be an object, not {}", what,
                      object.type_name());
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const auto meant = base::did_you_mean(key, known);
    return base::fail(ErrorCode::InvalidArgument, "{} has no member '{}'{}", what,
                      base::escape_controls(key),
                      meant ? fmt::format("; did you mean '{}'?", *meant) : "");
  }
  return {};
}

Result<bool> read_flag(const json& object, const char* key, bool fallback = false) {
  const json* value = member(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return wrong_type(key, "true or false", *value);
  return value->get<bool>();
}

Result<std::optional<std::string>> read_text(const json& object, const char* key) {
  const json* value = member(object, key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) return wrong_type(key, "text", *value);
  return value->get<std::string>();
}

Result<std::vector<std::string>> read_texts(const json& object, const char* key) {
  std::vector<std::string> texts;
  const json* value = member(object, key);
  if (value == nullptr) return texts;
  if (!value->is_array()) return wrong_type(key, "a list of texts", *value);
  for (const json& item : *value) {
    if (!item.is_string()) return wrong_type(key, "a list of texts", item);
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

/// Known to be a signal, so that a plan does not fail halfway for a typing error.
Result<std::optional<std::string>> read_signal(const json& object) {
  std::optional<std::string> text = TRY(read_text(object, "signal"));
  if (text && !reconciler::parse_signal(*text))
    return base::fail(ErrorCode::InvalidArgument,
                      "'{}' is no signal; write a name such as TERM, or a number",
                      base::escape_controls(*text));
  return text;
}

/// `key` holds the names of things that are called `what`.
Result<Chosen> read_chosen(const json& object, const char* key = "ids",
                           std::string_view what = "container") {
  Chosen chosen;
  chosen.ids = TRY(read_texts(object, key));
  chosen.all = TRY(read_flag(object, "all"));
  const bool star = chosen.ids == std::vector<std::string>{"*"};
  if (chosen.all && !chosen.ids.empty() && !star)
    return base::fail(ErrorCode::InvalidArgument, "name {}s, or ask for all, not both", what);
  if (star && !chosen.all)
    return base::fail(ErrorCode::InvalidArgument, "\"{}\": [\"*\"] needs \"all\": true", key);
  if (chosen.ids.empty() && !chosen.all)
    return base::fail(ErrorCode::InvalidArgument, "name at least one {}, or ask for all", what);
  if (star) chosen.ids.clear();
  return chosen;
}

Result<spec::Labels> read_labels(const json& object) {
  spec::Labels labels;
  const json* value = member(object, "labels");
  if (value == nullptr) return labels;
  if (!value->is_object()) return wrong_type("labels", "an object of texts", *value);
  for (const auto& [key, text] : value->items()) {
    if (!text.is_string()) return wrong_type("labels", "an object of texts", text);
    labels.emplace(key, text.get<std::string>());
  }
  return labels;
}

Result<spec::Stack> read_stack(const json& object) {
  const json* stack = member(object, "stack");
  if (stack == nullptr) return base::fail(ErrorCode::InvalidArgument, "'stack' is missing");
  return TRY_DURING(spec::stack_from_json(*stack), "read the stack");
}

const json& options_of(const json& object) {
  static const json none = json::object();
  const json* options = member(object, "options");
  return options == nullptr ? none : *options;
}

Result<std::vector<std::pair<std::string, uint32_t>>> read_scale(const json& options) {
  std::vector<std::pair<std::string, uint32_t>> scale;
  const json* value = member(options, "scale");
  if (value == nullptr) return scale;
  if (!value->is_object()) return wrong_type("scale", "an object of numbers", *value);
  for (const auto& [service, count] : value->items()) {
    const auto replicas = whole_number(count);
    if (!replicas || *replicas > base::limits::stack_scale_max)
      return base::fail(ErrorCode::InvalidArgument, "the scale of '{}' must be from 0 to {}",
                        base::escape_controls(service), base::limits::stack_scale_max);
    scale.emplace_back(service, static_cast<uint32_t>(*replicas));
  }
  return scale;
}

Result<Command> read_up(const json& object) {
  UpCommand up;
  up.stack = TRY(read_stack(object));
  TRY(base::check_project_name(up.stack.name));
  const json& options = options_of(object);
  TRY(check_keys(options, "the options of up",
                 {"services", "force_recreate", "no_recreate", "no_start", "no_dependencies",
                  "remove_orphans", "wait", "wait_timeout_ms", "stop_grace_ms", "scale"}));
  up.options.services = TRY(read_texts(options, "services"));
  up.options.force_recreate = TRY(read_flag(options, "force_recreate"));
  up.options.no_recreate = TRY(read_flag(options, "no_recreate"));
  up.options.no_start = TRY(read_flag(options, "no_start"));
  up.options.no_dependencies = TRY(read_flag(options, "no_dependencies"));
  up.options.remove_orphans = TRY(read_flag(options, "remove_orphans"));
  up.options.wait = TRY(read_flag(options, "wait"));
  up.options.wait_timeout_ms = TRY(read_milliseconds(options, "wait_timeout_ms")).value_or(0);
  up.options.stop_grace_ms = TRY(read_milliseconds(options, "stop_grace_ms"));
  up.options.scale = TRY(read_scale(options));
  if (up.options.force_recreate && up.options.no_recreate)
    return base::fail(ErrorCode::InvalidArgument,
                      "force_recreate and no_recreate contradict each other; choose one");
  return up;
}

Result<Command> read_down(const json& object) {
  DownCommand down;
  down.project = TRY(read_text(object, "project")).value_or("");
  TRY(base::check_project_name(down.project));
  const json& options = options_of(object);
  TRY(check_keys(options, "the options of down", {"volumes", "remove_orphans", "stop_grace_ms"}));
  down.options.volumes = TRY(read_flag(options, "volumes"));
  down.options.remove_orphans = TRY(read_flag(options, "remove_orphans"));
  down.options.stop_grace_ms = TRY(read_milliseconds(options, "stop_grace_ms"));
  return down;
}

Result<Command> read_create(const json& object) {
  CreateCommand create;
  create.stack = TRY(read_stack(object));
  if (create.stack.services.size() != 1)
    return base::fail(ErrorCode::InvalidArgument, "create makes one container, not {}",
                      create.stack.services.size());
  create.start = TRY(read_flag(object, "start"));
  create.auto_remove = TRY(read_flag(object, "auto_remove"));
  create.attach = TRY(read_flag(object, "attach"));
  create.trace = TRY(read_flag(object, "trace"));
  if (create.attach && !create.start)
    return base::fail(ErrorCode::InvalidArgument, "attach needs start");
  return create;
}

Result<Command> read_start(const json& object) {
  return StartCommand{.chosen = TRY(read_chosen(object))};
}

Result<Command> read_stop(const json& object) {
  StopCommand stop;
  stop.chosen = TRY(read_chosen(object));
  stop.signal = TRY(read_signal(object));
  stop.grace_ms = TRY(read_milliseconds(object, "grace_ms"));
  return stop;
}

Result<Command> read_kill(const json& object) {
  KillCommand kill;
  kill.chosen = TRY(read_chosen(object));
  kill.signal = TRY(read_signal(object)).value_or("KILL");
  return kill;
}

Result<Command> read_restart(const json& object) {
  RestartCommand restart;
  restart.chosen = TRY(read_chosen(object));
  restart.grace_ms = TRY(read_milliseconds(object, "grace_ms"));
  return restart;
}

Result<Command> read_remove(const json& object) {
  RemoveCommand remove;
  remove.chosen = TRY(read_chosen(object));
  remove.force = TRY(read_flag(object, "force"));
  remove.volumes = TRY(read_flag(object, "volumes"));
  return remove;
}

Result<Command> read_create_network(const json& object) {
  CreateNetworkCommand create;
  create.network.name = TRY(read_text(object, "name")).value_or("");
  create.network.internal = TRY(read_flag(object, "internal"));
  create.network.subnet = TRY(read_text(object, "subnet"));
  create.network.gateway = TRY(read_text(object, "gateway"));
  if (create.network.gateway && !create.network.subnet)
    return base::fail(ErrorCode::InvalidArgument,
                      "gateway {} needs the subnet it is of; give that as well",
                      base::escape_controls(*create.network.gateway));
  create.network.labels = TRY(read_labels(object));
  return create;
}

Result<Command> read_remove_networks(const json& object) {
  return RemoveNetworksCommand{.chosen = TRY(read_chosen(object, "names", "network"))};
}

Result<Command> read_prune_networks(const json&) { return PruneNetworksCommand{}; }

Result<Command> read_create_volume(const json& object) {
  CreateVolumeCommand create;
  create.volume.name = TRY(read_text(object, "name")).value_or("");
  create.volume.labels = TRY(read_labels(object));
  return create;
}

Result<Command> read_remove_volumes(const json& object) {
  return RemoveVolumesCommand{.chosen = TRY(read_chosen(object, "names", "volume"))};
}

Result<Command> read_prune_volumes(const json& object) {
  return PruneVolumesCommand{.named = TRY(read_flag(object, "all"))};
}

struct Reader {
  const char* command;
  std::vector<std::string> keys;  ///< Besides those of every command.
  Result<Command> (*read)(const json&);
};

const std::vector<Reader>& readers() {
  static const std::vector<Reader> all = {
      {"up", {"stack", "options"}, read_up},
      {"down", {"project", "options"}, read_down},
      {"create", {"stack", "start", "auto_remove", "attach", "trace"}, read_create},
      {"start", {"ids", "all"}, read_start},
      {"stop", {"ids", "all", "signal", "grace_ms"}, read_stop},
      {"kill", {"ids", "all", "signal"}, read_kill},
      {"restart", {"ids", "all", "grace_ms"}, read_restart},
      {"remove", {"ids", "all", "force", "volumes"}, read_remove},
      {"network create", {"name", "internal", "subnet", "gateway", "labels"}, read_create_network},
      {"network remove", {"names", "all"}, read_remove_networks},
      {"network prune", {}, read_prune_networks},
      {"volume create", {"name", "labels"}, read_create_volume},
      {"volume remove", {"names", "all"}, read_remove_volumes},
      {"volume prune", {"all"}, read_prune_volumes},
  };
  return all;
}

Result<const Reader*> find_reader(const std::string& command) {
  std::vector<std::string> names;
  for (const Reader& reader : readers()) {
    if (command == reader.command) return &reader;
    names.emplace_back(reader.command);
  }
  const auto meant = base::did_you_mean(command, names);
  return base::fail(
      ErrorCode::InvalidArgument, "unknown command '{}'; {}", base::escape_controls(command),
      meant ? fmt::format("did you mean '{}'?", *meant) : "there are " + base::join(names, ", "));
}

// --- planning
// -------------------------------------------------------------------------------------

bool is_up(const ContainerRecord& record) {
  return record.phase == Phase::Running || record.phase == Phase::Unknown;
}

template <class Predicate>
std::vector<std::string> ids_of(const Chosen& chosen, const Snapshot& actual,
                                const Predicate& makes_sense_for) {
  if (!chosen.all) return chosen.ids;
  std::vector<std::string> ids;
  for (const auto& [id, record] : actual.containers)
    if (makes_sense_for(record)) ids.push_back(id);
  return ids;
}

/// The service with full names of networks and volumes, as records keep it.
Result<spec::Service> applied_service(const spec::Stack& stack, const spec::Service& service) {
  spec::Service applied = service;
  applied.scale = 1;
  applied.networks.clear();
  for (const auto& [key, attachment] : service.networks) {
    const auto network = stack.networks.find(key);
    if (network == stack.networks.end())
      return base::fail(ErrorCode::InvalidArgument, "network '{}' is used but not defined", key);
    applied.networks.emplace(network->second.name, attachment);
  }
  for (spec::Mount& mount : applied.volumes) {
    if (mount.type != spec::MountType::Volume || mount.source.empty()) continue;
    const auto volume = stack.volumes.find(mount.source);
    if (volume == stack.volumes.end())
      return base::fail(ErrorCode::InvalidArgument, "volume '{}' is used but not defined",
                        mount.source);
    mount.source = volume->second.name;
  }
  return applied;
}

/// Of all named volumes the container mounts, each once; the plan makes those that are missing.
Result<std::vector<planner::VolumeRecord>> volumes_of(const CreateCommand& create,
                                                      const spec::Service& applied,
                                                      const Snapshot& actual) {
  std::set<std::string> mounted;
  for (const spec::Mount& mount : applied.volumes)
    if (mount.type == spec::MountType::Volume && !mount.source.empty())
      mounted.insert(mount.source);
  std::vector<planner::VolumeRecord> records;
  for (const auto& [key, volume] : create.stack.volumes) {
    if (mounted.erase(volume.name) == 0) continue;
    if (volume.external && !actual.volumes.contains(volume.name))
      return base::fail(ErrorCode::NotFound,
                        "volume '{}' does not exist; create it with 'container volume create {}'",
                        volume.name, volume.name);
    planner::VolumeRecord record;
    record.name = volume.name;
    record.key = key;
    record.applied = volume;
    records.push_back(std::move(record));
  }
  return records;
}

Result<Plan> plan_of(const CreateCommand& create, const Snapshot& actual) {
  const auto& [id, service] = *create.stack.services.begin();
  const auto digest = actual.image_digests.find(service.image);
  if (digest == actual.image_digests.end())
    return base::fail(ErrorCode::NotFound,
                      "image '{}' is not in the image store; bring it in with 'container image "
                      "load'",
                      service.image);
  ContainerRecord record;
  record.id = id;
  record.project = create.stack.name;
  record.one_off = true;
  record.auto_remove = create.auto_remove;
  record.applied = TRY(applied_service(create.stack, service));
  record.image_digest = digest->second;
  record.working_dir = create.stack.working_dir;
  const auto volumes = TRY(volumes_of(create, record.applied, actual));
  return planner::plan_create(record, volumes, actual, create.start);
}

/// Appends the steps of `later`. What a container is stopped by comes before what starts it.
Plan joined(Plan first, Plan later) {
  const auto offset = static_cast<uint32_t>(first.steps.size());
  std::map<std::string, planner::StepId> stops;
  for (const planner::Step& step : first.steps)
    if (const auto* stop = std::get_if<planner::StopContainer>(&step.operation))
      stops.emplace(stop->id, step.id);
  for (planner::Step& step : later.steps) {
    step.id.value += offset;
    for (planner::StepId& before : step.after) before.value += offset;
    if (const auto* start = std::get_if<planner::StartContainer>(&step.operation))
      if (const auto stop = stops.find(start->id); stop != stops.end())
        step.after.insert(step.after.begin(), stop->second);
    first.steps.push_back(std::move(step));
  }
  for (planner::Basis& basis : later.basis)
    if (std::none_of(first.basis.begin(), first.basis.end(),
                     [&](const planner::Basis& known) { return known.address == basis.address; }))
      first.basis.push_back(std::move(basis));
  std::move(later.notes.begin(), later.notes.end(), std::back_inserter(first.notes));
  return first;
}

Result<Plan> plan_of(const RestartCommand& restart, const Snapshot& actual) {
  const std::vector<std::string> ids = ids_of(restart.chosen, actual, is_up);
  Plan stops = TRY(planner::plan_stop(ids, actual, std::nullopt, restart.grace_ms));
  Snapshot stopped = actual;
  for (const planner::Step& step : stops.steps)
    if (const auto* stop = std::get_if<planner::StopContainer>(&step.operation)) {
      ContainerRecord& record = stopped.containers.at(stop->id);
      if (is_up(record)) record.phase = Phase::Exited;
      record.wanted = planner::Wanted::Stopped;
    }
  Plan starts = TRY(planner::plan_start(ids, stopped, "asked to restart it"));
  Plan plan = joined(std::move(stops), std::move(starts));
  // Not "restart": that is how the reconciler knows what a restart policy asked for.
  plan.command = "stop and start";
  return plan;
}

Result<Plan> plan_of(const CreateNetworkCommand& create, const Snapshot& actual) {
  planner::NetworkRecord record;
  record.name = record.key = create.network.name;
  record.applied = create.network;
  return planner::plan_create_network(record, actual);
}

Result<Plan> plan_of(const RemoveNetworksCommand& remove, const Snapshot& actual) {
  if (remove.chosen.all) return planner::plan_remove_all_networks(actual);
  return planner::plan_remove_network(remove.chosen.ids, actual);
}

Result<Plan> plan_of(const CreateVolumeCommand& create, const Snapshot& actual) {
  planner::VolumeRecord record;
  record.name = record.key = create.volume.name;
  record.applied = create.volume;
  return planner::plan_create_volume(record, actual);
}

Result<Plan> plan_of(const RemoveVolumesCommand& remove, const Snapshot& actual) {
  if (remove.chosen.all) return planner::plan_remove_all_volumes(actual);
  return planner::plan_remove_volume(remove.chosen.ids, actual);
}

}  // namespace

Result<std::optional<int64_t>> read_milliseconds(const json& object, const char* key) {
  const json* value = member(object, key);
  if (value == nullptr) return std::nullopt;
  const auto milliseconds = whole_number(*value);
  if (!milliseconds || *milliseconds > static_cast<uint64_t>(base::limits::api_wait_ms_max))
    return base::fail(ErrorCode::InvalidArgument, "'{}' must be a whole number from 0 to {}", key,
                      base::limits::api_wait_ms_max);
  return static_cast<int64_t>(*milliseconds);
}

Result<CommandRequest> command_from_json(const json& object) {
  if (!object.is_object())
    return base::fail(ErrorCode::InvalidArgument, "a command must be an object, not {}",
                      object.type_name());
  const std::string name = TRY(read_text(object, "command")).value_or("");
  const Reader* reader = TRY(find_reader(name));
  std::vector<std::string> keys = reader->keys;
  keys.insert(keys.end(), {"command", "owner", "wait_for_lock"});
  TRY(check_keys(object, fmt::format("the command {}", name), keys));
  CommandRequest request;
  request.command = TRY_DURING(reader->read(object), "{}", name);
  request.owner = TRY(read_text(object, "owner")).value_or(name);
  request.wait_for_lock = TRY(read_flag(object, "wait_for_lock", true));
  return request;
}

std::vector<std::string> containers_of(const Command& command) {
  const auto ids = [](const auto& about) {
    return about.chosen.all ? std::vector<std::string>() : about.chosen.ids;
  };
  if (const auto* stop = std::get_if<StopCommand>(&command)) return ids(*stop);
  if (const auto* kill = std::get_if<KillCommand>(&command)) return ids(*kill);
  if (const auto* remove = std::get_if<RemoveCommand>(&command)) return ids(*remove);
  return {};
}

std::vector<std::string> image_references(const Command& command) {
  const spec::Stack* stack = nullptr;
  if (const auto* up = std::get_if<UpCommand>(&command)) stack = &up->stack;
  if (const auto* create = std::get_if<CreateCommand>(&command)) stack = &create->stack;
  std::set<std::string> references;
  if (stack != nullptr)
    for (const auto& [name, service] : stack->services) references.insert(service.image);
  return {references.begin(), references.end()};
}

std::set<std::string> built_images(const Command& command) {
  std::set<std::string> references;
  if (const auto* up = std::get_if<UpCommand>(&command))
    for (const auto& [name, service] : up->stack.services)
      if (up->stack.builds.contains(name)) references.insert(service.image);
  return references;
}

Result<Plan> make_plan(const Command& command, const Snapshot& actual) {
  return std::visit(
      base::overloaded{
          [&](const UpCommand& up) { return planner::plan_up(up.stack, actual, up.options); },
          [&](const DownCommand& down) {
            return planner::plan_down(down.project, actual, down.options);
          },
          [&](const StartCommand& start) {
            const auto ids =
                ids_of(start.chosen, actual, [](const auto& record) { return !is_up(record); });
            return planner::plan_start(ids, actual, "asked to start it");
          },
          [&](const StopCommand& stop) {
            const auto ids = ids_of(stop.chosen, actual, [](const auto&) { return true; });
            return planner::plan_stop(ids, actual, stop.signal, stop.grace_ms);
          },
          [&](const KillCommand& kill) {
            return planner::plan_kill(ids_of(kill.chosen, actual, is_up), actual, kill.signal);
          },
          [&](const RemoveCommand& remove) {
            const auto ids = ids_of(remove.chosen, actual, [&](const auto& record) {
              return remove.force || !is_up(record);
            });
            return planner::plan_remove(ids, actual, remove.force, remove.volumes);
          },
          [&](const PruneNetworksCommand&) -> Result<Plan> {
            return planner::plan_prune_networks(actual);
          },
          [&](const PruneVolumesCommand& prune) -> Result<Plan> {
            return planner::plan_prune_volumes(actual, prune.named);
          },
          [&](const auto& other) { return plan_of(other, actual); },
      },
      command);
}

std::vector<std::string> container_ids(const Plan& plan) {
  std::vector<std::string> ids;
  std::set<std::string> seen;
  const auto add = [&](const std::string& id) {
    if (seen.insert(id).second) ids.push_back(id);
  };
  for (const planner::Step& step : plan.steps)
    std::visit(base::overloaded{
                   [](const planner::CreateNetwork&) {},
                   [](const planner::RemoveNetwork&) {},
                   [](const planner::CreateVolume&) {},
                   [](const planner::RemoveVolume&) {},
                   [&](const planner::CreateContainer& op) { add(op.record.id); },
                   [&](const planner::UpdateContainer& op) { add(op.record.id); },
                   [&](const auto& op) { add(op.id); },
               },
               step.operation);
  return ids;
}

std::map<uint32_t, std::string> resource_names(const Plan& plan) {
  std::map<uint32_t, std::string> names;
  for (const planner::Step& step : plan.steps) {
    const auto add = [&](const std::string& name) { names.emplace(step.id.value, name); };
    if (const auto* made = std::get_if<planner::CreateNetwork>(&step.operation))
      add(made->record.name);
    if (const auto* gone = std::get_if<planner::RemoveNetwork>(&step.operation)) add(gone->name);
    if (const auto* made = std::get_if<planner::CreateVolume>(&step.operation))
      add(made->record.name);
    if (const auto* gone = std::get_if<planner::RemoveVolume>(&step.operation)) add(gone->name);
  }
  return names;
}

}  // namespace api
