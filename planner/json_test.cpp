#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "planner/test_stack.h"

using namespace planner;        // NOLINT(google-build-using-namespace)
using namespace planner::test;  // NOLINT(google-build-using-namespace)

namespace {

Plan rich_plan() {
  spec::Stack stack = shop();
  service(stack, "db", "postgres").volumes.push_back({spec::MountType::Volume, "data", "/d"});
  service(stack, "web").depends_on["db"].condition = spec::DependencyCondition::Healthy;
  service(stack, "old");
  Snapshot running = after(*plan_up(stack, nothing()), nothing());
  stack.services.erase("old");
  stack.services["web"].environment["X"] = "1";
  stack.services["db"].labels["y"] = "2";
  return *plan_up(stack, running, {.remove_orphans = true, .wait = true});
}

}  // namespace

TEST_CASE("a plan reads back from its JSON as it was") {
  const Plan plan = rich_plan();

  const auto read = plan_from_json(to_json(plan));

  REQUIRE(read);
  CHECK(base::dump_json(to_json(*read)) == base::dump_json(to_json(plan)));
  CHECK(render_text(*read) == render_text(plan));
}

TEST_CASE("a container record keeps every field through JSON") {
  ContainerRecord record;
  record.id = "x";
  record.phase = Phase::Unknown;
  record.health = HealthState::Unhealthy;
  record.wanted = Wanted::Stopped;
  record.exit_code = -7;
  record.places = {{"n", "10.0.0.2/24", "10.0.0.1", "02:00:00:00:00:01"}};
  record.published = {{"0.0.0.0", 8080, 80, spec::Protocol::Udp}};
  record.anonymous_volumes = {"v"};
  record.started_wall_ns = 1'790'000'000'000'000'000;

  const auto read = container_record_from_json(to_json(record));

  REQUIRE(read);
  CHECK(base::dump_json(to_json(*read)) == base::dump_json(to_json(record)));
  CHECK(read->published[0].protocol == spec::Protocol::Udp);
  CHECK(read->started_wall_ns == record.started_wall_ns);
}

TEST_CASE("a wrong type is refused with its path") {
  nlohmann::json json = to_json(rich_plan());
  json["steps"][1]["reason"] = 5;

  const auto read = plan_from_json(json);

  REQUIRE_FALSE(read);
  CHECK(read.error().to_string() == "'steps[1].reason' must be a text");
}

TEST_CASE("a number that does not fit is refused, not cut") {
  nlohmann::json json = {{"id", "x"}, {"exit_code", 1LL << 40}};

  CHECK_FALSE(container_record_from_json(json));
}

TEST_CASE("steps that point forwards, or at nothing, are refused") {
  nlohmann::json forwards = to_json(rich_plan());
  forwards["steps"][0]["after"] = {2};
  nlohmann::json renumbered = to_json(rich_plan());
  renumbered["steps"][0]["id"] = 7;

  CHECK_FALSE(plan_from_json(forwards));
  CHECK_FALSE(plan_from_json(renumbered));
}

TEST_CASE("names that would leave their folder are refused") {
  nlohmann::json json = to_json(rich_plan());
  json["steps"] = nlohmann::json::array(
      {{{"id", 1}, {"operation", {{"kind", "remove-container"}, {"id", "../etc"}}}}});

  CHECK_FALSE(plan_from_json(json));
}

TEST_CASE("a plan is stale when a record it relies on has changed, and only then") {
  spec::Stack stack = shop();
  service(stack, "web");
  Snapshot running = after(*plan_up(stack, nothing()), nothing());
  stack.services["web"].environment["X"] = "1";
  const Plan plan = *plan_up(stack, running);

  Snapshot other = running;
  ++other.serial;
  other.containers["unrelated"].id = "unrelated";
  Snapshot changed = running;
  ++changed.serial;
  ++changed.containers["shop-web-1"].generation;
  Snapshot elsewhere = running;
  elsewhere.lineage = "another";

  CHECK(check_fresh(plan, running));
  CHECK(check_fresh(plan, other));
  const auto stale = check_fresh(plan, changed);
  REQUIRE_FALSE(stale);
  CHECK(stale.error().code() == base::ErrorCode::InvalidState);
  CHECK(stale.error().to_string() ==
        "'container.shop-web-1' has changed since this plan was made: it was generation 1 made at "
        "0, it is generation 2 made at 0; plan again");
  CHECK_FALSE(check_fresh(plan, elsewhere));
}
