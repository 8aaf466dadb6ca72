/// plan_up: what must happen so that reality matches a stack.
///
/// Two passes. The first decides per resource what becomes of it, and why (Item, networks_made_);
/// the second turns decisions into steps and draws the edges. All lookups are by name in maps, so
/// a thousand services cost a thousand times one.

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "base/names.h"
#include "planner/diff.h"
#include "planner/draft.h"
#include "planner/plan.h"

namespace planner {

namespace {

using base::ErrorCode;
using spec::DependencyCondition;

/// What becomes of one container.
struct Item {
  const ContainerRecord* existing = nullptr;
  ContainerRecord record;  ///< As it shall be.
  std::string address;
  bool stop = false, remove = false, create = false, update = false, start = false;
  bool replaces = false;
  std::string reason;        ///< Of the first thing that happens.
  std::string start_reason;  ///< Where it differs; empty: `reason`.
  std::vector<spec::FieldChange> changes;
  std::optional<Draft::Node> stop_node, remove_node, create_node, update_node, start_node;
};

class UpPlanner {
 public:
  UpPlanner(const spec::Stack& wanted, const Snapshot& actual, const UpOptions& options)
      : wanted_(wanted), actual_(actual), options_(options) {}

  base::Result<Plan> make() {
    TRY(select_services());
    index_containers();
    TRY(plan_networks());
    TRY(plan_volumes());
    for (const std::string& name : order_) TRY(plan_service(name));
    note_orphans();
    touch_neighbours_of_recreated_networks();
    restart_dependents();
    // From here on every decision is made; what follows only draws the graph.
    for (Item& item : items_) add_steps(item);
    for (Item& item : items_) order_resources(item);
    for (Item& item : items_) order_dependencies(item);
    order_network_removals();
    if (options_.wait) add_waits();
    return std::move(draft_).finish(wanted_.name, "up", actual_);
  }

 private:
  // --- which services ---------------------------------------------------------------------------

  base::Result<> select_services() {
    std::vector<std::string> names = options_.services;
    if (names.empty())
      for (const auto& [name, service] : wanted_.services) names.push_back(name);
    for (const std::string& name : names) {
      if (!wanted_.services.contains(name))
        return base::fail(ErrorCode::NotFound, "no such service: '{}'; this stack has: {}", name,
                          known_services());
      named_.insert(name);
    }
    for (const std::string& name : named_) TRY(visit(name));
    for (const auto& [name, count] : options_.scale)
      if (!wanted_.services.contains(name))
        return base::fail(ErrorCode::NotFound, "cannot scale '{}': no such service", name);
    return {};
  }

  std::string known_services() const {
    std::string list;
    for (const auto& [name, service] : wanted_.services) list += (list.empty() ? "" : ", ") + name;
    return list;
  }

  /// Depth first, dependencies before dependents, with a stack of our own: a chain of services may
  /// be longer than the thread's stack.
  base::Result<> visit(const std::string& root) {
    struct Frame {
      const std::string* name;
      std::map<std::string, spec::Dependency>::const_iterator next;
    };
    std::vector<Frame> path;
    const auto enter = [&](const std::string& name) {
      state_[name] = Visit::Open;
      path.push_back({&name, wanted_.services.at(name).depends_on.begin()});
    };
    if (state_[root] == Visit::Unseen) enter(wanted_.services.find(root)->first);
    while (!path.empty()) {
      Frame& frame = path.back();
      const spec::Service& service = wanted_.services.at(*frame.name);
      if (frame.next == service.depends_on.end()) {
        state_[*frame.name] = Visit::Done;
        order_.push_back(*frame.name);
        path.pop_back();
        continue;
      }
      const auto& [dependency, condition] = *frame.next++;
      const auto found = wanted_.services.find(dependency);
      if (found == wanted_.services.end()) {
        TRY(undefined_dependency(*frame.name, dependency, condition.required));
      } else if (state_[dependency] == Visit::Open) {
        std::string walk;
        bool inside = false;
        for (const Frame& step : path) {
          inside = inside || *step.name == dependency;
          if (inside) walk += *step.name + " -> ";
        }
        return base::fail(ErrorCode::InvalidArgument,
                          "dependency cycle: {}{}; remove one of these depends_on entries", walk,
                          dependency);
      } else if (state_[dependency] == Visit::Unseen &&
                 (!options_.no_dependencies || named_.contains(dependency))) {
        enter(found->first);
      }
    }
    return {};
  }

