#include "guest/agent/event_log.h"

#include <doctest/doctest.h>

#include "guest/agent/limits.h"

using agent::EventLog;
using guest::Event;
using guest::EventKind;
using guest::HealthStatus;

TEST_CASE("events are numbered from one and given again until acknowledged") {
  EventLog log;
  log.append({.kind = EventKind::Started, .process = "main"});
  log.append({.kind = EventKind::Exited, .process = "main"});

  REQUIRE(log.after(0));
  CHECK(log.after(0)->sequence == 1);
  CHECK(log.after(1)->kind == EventKind::Exited);
  CHECK(log.after(2) == nullptr);

  REQUIRE(log.acknowledge(1));
  CHECK(log.after(0)->sequence == 2);
  REQUIRE(log.acknowledge(2));
  CHECK(log.after(0) == nullptr);
  CHECK(log.last() == 2);
}

TEST_CASE("an event that has not happened cannot be acknowledged") {
  EventLog log;

  CHECK_FALSE(log.acknowledge(1));
}

TEST_CASE("a full log holds back changes of health and keeps the newest") {
  EventLog log;
  while (!log.full()) log.append({.kind = EventKind::Started});
  const uint64_t before = log.last();
  log.append({.kind = EventKind::Health, .health = HealthStatus::Healthy});
  log.append({.kind = EventKind::Health, .health = HealthStatus::Unhealthy});
  CHECK(log.last() == before);

  REQUIRE(log.acknowledge(1));

  REQUIRE(log.after(before));
  CHECK(log.after(before)->health == HealthStatus::Unhealthy);
  CHECK(log.last() == before + 1);
}
