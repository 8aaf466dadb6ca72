#include "guest/agent/health.h"

#include <doctest/doctest.h>

using agent::HealthMonitor;
using guest::HealthStatus;

namespace {
constexpr int64_t second = 1'000'000'000;
const guest::HealthConfig every_ten_seconds{.interval_ns = 10 * second, .retries = 2};
}  // namespace

TEST_CASE("the first probe comes one interval after the start") {
  const HealthMonitor monitor(every_ten_seconds, 100 * second);

  CHECK(monitor.status() == HealthStatus::Starting);
  CHECK(monitor.next_probe_ns() == 110 * second);
}

TEST_CASE("one success makes a container healthy, so many failures in a row unhealthy") {
  HealthMonitor monitor(every_ten_seconds, 0);

  CHECK(monitor.probe_finished(true, 10 * second, 11 * second) == HealthStatus::Healthy);
  CHECK(monitor.next_probe_ns() == 21 * second);
  CHECK_FALSE(monitor.probe_finished(false, 21 * second, 22 * second));
  CHECK(monitor.probe_finished(false, 32 * second, 33 * second) == HealthStatus::Unhealthy);
  CHECK(monitor.probe_finished(true, 43 * second, 44 * second) == HealthStatus::Healthy);
}

TEST_CASE("a success between two failures starts the count again") {
  HealthMonitor monitor(every_ten_seconds, 0);

  CHECK_FALSE(monitor.probe_finished(false, 10 * second, 10 * second));
  CHECK(monitor.probe_finished(true, 20 * second, 20 * second) == HealthStatus::Healthy);
  CHECK_FALSE(monitor.probe_finished(false, 30 * second, 30 * second));
}

TEST_CASE("failures in the start period do not count, and probes come faster") {
  guest::HealthConfig config = every_ten_seconds;
  config.start_period_ns = 60 * second;
  config.start_interval_ns = 1 * second;
  config.retries = 1;
  HealthMonitor monitor(config, 0);

  CHECK(monitor.next_probe_ns() == 1 * second);
  CHECK_FALSE(monitor.probe_finished(false, 59 * second, 59 * second));
  CHECK(monitor.next_probe_ns() == 60 * second);
  CHECK(monitor.probe_finished(false, 60 * second, 60 * second) == HealthStatus::Unhealthy);
  CHECK(monitor.next_probe_ns() == 70 * second);
}

TEST_CASE("a first success ends the start period") {
  guest::HealthConfig config = every_ten_seconds;
  config.start_period_ns = 600 * second;
  config.retries = 1;
  HealthMonitor monitor(config, 0);

  CHECK(monitor.probe_finished(true, 10 * second, 10 * second) == HealthStatus::Healthy);
  CHECK(monitor.probe_finished(false, 20 * second, 20 * second) == HealthStatus::Unhealthy);
}

TEST_CASE("absurd intervals are bounded") {
  const HealthMonitor monitor({.interval_ns = 0, .retries = 0}, 0);
  const HealthMonitor far({.interval_ns = INT64_MAX}, INT64_MAX / 2);

  CHECK(monitor.next_probe_ns() > 0);
  CHECK(far.next_probe_ns() > INT64_MAX / 2);
}