  base::Result<> undefined_dependency(const std::string& service, const std::string& dependency,
                                      bool required) {
    if (required)
      return base::fail(ErrorCode::InvalidArgument,
                        "service '{}' depends on undefined service '{}'; define it, enable its "
                        "profile, or set required: false",
                        service, dependency);
    draft_.note(NoteKind::Warning, "service." + service,
                fmt::format("depends on '{}', which is not part of the stack; going on without it, "
                            "because it is not required",
                            dependency));
    return {};
  }

  void index_containers() {
    for (const auto& [id, record] : actual_.containers)
      if (record.project == wanted_.name && !record.one_off && !record.service.empty())
        existing_[record.service].push_back(&record);
    for (auto& [service, records] : existing_)
      std::sort(records.begin(), records.end(), [](const auto* a, const auto* b) {
        return std::pair(a->index, &a->id) < std::pair(b->index, &b->id);
      });
  }

  // --- networks and volumes ---------------------------------------------------------------------

  base::Result<> plan_networks() {
    std::set<std::string> keys;
    for (const std::string& service : order_)
      for (const auto& [key, attachment] : wanted_.services.at(service).networks) keys.insert(key);
    for (const std::string& key : keys) {
      const auto found = wanted_.networks.find(key);
      if (found == wanted_.networks.end())
        return base::fail(ErrorCode::InvalidArgument, "network '{}' is used but not defined", key);
      TRY(plan_network(key, found->second));
    }
    return {};
  }

  base::Result<> plan_network(const std::string& key, const spec::Network& network) {
    const std::string address = "network." + key;
    const auto found = actual_.networks.find(network.name);
    if (found == actual_.networks.end()) {
      if (network.external && network.name == builtin_network_name) {
        networks_made_[network.name] =
            draft_.add(address, CreateNetwork{builtin_network()},
                       "the built-in network is needed for the first time");
        return {};
      }
      if (network.external)
        return base::fail(ErrorCode::NotFound,
                          "network '{}' is declared as external but does not exist; create it with "
                          "'container network create {}'",
                          network.name, network.name);
      NetworkRecord record;
      record.name = network.name;
      record.project = wanted_.name;
      record.key = key;
      record.applied = network;
      networks_made_[network.name] = draft_.add(address, CreateNetwork{std::move(record)},
                                                "the stack declares it and it does not exist");
      return {};
    }
    const NetworkRecord& existing = found->second;
    const bool ours = !network.external && !existing.builtin;
    if (ours && existing.project != wanted_.name) {
      draft_.note(
          NoteKind::Warning, address,
          fmt::format("network '{}' exists but was not made by this project; using it as it "
                      "is. Declare it as external to silence this",
                      network.name));
    } else if (ours && !equal(existing.applied, network)) {
      change_network(address, existing, network);
      return {};
    }
    if (!existing.alive) repair_network(address, existing);
    return {};
  }

  void repair_network(const std::string& address, const NetworkRecord& existing) {
    draft_.note(NoteKind::Drift, address,
                fmt::format("network '{}' does not answer any more", existing.name));
    networks_made_[existing.name] =
        draft_.add(address, CreateNetwork{existing}, "it does not answer any more");
  }

  void change_network(const std::string& address, const NetworkRecord& existing,
                      const spec::Network& network) {
    std::vector<spec::FieldChange> changes = spec::changes(existing.applied, network);
    NetworkRecord record = existing;
    record.applied = network;
    const bool labels_only = std::all_of(changes.begin(), changes.end(), [](const auto& change) {
      return change.path == "labels" || change.path.starts_with("labels.");
    });
    const std::string reason = list_fields(changes) + " changed";
    if (!labels_only && options_.no_recreate) {
      draft_.note(NoteKind::Warning, address, reason + "; kept as it is, as asked");
      return;
    }
    if (!labels_only) {
      record.subnet.clear();
      record.gateway.clear();
      record.created_wall_ns = 0;
      const auto removal = draft_.add(address, RemoveNetwork{existing.name}, reason);
      draft_.step(removal).replaces = true;
      networks_removed_[existing.name] = removal;
    }
    const auto node = draft_.add(address, CreateNetwork{std::move(record)}, reason);
    draft_.step(node).changes = std::move(changes);
    draft_.step(node).replaces = !labels_only;
    networks_made_[existing.name] = node;
    if (!labels_only) draft_.order(networks_removed_[existing.name], node);
  }

