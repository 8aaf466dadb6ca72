#include "spec/consistency.h"

#include <algorithm>
#include <map>
#include <tuple>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/names.h"
#include "base/text.h"
#include "base/units.h"

namespace spec {
namespace {

constexpr size_t candidates_max = 1'000;

template <class Value>
std::vector<std::string> keys(const std::map<std::string, Value>& entries) {
  std::vector<std::string> names;
  for (const auto& [name, value] : entries)
    if (names.size() < candidates_max) names.push_back(name);
  return names;
}

/// Where `attribute` (or the entry `name` in it) stands.
Place place_of(const ServiceDraft& draft, std::string_view attribute, std::string_view name = {}) {
  const Node* node = draft.node->find(attribute);
  if (node == nullptr) return draft.node->key_place;
  for (const Node& child : node->children) {
    if (!name.empty() && child.key == name) return child.key_place;
    if (!name.empty() && child.key.empty() && child.text == name) return child.place;
  }
  return node->key_place;
}

class ConsistencyCheck {
 public:
  ConsistencyCheck(const Stack& stack, std::vector<ServiceDraft>& drafts, ReadContext& context)
      : stack_(stack), drafts_(drafts), reporter_(context.reporter) {}

  void run() {
    for (size_t i = 0; i < drafts_.size(); ++i) index_[drafts_[i].name] = i;
    service_names_ = keys(index_);
    for (ServiceDraft& draft : drafts_) {
      check_image(draft);
      check_networks(draft);
      check_mounts(draft);
      check_ports(draft);
      check_names(draft);
      check_dependencies(draft);
      check_build(draft);
    }
    warn_of_contested_choices();
    find_cycles();
    find_build_cycles();
  }

 private:
  static std::string address(const ServiceDraft& draft, std::string_view attribute) {
    return fmt::format("services.{}.{}", draft.name, attribute);
  }

  void error(const ServiceDraft& draft, const Place& place, std::string_view attribute,
             std::string summary, std::string detail, std::string suggestion = {}) {
    reporter_.error(place, address(draft, attribute), std::move(summary), std::move(detail),
                    std::move(suggestion));
  }

  void check_image(const ServiceDraft& draft) {
    // An image or a build that was written and reported is not missing as well.
    if (draft.has_image) return;
    reporter_.error(draft.node->key_place, fmt::format("services.{}", draft.name), "has no image",
                    "name one, for instance image: alpine:3.20");
  }

  void check_networks(const ServiceDraft& draft) {
    const Service& service = draft.service;
    if (service.network_mode == "none" && draft.node->find("networks") != nullptr)
      error(draft, place_of(draft, "network_mode"), "network_mode",
            "a service without network cannot join networks", "remove one of the two");
    if (service.network_mode == "none" && !service.ports.empty())
      error(draft, place_of(draft, "ports"), "ports",
            "a service without network cannot publish ports", "remove one of the two");
    if (service.networks.size() > base::limits::networks_per_container_max)
      return error(
          draft, place_of(draft, "networks"), "networks",
          fmt::format("joins {} networks", service.networks.size()),
          fmt::format("a container joins at most {}", base::limits::networks_per_container_max));
    for (const auto& [key, attachment] : service.networks) {
      const Place place = place_of(draft, "networks", key);
      const auto network = stack_.networks.find(key);
      if (network == stack_.networks.end())
        error(draft, place, "networks", fmt::format("refers to undefined network {}", key),
              "declare it under the top-level 'networks'",
              reporter_.suggest(key, keys(stack_.networks)));
      else if (attachment.ipv4_address)
        check_address(draft, place, network->second, attachment);
    }
    if (draft.mac_address && service.networks.size() != 1)
      error(draft, place_of(draft, "mac_address"), "mac_address",
            "needs exactly one network to belong to",
            "write it as 'mac_address' under the network it is meant for");
  }

