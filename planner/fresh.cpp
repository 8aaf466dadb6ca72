#include <string_view>

#include "planner/draft.h"
#include "planner/plan.h"

namespace planner {

std::string state_of(const Snapshot& actual, const std::string& basis_address) {
  const size_t dot = basis_address.find('.');
  if (dot == std::string::npos) return "absent";
  const std::string_view kind = std::string_view(basis_address).substr(0, dot);
  const std::string name = basis_address.substr(dot + 1);
  if (kind == "container") {
    const auto found = actual.containers.find(name);
    if (found == actual.containers.end()) return "absent";
    return fmt::format("generation {} made at {}", found->second.generation,
                       found->second.created_wall_ns);
  }
  if (kind == "network") {
    const auto found = actual.networks.find(name);
    if (found == actual.networks.end()) return "absent";
    return fmt::format("made at {}", found->second.created_wall_ns);
  }
  const auto found = actual.volumes.find(name);
  if (found == actual.volumes.end()) return "absent";
  return fmt::format("made at {}", found->second.created_wall_ns);
}

base::Result<> check_fresh(const Plan& plan, const Snapshot& actual) {
  if (plan.lineage != actual.lineage)
    return base::fail(base::ErrorCode::InvalidState,
                      "this plan was made for another system's state (lineage '{}', this is '{}'); "
                      "plan again here",
                      plan.lineage, actual.lineage);
  if (plan.base_serial == actual.serial) return {};
  for (const Basis& basis : plan.basis) {
    const std::string now = state_of(actual, basis.address);
    if (now == basis.state) continue;
    return base::fail(base::ErrorCode::InvalidState,
                      "'{}' has changed since this plan was made: it was {}, it is {}; plan again",
                      basis.address, basis.state, now);
  }
  return {};
}

}  // namespace planner