  base::Result<> plan_volumes() {
    std::set<std::string> keys;
    for (const std::string& service : order_)
      for (const spec::Mount& mount : wanted_.services.at(service).volumes)
        if (mount.type == spec::MountType::Volume && !mount.source.empty())
          keys.insert(mount.source);
    for (const std::string& key : keys) {
      const auto found = wanted_.volumes.find(key);
      if (found == wanted_.volumes.end())
        return base::fail(ErrorCode::InvalidArgument, "volume '{}' is used but not defined", key);
      TRY(plan_volume(key, found->second));
    }
    return {};
  }

  base::Result<> plan_volume(const std::string& key, const spec::Volume& volume) {
    const std::string address = "volume." + key;
    const auto found = actual_.volumes.find(volume.name);
    if (found == actual_.volumes.end()) {
      if (volume.external)
        return base::fail(ErrorCode::NotFound,
                          "volume '{}' is declared as external but does not exist; create it with "
                          "'container volume create {}'",
                          volume.name, volume.name);
      VolumeRecord record;
      record.name = volume.name;
      record.project = wanted_.name;
      record.key = key;
      record.applied = volume;
      volumes_made_[volume.name] = draft_.add(address, CreateVolume{std::move(record)},
                                              "the stack declares it and it does not exist");
      return {};
    }
    const VolumeRecord& existing = found->second;
    if (!volume.external && existing.project != wanted_.name)
      draft_.note(NoteKind::Warning, address,
                  fmt::format("volume '{}' exists but was not made by this project; using it as it "
                              "is. Declare it as external to silence this",
                              volume.name));
    else if (!volume.external && !equal(existing.applied, volume))
      draft_.note(
          NoteKind::Warning, address,
          fmt::format("{} changed, but a volume is never made again on its own, because its "
                      "data would be lost; remove it first if that is meant",
                      list_fields(spec::changes(existing.applied, volume))));
    if (!existing.present) {
      draft_.note(NoteKind::Drift, address,
                  fmt::format("the folder of volume '{}' is missing; it will be made anew, empty",
                              volume.name));
      volumes_made_[volume.name] =
          draft_.add(address, CreateVolume{existing}, "its folder is missing");
    }
    return {};
  }

  // --- containers -------------------------------------------------------------------------------

  uint32_t replicas_of(const std::string& name, const spec::Service& service) const {
    for (auto scaled = options_.scale.rbegin(); scaled != options_.scale.rend(); ++scaled)
      if (scaled->first == name) return scaled->second;
    return service.scale;
  }

  /// The service with full names of networks and volumes, as the records keep it.
  spec::Service expand(const spec::Service& service) const {
    spec::Service applied = service;
    applied.scale = 1;
    applied.networks.clear();
    for (const auto& [key, attachment] : service.networks)
      applied.networks.emplace(wanted_.networks.at(key).name, attachment);
    for (spec::Mount& mount : applied.volumes)
      if (mount.type == spec::MountType::Volume && !mount.source.empty())
        mount.source = wanted_.volumes.at(mount.source).name;
    return applied;
  }

