#pragma once
/// Decisions of supervision, as functions of facts: when to restart, how long to wait before, and
/// whether an awaited condition holds, may still come, or cannot come any more.

#include <cstdint>
#include <optional>
#include <string>

#include "planner/plan.h"
#include "planner/snapshot.h"

namespace reconciler {

/// Whether the policy of a container that is not running asks to start it again. `failed_starts`
/// counts attempts since its last life that did not even get a process running.
bool should_restart(const planner::ContainerRecord& record, uint32_t failed_starts);

/// Doubles with every failure in a row, up to a bound: 100 ms, 200 ms, … 60 s.
int64_t restart_delay_ms(uint32_t failures_in_a_row);

enum class Hope { Holds, Pending, Lost };
struct Verdict {
  Hope hope = Hope::Pending;
  std::string text;  ///< Why it is lost.
};

/// `restarting`: its policy is about to start it again, so an exit is not the last word.
Verdict judge(const planner::AwaitContainer& await,
              const std::optional<planner::ContainerRecord>& record, bool restarting);

/// `TERM`, `SIGTERM`, `15`, `RTMIN+3`; nullopt for what is no signal.
std::optional<int> parse_signal(const std::string& text);

}  // namespace reconciler