  void check_address(const ServiceDraft& draft, const Place& place, const Network& network,
                     const Attachment& attachment) {
    const std::string& wanted = *attachment.ipv4_address;
    if (network.external) return;  // its subnet is known to whoever made it
    if (!network.subnet)
      error(draft, place, "networks", fmt::format("address {} needs a known subnet", wanted),
            "give the network a subnet under ipam.config");
    else if (!readers::subnet_contains(*network.subnet, wanted) || network.gateway == wanted)
      error(draft, place, "networks", fmt::format("address {} cannot be taken", wanted),
            fmt::format("the network's subnet is {}, and its gateway has an address of its own",
                        *network.subnet));
    else if (draft.service.scale > 1)
      error(draft, place, "networks", fmt::format("address {} cannot be shared", wanted),
            "a service with a fixed address has one replica");
    else
      claim_address(draft, place, network, wanted);
  }

  void claim_address(const ServiceDraft& draft, const Place& place, const Network& network,
                     const std::string& wanted) {
    const auto [first, is_new] = addresses_.try_emplace({network.name, wanted}, draft.name);
    if (!is_new)
      error(draft, place, "networks", fmt::format("address {} is taken twice", wanted),
            fmt::format("service '{}' has it already", first->second));
  }

  void check_mounts(const ServiceDraft& draft) {
    std::map<std::string, size_t> targets;
    for (size_t i = 0; i < draft.service.volumes.size(); ++i) {
      const Mount& mount = draft.service.volumes[i];
      const Place& place = draft.mount_places[i];
      if (const auto [first, is_new] = targets.try_emplace(mount.target, i); !is_new)
        error(draft, place, "volumes", fmt::format("duplicate mount target {}", mount.target),
              fmt::format("it is mounted in line {} already",
                          draft.mount_places[first->second].line));
      if (mount.type == MountType::Volume && !mount.source.empty() &&
          !stack_.volumes.contains(mount.source))
        error(draft, place, "volumes", fmt::format("refers to undefined volume {}", mount.source),
              "declare it under the top-level 'volumes', or begin a folder with ./",
              reporter_.suggest(mount.source, keys(stack_.volumes)));
    }
  }

  static bool overlap(const std::string& one, const std::string& other) {
    const auto is_all = [](const std::string& ip) { return ip == "0.0.0.0" || ip == "::"; };
    return one == other || is_all(one) || is_all(other);
  }

  /// Of a range each replica takes one; which one, is known when it starts.
  void check_choice(const ServiceDraft& draft, const Port& port, const Place& place) {
    const uint32_t count = uint32_t{port.published_last} - port.published + 1;
    if (draft.service.scale > count)
      error(draft, place, "ports",
            fmt::format("{} replicas cannot share the {} host ports {}-{}", draft.service.scale,
                        count, port.published, port.published_last),
            "write a longer range, or leave the host port out to get a free one for each");
    choices_.push_back({&draft, port, place});
  }

  /// Not wrong, but who begins first wins.
  void warn_of_contested_choices() {
    for (const auto& [draft, choice, place] : choices_)
      for (const auto& [port, takers] : published_) {
        const auto& [number, protocol] = port;
        const std::string& ip = choice.host_ip;
        if (number < choice.published || number > choice.published_last ||
            protocol != choice.protocol ||
            std::none_of(takers.begin(), takers.end(),
                         [&](const auto& taker) { return overlap(taker.first, ip); }))
          continue;
        reporter_.warning(
            place, address(*draft, "ports"),
            fmt::format("host port {} of service '{}' lies in the range {}-{}", number,
                        takers.front().second, choice.published, choice.published_last),
            "whichever starts first may take it: leave it out of the range");
        break;
      }
  }