  base::Result<> plan_service(const std::string& name) {
    const spec::Service& service = wanted_.services.at(name);
    const uint32_t replicas = replicas_of(name, service);
    if (service.container_name && replicas > 1)
      return base::fail(
          ErrorCode::InvalidArgument,
          "service '{}' has the container_name '{}', so it cannot have {} containers; "
          "remove container_name or scale to 1",
          name, *service.container_name, replicas);
    std::string digest;
    if (replicas > 0) {
      const auto found = actual_.image_digests.find(service.image);
      const auto build = wanted_.builds.find(name);
      if (found == actual_.image_digests.end() && build != wanted_.builds.end())
        draft_.note(NoteKind::Warning, "service." + name,
                    fmt::format("its image '{}' does not exist; `up` builds it from {}",
                                service.image, build->second.context));
      else if (found == actual_.image_digests.end())
        return base::fail(ErrorCode::NotFound,
                          "image '{}' of service '{}' is not in the image store; bring it in with "
                          "'container image pull {}', or with 'container image load'",
                          service.image, name, service.image);
      if (found != actual_.image_digests.end()) digest = found->second;
    }
    const spec::Service applied = expand(service);
    std::vector<const ContainerRecord*> kept = scale_down(name, applied, digest, replicas);
    uint32_t highest = 0;
    for (const ContainerRecord* record : kept) {
      highest = std::max(highest, record->index);
      TRY(plan_existing(name, *record, applied, digest));
    }
    for (auto missing = static_cast<uint32_t>(kept.size()); missing < replicas; ++missing)
      TRY(plan_new(name, ++highest, applied, digest));
    return {};
  }

  /// Removes what is too many: those that differ from the stack first, then the highest numbers.
  std::vector<const ContainerRecord*> scale_down(const std::string& name,
                                                 const spec::Service& applied,
                                                 const std::string& digest, uint32_t replicas) {
    const auto found = existing_.find(name);
    if (found == existing_.end()) return {};
    std::vector<const ContainerRecord*> kept = found->second;
    if (kept.size() <= replicas) return kept;
    std::stable_sort(kept.begin(), kept.end(), [&](const auto* a, const auto* b) {
      return is_obsolete(*a, applied, digest) < is_obsolete(*b, applied, digest);
    });
    for (size_t i = replicas; i < kept.size(); ++i)
      remove_item(*kept[i], fmt::format("service '{}' is scaled to {}", name, replicas));
    kept.resize(replicas);
    std::sort(kept.begin(), kept.end(),
              [](const auto* a, const auto* b) { return a->index < b->index; });
    return kept;
  }

  static bool is_obsolete(const ContainerRecord& record, const spec::Service& applied,
                          const std::string& digest) {
    return compare(record, applied, digest).change_class == ChangeClass::Replace;
  }

  Item& add_item(const std::string& service, Item item) {
    item.address = address_of(item.existing && item.remove ? *item.existing : item.record);
    items_of_[service].push_back(items_.size());
    items_.push_back(std::move(item));
    return items_.back();
  }

  void remove_item(const ContainerRecord& record, std::string reason) {
    Item item;
    item.existing = &record;
    item.record = record;
    item.stop = may_run(record);
    item.remove = true;
    item.reason = std::move(reason);
    add_item(record.service, std::move(item));
  }

  std::string id_for(const std::string& name, uint32_t index, const spec::Service& applied) const {
    if (applied.container_name) return *applied.container_name;
    return fmt::format("{}-{}-{}", wanted_.name, name, index);
  }

  base::Result<> check_free(const std::string& name, const std::string& id) {
    TRY_DURING(base::check_name("container", id), "name the containers of service '{}'", name);
    const auto taken = actual_.containers.find(id);
    if (taken != actual_.containers.end())
      return base::fail(ErrorCode::Exists,
                        "service '{}' needs the container name '{}', but a container of {} has it; "
                        "remove that one or choose another container_name",
                        name, id,
                        taken->second.project.empty()
                            ? std::string("no project")
                            : fmt::format("project '{}'", taken->second.project));
    if (!new_ids_.insert(id).second)
      return base::fail(ErrorCode::InvalidArgument,
                        "two services want the container name '{}'; choose another for '{}'", id,
                        name);
    return {};
  }

  base::Result<> plan_new(const std::string& name, uint32_t index, const spec::Service& applied,
                          const std::string& digest) {
    Item item;
    item.record.id = id_for(name, index, applied);
    item.record.project = wanted_.name;
    item.record.service = name;
    item.record.index = index;
    item.record.applied = applied;
    item.record.image_digest = digest;
    item.record.working_dir = wanted_.working_dir;
    item.record.wanted = options_.no_start ? Wanted::Stopped : Wanted::Running;
    TRY(check_free(name, item.record.id));
    item.create = true;
    item.start = !options_.no_start;
    item.reason = fmt::format("service '{}' has no container {} yet", name, index);
    add_item(name, std::move(item));
    return {};
  }

