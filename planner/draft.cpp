#include "planner/draft.h"

#include <algorithm>
#include <functional>
#include <map>
#include <queue>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "base/overloaded.h"

namespace planner {

namespace {

void collect_record(const ContainerRecord& record, std::set<std::string>& addresses) {
  addresses.insert("container." + record.id);
  for (const auto& [network, attachment] : record.applied.networks)
    addresses.insert("network." + network);
  for (const spec::Mount& mount : record.applied.volumes)
    if (mount.type == spec::MountType::Volume && !mount.source.empty())
      addresses.insert("volume." + mount.source);
}

void collect(const Operation& operation, std::set<std::string>& addresses) {
  std::visit(base::overloaded{
                 [&](const CreateNetwork& op) { addresses.insert("network." + op.record.name); },
                 [&](const RemoveNetwork& op) { addresses.insert("network." + op.name); },
                 [&](const CreateVolume& op) { addresses.insert("volume." + op.record.name); },
                 [&](const RemoveVolume& op) { addresses.insert("volume." + op.name); },
                 [&](const CreateContainer& op) { collect_record(op.record, addresses); },
                 [&](const UpdateContainer& op) { collect_record(op.record, addresses); },
                 [&](const auto& op) { addresses.insert("container." + op.id); },
             },
             operation);
}

}  // namespace

Draft::Node Draft::add(std::string address, Operation operation, std::string reason) {
  Step step;
  step.address = std::move(address);
  step.operation = std::move(operation);
  step.reason = std::move(reason);
  steps_.push_back(std::move(step));
  successors_.emplace_back();
  return steps_.size() - 1;
}

void Draft::order(Node before, Node after) { successors_[before].push_back(after); }

void Draft::note(NoteKind kind, std::string address, std::string text) {
  notes_.push_back({kind, std::move(address), std::move(text)});
}

/// Kahn's algorithm with a heap, so that the order depends on nothing but the order of add().
/// Edges that come from records applied at different times may contradict each other; then the
/// earliest step of the knot goes first, because a plan that cannot be made helps nobody.
std::vector<Draft::Node> Draft::sorted() const {
  std::vector<size_t> waiting_for(steps_.size(), 0);
  for (const auto& list : successors_)
    for (const Node node : list) ++waiting_for[node];
  std::priority_queue<Node, std::vector<Node>, std::greater<>> ready;
  for (Node node = 0; node < steps_.size(); ++node)
    if (waiting_for[node] == 0) ready.push(node);

  std::vector<Node> order;
  std::vector<bool> placed(steps_.size(), false);
  Node first_unplaced = 0;
  while (order.size() < steps_.size()) {
    if (ready.empty()) {
      while (placed[first_unplaced]) ++first_unplaced;
      ready.push(first_unplaced);
    }
    const Node node = ready.top();
    ready.pop();
    if (placed[node]) continue;
    placed[node] = true;
    order.push_back(node);
    for (const Node next : successors_[node])
      if (--waiting_for[next] == 0 && !placed[next]) ready.push(next);
  }
  return order;
}

Plan Draft::finish(std::string project, std::string command, const Snapshot& actual) && {
  const std::vector<Node> order = sorted();
  std::vector<uint32_t> number(steps_.size(), 0);
  for (size_t i = 0; i < order.size(); ++i) number[order[i]] = static_cast<uint32_t>(i + 1);
  for (Node node = 0; node < steps_.size(); ++node) {
    steps_[node].id = {number[node]};
    for (const Node next : successors_[node])
      if (number[node] < number[next]) steps_[next].after.push_back({number[node]});
  }

  Plan plan;
  plan.project = std::move(project);
  plan.command = std::move(command);
  plan.base_serial = actual.serial;
  plan.lineage = actual.lineage;
  plan.notes = std::move(notes_);
  plan.steps.reserve(steps_.size());
  std::set<std::string> addresses;
  for (const Node node : order) {
    Step& step = steps_[node];
    std::sort(step.after.begin(), step.after.end());
    step.after.erase(std::unique(step.after.begin(), step.after.end()), step.after.end());
    collect(step.operation, addresses);
    plan.steps.push_back(std::move(step));
  }
  for (const std::string& address : addresses)
    plan.basis.push_back({address, state_of(actual, address)});
  return plan;
}

NetworkRecord builtin_network() {
  NetworkRecord record;
  record.name = record.key = record.applied.name = builtin_network_name;
  record.builtin = true;
  return record;
}

bool has_vm(const ContainerRecord& record) {
  return record.phase == Phase::Running || record.phase == Phase::Unknown;
}

bool may_run(const ContainerRecord& record) {
  return has_vm(record) || (record.wanted == Wanted::Running && record.phase != Phase::Missing &&
                            record.applied.restart.condition != spec::RestartCondition::No);
}

std::string address_of(const ContainerRecord& record) {
  if (record.service.empty() || record.one_off) return "container." + record.id;
  return fmt::format("service.{}[{}]", record.service, record.index);
}

}  // namespace planner