  void check_ports(const ServiceDraft& draft) {
    for (size_t i = 0; i < draft.service.ports.size(); ++i) {
      const Port& port = draft.service.ports[i];
      if (port.published == 0) continue;
      const Place& place = draft.port_places[i];
      if (port.published_last != 0) {
        check_choice(draft, port, place);
        continue;
      }
      if (draft.service.scale > 1)
        error(draft, place, "ports",
              fmt::format("{} replicas cannot share host port {}", draft.service.scale,
                          port.published),
              "leave the host port out to get a free one for each");
      auto& takers = published_[{port.published, port.protocol}];
      for (const auto& [ip, owner] : takers) {
        if (!overlap(ip, port.host_ip)) continue;
        error(draft, place, "ports", fmt::format("host port {} is published twice", port.published),
              fmt::format("service '{}' publishes it already", owner));
        break;
      }
      takers.emplace_back(port.host_ip, draft.name);
    }
  }

  void check_names(const ServiceDraft& draft) {
    const auto& name = draft.service.container_name;
    if (!name) return check_generated_name(draft);
    if (draft.service.scale > 1)
      error(draft, place_of(draft, "container_name"), "container_name",
            fmt::format("{} replicas cannot have one name", draft.service.scale),
            "remove it, or run one replica");
    const auto [first, is_new] = container_names_.try_emplace(*name, draft.name);
    if (!is_new)
      error(draft, place_of(draft, "container_name"), "container_name",
            fmt::format("container name '{}' is taken twice", *name),
            fmt::format("service '{}' has it already", first->second));
  }

  /// `<project>-<service>-<number>`, for the longest number.
  void check_generated_name(const ServiceDraft& draft) {
    const std::string name =
        fmt::format("{}-{}-{}", stack_.name, draft.name, std::max(draft.service.scale, 1u));
    if (name.size() <= base::limits::container_name_max || !base::check_name("", draft.name))
      return;
    reporter_.error(draft.node->key_place, fmt::format("services.{}", draft.name),
                    "the names of its containers would be too long",
                    fmt::format("'{}' has {} letters, at most {}; shorten the name of the service "
                                "or of the project, or give a container_name",
                                name, name.size(), base::limits::container_name_max));
  }

  void check_dependencies(ServiceDraft& draft) {
    std::erase_if(draft.service.depends_on, [&](const auto& entry) {
      const auto& [name, dependency] = entry;
      const auto found = index_.find(name);
      if (found != index_.end()) {
        check_condition(draft, drafts_[found->second], dependency);
        return false;
      }
      // Looking for its place among thousands is only worth it while somebody reads it.
      if (reporter_.is_full()) return false;
      const Place place = place_of(draft, "depends_on", name);
      if (!dependency.required) {
        reporter_.warning(place, address(draft, "depends_on"),
                          fmt::format("service '{}' is not there", name),
                          "it is not required, and nobody waits for it");
        return true;
      }
      error(draft, place, "depends_on", fmt::format("depends on undefined service {}", name),
            "add the service, or remove the dependency", reporter_.suggest(name, service_names_));
      return false;
    });
  }

  void check_condition(const ServiceDraft& draft, const ServiceDraft& other,
                       const Dependency& dependency) {
    if (reporter_.is_full()) return;
    const auto& health = other.service.healthcheck;
    if (dependency.condition == DependencyCondition::Healthy && health && health->disable)
      error(draft, place_of(draft, "depends_on", other.name), "depends_on",
            fmt::format("service '{}' can never become healthy", other.name),
            "its health check is disabled; wait for service_started instead");
    const bool has_replicas = other.service.scale > 0;
    if (!has_replicas && dependency.required)
      error(draft, place_of(draft, "depends_on", other.name), "depends_on",
            fmt::format("service '{}' has no replica to wait for", other.name),
            "scale it to 1, or write required: false");
  }