  base::Result<> plan_existing(const std::string& name, const ContainerRecord& existing,
                               const spec::Service& applied, const std::string& digest) {
    Item item;
    item.existing = &existing;
    item.record = existing;
    const bool forced = options_.force_recreate && named_.contains(name);
    Difference difference;
    if (!options_.no_recreate) difference = compare(existing, applied, digest);
    if (forced || difference.change_class == ChangeClass::Replace) {
      item.reason = difference.changes.empty() ? "asked to recreate it"
                                               : list_fields(difference.changes) + " changed";
      item.changes = std::move(difference.changes);
      TRY(replace(name, item, applied, digest));
    } else {
      keep(item, difference, applied);
    }
    add_item(name, std::move(item));
    return {};
  }

  base::Result<> replace(const std::string& name, Item& item, const spec::Service& applied,
                         const std::string& digest) {
    const ContainerRecord& existing = *item.existing;
    item.replaces = true;
    item.stop = may_run(existing);
    item.remove = true;
    item.create = true;
    item.start = !options_.no_start;
    ContainerRecord record;
    record.id = id_for(name, existing.index, applied);
    if (record.id != existing.id) TRY(check_free(name, record.id));
    record.project = existing.project;
    record.service = existing.service;
    record.index = existing.index;
    record.generation = existing.generation + 1;
    record.applied = applied;
    record.image_digest = digest;
    record.working_dir = wanted_.working_dir;
    record.wanted = options_.no_start ? Wanted::Stopped : Wanted::Running;
    record.anonymous_volumes = existing.anonymous_volumes;
    item.record = std::move(record);
    return {};
  }

  void keep(Item& item, Difference& difference, const spec::Service& applied) {
    const ContainerRecord& existing = *item.existing;
    if (difference.change_class != ChangeClass::None) {
      item.update = true;
      item.reason = list_fields(difference.changes) + " changed";
      item.changes = std::move(difference.changes);
      item.record.applied = applied;
      ++item.record.generation;
    }
    if (existing.phase == Phase::Unknown)
      draft_.note(NoteKind::Drift, address_of(existing),
                  fmt::format("the VM of container '{}' does not answer; recreate it if it stays "
                              "so",
                              existing.id));
    if (existing.phase == Phase::Missing) {
      draft_.note(
          NoteKind::Drift, address_of(existing),
          fmt::format("the disk of container '{}' is missing; it will be made anew", existing.id));
      item.create = true;
      item.update = false;
      item.record.phase = Phase::Created;
      item.reason = "its disk is missing";
    }
    const bool restart =
        difference.change_class == ChangeClass::Restart && existing.phase == Phase::Running;
    item.stop = restart;
    if (restart) item.start = true;
    if (!options_.no_start) decide_start(item);
  }

  void decide_start(Item& item) const {
    const ContainerRecord& existing = *item.existing;
    std::string& reason = item.reason.empty() ? item.reason : item.start_reason;
    if (existing.phase == Phase::Exited) {
      item.start = true;
      reason = fmt::format("it has exited ({})", existing.exit_code);
    } else if (existing.phase == Phase::Created) {
      item.start = true;
      reason = "it was never started";
    } else if (existing.phase == Phase::Missing) {
      item.start = true;
    } else if (existing.wanted == Wanted::Stopped) {
      item.start = true;
      reason = "it runs although a stop was asked for; from now on it shall run";
    }
  }

  /// A network cannot be made anew under running containers, whoever they belong to.
  void touch_neighbours_of_recreated_networks() {
    if (networks_removed_.empty()) return;
    std::map<std::string, size_t> by_id;
    for (size_t i = 0; i < items_.size(); ++i)
      if (items_[i].existing) by_id.emplace(items_[i].existing->id, i);
    for (const auto& [id, record] : actual_.containers) {
      if (!has_vm(record)) continue;
      const auto& networks = record.applied.networks;
      const auto attached = std::find_if(networks.begin(), networks.end(), [&](const auto& entry) {
        return networks_removed_.contains(entry.first);
      });
      if (attached == networks.end()) continue;
      const std::string reason = fmt::format("network '{}' is made anew", attached->first);
      const auto known = by_id.find(id);
      if (known == by_id.end()) {
        Item item;
        item.existing = &record;
        item.record = record;
        item.address = address_of(record);
        item.stop = item.start = true;
        item.reason = reason;
        const bool same_project = record.project == wanted_.name && !record.one_off;
        if (same_project) items_of_[record.service].push_back(items_.size());
        items_.push_back(std::move(item));
      } else if (Item& item = items_[known->second]; !item.remove) {
        item.stop = item.start = true;
        if (item.reason.empty()) item.reason = reason;
      }
    }
  }

