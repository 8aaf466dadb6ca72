#include "reconciler/policy.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <csignal>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/limits.h"

namespace reconciler {

using planner::HealthState;
using planner::Phase;

bool should_restart(const planner::ContainerRecord& record, uint32_t failed_starts) {
  if (record.wanted != planner::Wanted::Running) return false;
  if (record.phase != Phase::Exited && record.phase != Phase::Created) return false;
  switch (record.applied.restart.condition) {
    case spec::RestartCondition::No: return false;
    case spec::RestartCondition::OnFailure: {
      if (record.phase == Phase::Exited && record.exit_code == 0) return false;
      const auto retries_max = record.applied.restart.retries_max;
      return !retries_max || uint64_t{record.restart_count} + failed_starts < *retries_max;
    }
    case spec::RestartCondition::Always:
    case spec::RestartCondition::UnlessStopped: return true;
  }
  return false;
}

int64_t restart_delay_ms(uint32_t failures_in_a_row) {
  const uint32_t doublings = std::min(failures_in_a_row, 30u);
  return std::min(base::limits::restart_backoff_first_ms << doublings,
                  base::limits::restart_backoff_max_ms);
}

namespace {

Verdict lost(const planner::AwaitContainer& await, std::string_view what) {
  return {Hope::Lost, fmt::format("dependency failed to start: container {} {}", await.id, what)};
}

Verdict judge_running(const planner::AwaitContainer& await,
                      const planner::ContainerRecord& record) {
  const bool wants_health = await.condition == spec::DependencyCondition::Healthy ||
                            (await.condition == spec::DependencyCondition::Started &&
                             await.healthy_if_checked && record.health != HealthState::None);
  if (await.condition == spec::DependencyCondition::CompletedSuccessfully) return {};
  if (!wants_health) return {Hope::Holds, ""};
  switch (record.health) {
    case HealthState::None:
      return {Hope::Lost, fmt::format("container {} has no healthcheck configured; add one, or "
                                      "depend on service_started",
                                      await.id)};
    case HealthState::Starting: return {};
    case HealthState::Healthy: return {Hope::Holds, ""};
    case HealthState::Unhealthy: return lost(await, "is unhealthy");
  }
  return {};
}

}  // namespace

Verdict judge(const planner::AwaitContainer& await,
              const std::optional<planner::ContainerRecord>& record, bool restarting) {
  if (!record) return lost(await, "does not exist");
  switch (record->phase) {
    case Phase::Running: return judge_running(await, *record);
    case Phase::Unknown: return {};
    case Phase::Exited:
      if (await.condition == spec::DependencyCondition::CompletedSuccessfully &&
          record->exit_code == 0)
        return {Hope::Holds, ""};
      if (restarting) return {};
      return lost(await, fmt::format("exited ({})", record->exit_code));
    case Phase::Created:
      if (restarting) return {};
      return lost(await, "was not started");
    case Phase::Missing: return lost(await, "has lost its disk");
  }
  return {};
}

std::optional<int> parse_signal(const std::string& text) {
  static constexpr std::array<std::pair<std::string_view, int>, 30> names{{
      {"HUP", SIGHUP},   {"INT", SIGINT},       {"QUIT", SIGQUIT}, {"ILL", SIGILL},
      {"TRAP", SIGTRAP}, {"ABRT", SIGABRT},     {"BUS", SIGBUS},   {"FPE", SIGFPE},
      {"KILL", SIGKILL}, {"USR1", SIGUSR1},     {"SEGV", SIGSEGV}, {"USR2", SIGUSR2},
      {"PIPE", SIGPIPE}, {"ALRM", SIGALRM},     {"TERM", SIGTERM}, {"CHLD", SIGCHLD},
      {"CONT", SIGCONT}, {"STOP", SIGSTOP},     {"TSTP", SIGTSTP}, {"TTIN", SIGTTIN},
      {"TTOU", SIGTTOU}, {"URG", SIGURG},       {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ},
      {"PROF", SIGPROF}, {"WINCH", SIGWINCH},   {"IO", SIGIO},     {"PWR", SIGPWR},
      {"SYS", SIGSYS},   {"VTALRM", SIGVTALRM},
  }};
  // Numbers of the guest's kernel, where real-time signals begin at 34 for its C library.
  constexpr int first_realtime = 34;
  constexpr int last_realtime = 64;
  std::string upper = text;
  for (char& letter : upper)
    letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  std::string_view name = upper;
  if (name.starts_with("SIG")) name.remove_prefix(3);
  const auto number = [](std::string_view digits) -> std::optional<int> {
    int value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
    return value >= 0 && value <= last_realtime ? std::optional(value) : std::nullopt;
  };
  const auto found = std::find_if(names.begin(), names.end(),
                                  [&](const auto& entry) { return entry.first == name; });
  if (found != names.end()) return found->second;
  if (name == "RTMIN") return first_realtime;
  if (name == "RTMAX") return last_realtime;
  if (name.starts_with("RTMIN+")) {
    const auto offset = number(name.substr(6));
    return offset && first_realtime + *offset <= last_realtime
               ? std::optional(first_realtime + *offset)
               : std::nullopt;
  }
  if (name.starts_with("RTMAX-")) {
    const auto offset = number(name.substr(6));
    return offset && last_realtime - *offset >= first_realtime
               ? std::optional(last_realtime - *offset)
               : std::nullopt;
  }
  const auto plain = number(name);
  return plain && *plain > 0 ? plain : std::nullopt;
}

}  // namespace reconciler
