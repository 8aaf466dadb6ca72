#pragma once
/// When to probe a container's health, and what the results mean. Pure: it is told the time.
///
/// Docker's rules: the first probe comes one interval after the start. While the start period lasts
/// and nothing has succeeded, probes come every start interval and failures do not count. Otherwise
/// `retries` failures in a row make it unhealthy, and one success makes it healthy.

#include <cstdint>
#include <optional>

#include "guest/protocol/protocol.h"

namespace agent {

class HealthMonitor {
 public:
  HealthMonitor(const guest::HealthConfig& config, int64_t started_ns);

  guest::HealthStatus status() const { return status_; }
  /// When the next probe is due; one that is running is finished first.
  int64_t next_probe_ns() const { return next_probe_ns_; }
  /// The result of the probe that began at `began_ns`. The new status, if it changed.
  std::optional<guest::HealthStatus> probe_finished(bool succeeded, int64_t began_ns,
                                                    int64_t now_ns);

 private:
  int64_t interval_at(int64_t now_ns) const;
  bool in_start_period(int64_t now_ns) const;

  guest::HealthConfig config_;
  int64_t started_ns_;
  int64_t next_probe_ns_;
  guest::HealthStatus status_ = guest::HealthStatus::Starting;
  uint32_t failures_in_row_ = 0;
  bool succeeded_once_ = false;
};

}  // namespace agent