  /// `depends_on.X.restart`: who asked to be restarted when X is replaced.
  void restart_dependents() {
    for (const std::string& name : order_) {
      for (const auto& [dependency, how] : wanted_.services.at(name).depends_on) {
        if (!how.restart || !items_of_.contains(dependency)) continue;
        const auto& indices = items_of_[dependency];
        const bool replaced = std::any_of(indices.begin(), indices.end(),
                                          [&](size_t index) { return items_[index].replaces; });
        if (!replaced) continue;
        for (const size_t index : items_of_[name]) {
          Item& item = items_[index];
          if (!item.existing || item.remove || !has_vm(*item.existing)) continue;
          item.stop = item.start = true;
          if (item.reason.empty())
            item.reason = fmt::format("its dependency '{}' is replaced", dependency);
        }
      }
    }
  }

  void note_orphans() {
    for (const auto& [service, records] : existing_) {
      if (wanted_.services.contains(service)) continue;
      for (const ContainerRecord* record : records) {
        draft_.note(NoteKind::Orphan, address_of(*record),
                    fmt::format("container '{}' belongs to no service of the stack; {}", record->id,
                                options_.remove_orphans ? "it is removed, as asked"
                                                        : "kept (--remove-orphans removes it)"));
        if (options_.remove_orphans)
          remove_item(*record, fmt::format("service '{}' is not in the stack", service));
      }
    }
  }

  // --- the graph --------------------------------------------------------------------------------

  void add_steps(Item& item) {
    const auto add = [&](Operation operation, const std::string& reason) {
      const auto node = draft_.add(item.address, std::move(operation), reason);
      draft_.step(node).replaces = item.replaces;
      return node;
    };
    std::optional<Draft::Node> last;
    const auto chain = [&](std::optional<Draft::Node>& slot, Operation operation,
                           const std::string& reason) {
      slot = add(std::move(operation), reason);
      if (last) draft_.order(*last, *slot);
      last = slot;
    };
    const std::string& start_reason = item.start_reason.empty() ? item.reason : item.start_reason;
    if (item.stop) {
      StopContainer stop;
      stop.id = item.existing->id;
      stop.grace_ms = options_.stop_grace_ms;
      chain(item.stop_node, std::move(stop), item.reason);
    }
    if (item.remove)
      chain(item.remove_node, RemoveContainer{item.existing->id, false}, item.reason);
    if (item.create) chain(item.create_node, CreateContainer{item.record}, item.reason);
    if (item.update) chain(item.update_node, UpdateContainer{item.record}, item.reason);
    if (item.start) chain(item.start_node, StartContainer{item.record.id}, start_reason);
    const auto shown = item.create_node ? item.create_node : item.update_node;
    if (shown) draft_.step(*shown).changes = item.changes;
  }

  void order_resources(const Item& item) {
    const auto first = item.create_node ? item.create_node : item.start_node;
    if (!first) return;
    for (const auto& [network, attachment] : item.record.applied.networks)
      if (const auto made = networks_made_.find(network); made != networks_made_.end())
        draft_.order(made->second, *first);
    for (const spec::Mount& mount : item.record.applied.volumes)
      if (const auto made = volumes_made_.find(mount.source);
          mount.type == spec::MountType::Volume && made != volumes_made_.end())
        draft_.order(made->second, *first);
  }

  void order_network_removals() {
    if (networks_removed_.empty()) return;
    for (const Item& item : items_) {
      if (!item.stop_node) continue;
      for (const auto& [network, attachment] : item.existing->applied.networks)
        if (const auto removed = networks_removed_.find(network);
            removed != networks_removed_.end())
          draft_.order(*item.stop_node, removed->second);
    }
  }

