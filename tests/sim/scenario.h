#pragma once
/// One random life of a system: stacks come, change and go, things break, the daemon dies; then
/// the weather calms, one last wish is made, and the rules are checked.

#include <cstdint>
#include <string>
#include <vector>

namespace sim {

struct Verdict {
  std::vector<std::string> broken_rules;  ///< Empty: all is well.
  std::vector<std::string> trace;
  uint32_t crashes = 0;
  uint32_t commands = 0;
};

Verdict run_scenario(uint64_t seed);

}  // namespace sim