  /// Depth first with a stack of our own: a chain of thousands must not cost our stack. Each cycle
  /// is told once, by the edge that closes it.
  void find_cycles() {
    enum class Mark : uint8_t { New, Open, Done };
    std::vector<Mark> marks(drafts_.size(), Mark::New);
    struct Visit {
      size_t service;
      std::map<std::string, Dependency>::const_iterator next;
    };
    std::vector<Visit> path;
    const auto enter = [&](size_t service) {
      marks[service] = Mark::Open;
      path.push_back({service, drafts_[service].service.depends_on.cbegin()});
    };
    for (size_t start = 0; start < drafts_.size(); ++start) {
      if (marks[start] == Mark::New) enter(start);
      while (!path.empty()) {
        Visit& top = path.back();
        if (top.next == drafts_[top.service].service.depends_on.cend()) {
          marks[top.service] = Mark::Done;
          path.pop_back();
          continue;
        }
        const std::string& name = (top.next++)->first;
        const auto found = index_.find(name);
        if (found == index_.end()) continue;
        if (marks[found->second] == Mark::New) {
          enter(found->second);
        } else if (marks[found->second] == Mark::Open && !reporter_.is_full()) {
          std::vector<std::string> names;
          for (const Visit& visit : path)
            if (!names.empty() || visit.service == found->second)
              names.push_back(drafts_[visit.service].name);
          names.push_back(name);
          report_cycle(drafts_[path.back().service], names);
        }
      }
    }
  }

  void check_build(const ServiceDraft& draft) {
    for (const auto& [name, place] : draft.build_services)
      if (!index_.contains(name) && !reporter_.is_full())
        error(draft, place, "build.additional_contexts",
              fmt::format("refers to undefined service {}", name),
              "add the service, or name an image: docker-image://NAME",
              reporter_.suggest(name, service_names_));
  }

  /// Builds whose bases wait for each other: whoever is left when all are taken that can be built.
  void find_build_cycles() {
    std::map<std::string, size_t> waits_for;
    std::map<std::string, std::vector<std::string>> users;
    for (const ServiceDraft& draft : drafts_)
      for (const auto& [name, place] : draft.build_services) {
        if (!index_.contains(name)) continue;
        ++waits_for[draft.name];
        users[name].push_back(draft.name);
      }
    std::vector<std::string> ready;
    for (const ServiceDraft& draft : drafts_)
      if (!waits_for.contains(draft.name)) ready.push_back(draft.name);
    while (!ready.empty()) {
      const std::string done = std::move(ready.back());
      ready.pop_back();
      for (const std::string& user : users[done])
        if (--waits_for[user] == 0) ready.push_back(user);
    }
    for (const ServiceDraft& draft : drafts_) {
      const auto waiting = waits_for.find(draft.name);
      if (waiting == waits_for.end() || waiting->second == 0) continue;
      error(draft, draft.build_services.front().second, "build.additional_contexts",
            "builds that wait for each other", "remove one of the contexts 'service:…'");
      return;
    }
  }

  void report_cycle(const ServiceDraft& last, std::vector<std::string> names) {
    constexpr size_t shown_max = 20;
    const std::string& closing = names.back();
    const Place place = place_of(last, "depends_on", closing);
    if (names.size() > shown_max) {
      const std::string end = names.back();
      names.resize(shown_max);
      names.insert(names.end(), {"…", end});
    }
    error(last, place, "depends_on", "dependency cycle detected: " + base::join(names, " -> "),
          "remove one of these dependencies");
  }

  const Stack& stack_;
  std::vector<ServiceDraft>& drafts_;
  Reporter& reporter_;
  struct Choice {
    const ServiceDraft* draft;
    Port port;
    Place place;
  };
  std::vector<Choice> choices_;
  std::map<std::string, size_t> index_;
  std::vector<std::string> service_names_;
  std::map<std::pair<std::string, std::string>, std::string> addresses_;
  std::map<std::pair<uint16_t, Protocol>, std::vector<std::pair<std::string, std::string>>>
      published_;
  std::map<std::string, std::string> container_names_;
};

}  // namespace

void check_consistency(const Stack& stack, std::vector<ServiceDraft>& drafts,
                       ReadContext& context) {
  ConsistencyCheck(stack, drafts, context).run();
}

}  // namespace spec