  void order_dependencies(Item& item) {
    if (item.record.project != wanted_.name) return;
    for (const auto& [name, how] : item.record.applied.depends_on) {
      const auto found = items_of_.find(name);
      if (found == items_of_.end()) continue;
      for (const size_t index : found->second) {
        const Item& dependency = items_[index];
        if (item.stop_node && dependency.stop_node)
          draft_.order(*item.stop_node, *dependency.stop_node);
        if (item.start_node && !(dependency.remove && !dependency.create))
          order_start(*item.start_node, index, how);
      }
    }
  }

  void order_start(Draft::Node start, size_t index, const spec::Dependency& how) {
    const Item& dependency = items_[index];
    if (how.condition == DependencyCondition::Started && how.required) {
      if (dependency.start_node) draft_.order(*dependency.start_node, start);
      return;
    }
    if (!dependency.start_node && holds(dependency.record, how.condition)) return;
    draft_.order(await_node(index, how.condition, how.required), start);
  }

  static bool holds(const ContainerRecord& record, DependencyCondition condition) {
    switch (condition) {
      case DependencyCondition::Started: return record.phase == Phase::Running;
      case DependencyCondition::Healthy:
        return record.phase == Phase::Running && record.health == HealthState::Healthy;
      case DependencyCondition::CompletedSuccessfully:
        return record.phase == Phase::Exited && record.exit_code == 0;
    }
    return false;
  }

  /// One wait for all who wait for the same.
  Draft::Node await_node(size_t index, DependencyCondition condition, bool required) {
    const auto key = std::tuple(index, condition, required);
    const auto known = awaits_.find(key);
    if (known != awaits_.end()) return known->second;
    const Item& dependency = items_[index];
    AwaitContainer await;
    await.id = dependency.record.id;
    await.condition = condition;
    await.required = required;
    const auto node =
        draft_.add(dependency.address, std::move(await), "what depends on it waits for this");
    if (dependency.start_node) draft_.order(*dependency.start_node, node);
    awaits_.emplace(key, node);
    return node;
  }

  bool is_one_shot(const std::string& service) {
    if (one_shots_.empty())
      for (const auto& [name, other] : wanted_.services)
        for (const auto& [dependency, how] : other.depends_on)
          if (how.condition == DependencyCondition::CompletedSuccessfully)
            one_shots_.insert(dependency);
    return one_shots_.contains(service);
  }

  void add_waits() {
    for (const Item& item : items_) {
      if (item.remove && !item.create) continue;
      AwaitContainer await;
      await.id = item.record.id;
      await.timeout_ms = options_.wait_timeout_ms;
      if (is_one_shot(item.record.service))
        await.condition = DependencyCondition::CompletedSuccessfully;
      else
        await.healthy_if_checked = true;
      const bool settled =
          !item.start_node &&
          (await.healthy_if_checked
               ? item.record.phase == Phase::Running && (item.record.health == HealthState::None ||
                                                         item.record.health == HealthState::Healthy)
               : holds(item.record, await.condition));
      if (settled) continue;
      const auto node = draft_.add(item.address, std::move(await), "asked to wait for it");
      if (item.start_node) draft_.order(*item.start_node, node);
    }
  }

  enum class Visit { Unseen, Open, Done };

  const spec::Stack& wanted_;
  const Snapshot& actual_;
  const UpOptions& options_;
  Draft draft_;
  std::set<std::string> named_;
  std::map<std::string, Visit> state_;
  std::vector<std::string> order_;  ///< Selected services, dependencies first.
  std::map<std::string, std::vector<const ContainerRecord*>> existing_;  ///< By service.
  std::map<std::string, Draft::Node> networks_made_, networks_removed_, volumes_made_;
  std::vector<Item> items_;
  std::map<std::string, std::vector<size_t>> items_of_;  ///< By service.
  std::map<std::tuple<size_t, DependencyCondition, bool>, Draft::Node> awaits_;
  std::set<std::string> new_ids_;
  std::set<std::string> one_shots_;
};

}  // namespace

base::Result<Plan> plan_up(const spec::Stack& wanted, const Snapshot& actual,
                           const UpOptions& options) {
  if (options.force_recreate && options.no_recreate)
    return base::fail(ErrorCode::InvalidArgument,
                      "force_recreate and no_recreate exclude each other; give one of them");
  return UpPlanner(wanted, actual, options).make();
}

}  // namespace planner
