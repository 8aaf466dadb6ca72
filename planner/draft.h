#pragma once
/// A plan while it is being made: steps in any order, edges between them, then one sort.
/// Internal to planner/.

#include <cstddef>
#include <string>
#include <vector>

#include "planner/plan.h"

namespace planner {

class Draft {
 public:
  using Node = size_t;

  Node add(std::string address, Operation operation, std::string reason);
  Step& step(Node node) { return steps_[node]; }
  /// `before` must have succeeded before `after` begins.
  void order(Node before, Node after);
  void note(NoteKind kind, std::string address, std::string text);

  /// Sorts and numbers the steps, and writes down what they take for granted of `actual`. Among
  /// steps that may run in any order, the one added first comes first.
  Plan finish(std::string project, std::string command, const Snapshot& actual) &&;

 private:
  std::vector<Node> sorted() const;

  std::vector<Step> steps_;
  std::vector<std::vector<Node>> successors_;
  std::vector<Note> notes_;
};

/// `service.web[1]` for a container of a stack, `container.x` for any other.
std::string address_of(const ContainerRecord& record);

/// The network that containers join when nothing else is said; made when somebody first needs it.
inline constexpr const char* builtin_network_name = "default";
NetworkRecord builtin_network();

bool has_vm(const ContainerRecord& record);
/// Runs, or its policy may start it at any moment: to be removed, it must be stopped first.
bool may_run(const ContainerRecord& record);

/// What check_fresh compares: `absent`, or the identity of the record.
std::string state_of(const Snapshot& actual, const std::string& basis_address);

}  // namespace planner
