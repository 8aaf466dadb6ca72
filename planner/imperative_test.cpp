#include <doctest/doctest.h>

#include "planner/test_stack.h"

using namespace planner;        // NOLINT(google-build-using-namespace)
using namespace planner::test;  // NOLINT(google-build-using-namespace)

namespace {

Snapshot running_shop() {
  spec::Stack stack = shop();
  service(stack, "db", "postgres").volumes.push_back({spec::MountType::Volume, "data", "/d"});
  service(stack, "web").depends_on["db"] = {};
  return after(*plan_up(stack, nothing()), nothing());
}

}  // namespace

TEST_CASE("down stops dependents before dependencies and keeps the volumes") {
  const auto plan = plan_down("shop", running_shop());

  REQUIRE(plan);
  CHECK(lines(*plan) ==
        "1 ▸ service.web[1]  stop\n"
        "2 ▸ service.db[1]  stop after 1\n"
        "3 - service.db[1]  remove container after 2\n"
        "4 - service.web[1]  remove container after 1\n"
        "5 - network.default  remove network after 3 4\n");
}

TEST_CASE("down with volumes removes them last") {
  const auto plan = plan_down("shop", running_shop(), {.volumes = true});

  REQUIRE(plan);
  CHECK(describe(plan->steps.back()) == "- volume.data  remove volume");
}

TEST_CASE("down keeps a network that a stranger uses, and says so") {
  Snapshot actual = running_shop();
  actual.containers["guest"].id = "guest";
  actual.containers["guest"].applied.networks["shop_default"] = {};

  const auto plan = plan_down("shop", actual);

  REQUIRE(plan);
  CHECK(plan->steps.size() == 4);
  REQUIRE(plan->notes.size() == 1);
  CHECK(plan->notes[0].text == "network 'shop_default' is still used by container 'guest'; kept");
}

TEST_CASE("removing what runs needs force") {
  const auto refused = plan_remove({"shop-web-1"}, running_shop(), false, false);
  const auto forced = plan_remove({"shop-web-1"}, running_shop(), true, false);

  REQUIRE_FALSE(refused);
  CHECK(refused.error().code() == base::ErrorCode::InvalidState);
  REQUIRE(forced);
  CHECK(forced->steps.size() == 2);
}

TEST_CASE("an exited container whose policy may start it is stopped before it is removed") {
  Snapshot actual = running_shop();
  actual.containers["shop-web-1"].phase = Phase::Exited;
  actual.containers["shop-web-1"].applied.restart.condition = spec::RestartCondition::Always;

  const auto plan = plan_remove({"shop-web-1"}, actual, false, false);

  REQUIRE(plan);
  CHECK(plan->steps.size() == 2);
}

TEST_CASE("commands name the container that does not exist") {
  const auto plan = plan_stop({"nobody"}, nothing(), {}, {});

  REQUIRE_FALSE(plan);
  CHECK(plan.error().code() == base::ErrorCode::NotFound);
}

TEST_CASE("starting several respects their depends_on") {
  Snapshot actual = running_shop();
  for (auto& [id, record] : actual.containers) record.phase = Phase::Exited;

  const auto plan = plan_start({"shop-web-1", "shop-db-1"}, actual, "asked");

  REQUIRE(plan);
  CHECK(lines(*plan) ==
        "1 ▸ service.db[1]  start\n"
        "2 ▸ service.web[1]  start after 1\n");
}
