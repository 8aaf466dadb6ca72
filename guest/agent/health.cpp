#include "guest/agent/health.h"

#include <algorithm>

namespace agent {

using guest::HealthStatus;

namespace {

/// Nobody means less; a stack file cannot make the agent spin.
constexpr int64_t interval_ns_min = 1'000'000;
constexpr int64_t duration_ns_max = int64_t{366} * 24 * 3600 * 1'000'000'000;

}  // namespace

HealthMonitor::HealthMonitor(const guest::HealthConfig& config, int64_t started_ns)
    : config_(config), started_ns_(started_ns), next_probe_ns_(0) {
  for (int64_t* interval : {&config_.interval_ns, &config_.start_interval_ns})
    *interval = std::clamp(*interval, interval_ns_min, duration_ns_max);
  config_.start_period_ns = std::clamp<int64_t>(config_.start_period_ns, 0, duration_ns_max);
  config_.retries = std::max(config_.retries, 1u);
  next_probe_ns_ = started_ns_ + interval_at(started_ns_);
}

bool HealthMonitor::in_start_period(int64_t now_ns) const {
  return !succeeded_once_ && now_ns - started_ns_ < config_.start_period_ns;
}

int64_t HealthMonitor::interval_at(int64_t now_ns) const {
  return in_start_period(now_ns) ? config_.start_interval_ns : config_.interval_ns;
}

std::optional<HealthStatus> HealthMonitor::probe_finished(bool succeeded, int64_t began_ns,
                                                          int64_t now_ns) {
  const HealthStatus before = status_;
  if (succeeded) {
    succeeded_once_ = true;
    failures_in_row_ = 0;
    status_ = HealthStatus::Healthy;
  } else if (!in_start_period(began_ns)) {
    failures_in_row_ = std::min(failures_in_row_ + 1, config_.retries);
    if (failures_in_row_ >= config_.retries) status_ = HealthStatus::Unhealthy;
  }
  next_probe_ns_ = now_ns + interval_at(now_ns);
  return status_ == before ? std::nullopt : std::optional(status_);
}

}  // namespace agent
