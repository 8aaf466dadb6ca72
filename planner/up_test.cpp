#include <doctest/doctest.h>

#include "planner/test_stack.h"

using namespace planner;        // NOLINT(google-build-using-namespace): tests read better
using namespace planner::test;  // NOLINT(google-build-using-namespace)

TEST_CASE("a first up creates networks and containers, and starts dependencies first") {
  spec::Stack stack = shop();
  service(stack, "db", "postgres");
  service(stack, "web").depends_on["db"] = {};

  const auto plan = plan_up(stack, nothing());

  REQUIRE(plan);
  CHECK(lines(*plan) ==
        "1 + network.default  create network\n"
        "2 + service.db[1]  create container after 1\n"
        "3 ▸ service.db[1]  start after 2\n"
        "4 + service.web[1]  create container after 1\n"
        "5 ▸ service.web[1]  start after 3 4\n");
}

TEST_CASE("a second up of the same stack has no steps") {
  spec::Stack stack = shop();
  service(stack, "db", "postgres").volumes.push_back({spec::MountType::Volume, "data", "/d"});
  service(stack, "web").scale = 3;
  const auto first = plan_up(stack, nothing());
  REQUIRE(first);

  const auto second = plan_up(stack, after(*first, nothing()));

  REQUIRE(second);
  CHECK(lines(*second) == "");
  CHECK(second->notes.empty());
}

TEST_CASE("equal inputs give equal bytes") {
  spec::Stack stack = shop();
  for (const char* name : {"c", "a", "b"}) service(stack, name).scale = 2;
  stack.services["a"].depends_on["b"] = {};

  const auto one = plan_up(stack, nothing());
  const auto two = plan_up(stack, nothing());

  REQUIRE(one);
  REQUIRE(two);
  CHECK(lines(*one) == lines(*two));
  CHECK(render_text(*one) == render_text(*two));
}

TEST_CASE("labels, policies and ports change in place; the environment replaces") {
  spec::Stack stack = shop();
  service(stack, "api");
  service(stack, "web");
  const Snapshot running = after(*plan_up(stack, nothing()), nothing());
  stack.services["api"].labels["tier"] = "2";
  stack.services["api"].ports.push_back({"127.0.0.1", 8080, 80, spec::Protocol::Tcp});
  stack.services["web"].environment["MODE"] = "fast";

  const auto plan = plan_up(stack, running);

  REQUIRE(plan);
  CHECK(lines(*plan) ==
        "1 ~ service.api[1]  update container\n"
        "2 ▸ service.web[1]  stop\n"
        "3 - service.web[1]  remove container after 2\n"
        "4 + service.web[1]  create container after 3\n"
        "5 ▸ service.web[1]  start after 4\n");
  CHECK(plan->steps[3].replaces);
  CHECK(plan->steps[1].reason == "environment.MODE changed");
  CHECK(std::get<CreateContainer>(plan->steps[3].operation).record.generation == 2);
}

TEST_CASE("a changed healthcheck needs a restart, not a replacement") {
  spec::Stack stack = shop();
  service(stack, "web");
  const Snapshot running = after(*plan_up(stack, nothing()), nothing());
  stack.services["web"].healthcheck = spec::HealthCheck{.test = {"true"}};

  const auto plan = plan_up(stack, running);

  REQUIRE(plan);
  CHECK(lines(*plan) ==
        "1 ▸ service.web[1]  stop\n"
        "2 ~ service.web[1]  update container after 1\n"
        "3 ▸ service.web[1]  start after 2\n");
}

TEST_CASE("a new digest behind the same image name replaces") {
  spec::Stack stack = shop();
  service(stack, "web");
  Snapshot running = after(*plan_up(stack, nothing()), nothing());
  running.image_digests["nginx"] = "sha256:newer";

  const auto plan = plan_up(stack, running);

  REQUIRE(plan);
  REQUIRE(plan->steps.size() == 4);
  CHECK(plan->steps[0].reason == "image digest changed");
}

TEST_CASE("scaling down removes the highest number, scaling up leaves the peers alone") {
  spec::Stack stack = shop();
  service(stack, "web").scale = 3;
  const Snapshot three = after(*plan_up(stack, nothing()), nothing());

  const auto down = plan_up(stack, three, {.scale = {{"web", 2}}});
  const auto up = plan_up(stack, three, {.scale = {{"web", 4}}});

  REQUIRE(down);
  REQUIRE(up);
  CHECK(lines(*down) ==
        "1 ▸ service.web[3]  stop\n"
        "2 - service.web[3]  remove container after 1\n");
  CHECK(lines(*up) ==
        "1 + service.web[4]  create container\n"
        "2 ▸ service.web[4]  start after 1\n");
}

TEST_CASE("scaling down prefers a container that differs from the stack") {
  spec::Stack stack = shop();
  service(stack, "web").scale = 2;
  Snapshot two = after(*plan_up(stack, nothing()), nothing());
  two.containers["shop-web-1"].applied.environment["OLD"] = "1";

  const auto plan = plan_up(stack, two, {.scale = {{"web", 1}}});

  REQUIRE(plan);
  CHECK(lines(*plan) ==
        "1 ▸ service.web[1]  stop\n"
        "2 - service.web[1]  remove container after 1\n");
}

TEST_CASE("service_healthy puts one wait between the starts, shared by all who wait") {
  spec::Stack stack = shop();
  service(stack, "db", "postgres");
  for (const char* name : {"web", "worker"})
    service(stack, name).depends_on["db"].condition = spec::DependencyCondition::Healthy;

  const auto plan = plan_up(stack, nothing());

  REQUIRE(plan);
  CHECK(lines(*plan) ==
        "1 + network.default  create network\n"
        "2 + service.db[1]  create container after 1\n"
        "3 ▸ service.db[1]  start after 2\n"
        "4 + service.web[1]  create container after 1\n"
        "5 + service.worker[1]  create container after 1\n"
        "6 ▸ service.db[1]  wait until it is healthy after 3\n"
        "7 ▸ service.web[1]  start after 4 6\n"
        "8 ▸ service.worker[1]  start after 5 6\n");
}

TEST_CASE("a dependency that is not required is waited for without its failure counting") {
  spec::Stack stack = shop();
  service(stack, "cache");
  service(stack, "web").depends_on["cache"].required = false;

  const auto plan = plan_up(stack, nothing());

  REQUIRE(plan);
  const auto* await = std::get_if<AwaitContainer>(&plan->steps[4].operation);
  REQUIRE(await != nullptr);
  CHECK_FALSE(await->required);
  CHECK(plan->steps[5].address == "service.web[1]");
}

TEST_CASE("a dependency cycle is an error that walks it") {
  spec::Stack stack = shop();
  service(stack, "a").depends_on["b"] = {};
  service(stack, "b").depends_on["c"] = {};
  service(stack, "c").depends_on["a"] = {};

  const auto plan = plan_up(stack, nothing());

  REQUIRE_FALSE(plan);
  CHECK(plan.error().code() == base::ErrorCode::InvalidArgument);
  CHECK(plan.error().to_string() ==
        "dependency cycle: a -> b -> c -> a; remove one of these depends_on entries");
}

TEST_CASE("chosen services bring their dependencies, and nothing else") {
  spec::Stack stack = shop();
  service(stack, "db", "postgres");
  service(stack, "other");
  service(stack, "web").depends_on["db"] = {};

  const auto with = plan_up(stack, nothing(), {.services = {"web"}});
  const auto without = plan_up(stack, nothing(), {.services = {"web"}, .no_dependencies = true});

  REQUIRE(with);
  REQUIRE(without);
  CHECK(with->steps.size() == 5);
  CHECK(without->steps.size() == 3);
}

TEST_CASE("what is missing is named: a service, an image, an external network") {
  spec::Stack stack = shop();
  service(stack, "web", "unknown");
  const auto image = plan_up(stack, nothing());
  const auto unknown = plan_up(stack, nothing(), {.services = {"wbe"}});
  stack.networks["default"].external = true;
  const auto network = plan_up(stack, nothing());

  REQUIRE_FALSE(image);
  CHECK(image.error().code() == base::ErrorCode::NotFound);
  CHECK(image.error().to_string().starts_with("image 'unknown' of service 'web' is not in"));
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().to_string() == "no such service: 'wbe'; this stack has: web");
  REQUIRE_FALSE(network);
  CHECK(network.error().to_string().starts_with("network 'shop_default' is declared as external"));
}

TEST_CASE("a changed network is made anew with its containers stopped around it") {
  spec::Stack stack = shop();
  service(stack, "web");
  const Snapshot running = after(*plan_up(stack, nothing()), nothing());
  stack.networks["default"].subnet = "10.9.0.0/24";

  const auto plan = plan_up(stack, running);

  REQUIRE(plan);
  CHECK(lines(*plan) ==
        "1 ▸ service.web[1]  stop\n"
        "2 - network.default  remove network after 1\n"
        "3 + network.default  create network after 2\n"
        "4 ▸ service.web[1]  start after 1 3\n");
}

TEST_CASE("a changed volume is only noted, because its data would be lost") {
  spec::Stack stack = shop();
  service(stack, "db", "postgres").volumes.push_back({spec::MountType::Volume, "data", "/d"});
  const Snapshot running = after(*plan_up(stack, nothing()), nothing());
  stack.volumes["data"].labels["owner"] = "me";

  const auto plan = plan_up(stack, running);

  REQUIRE(plan);
  CHECK(plan->steps.empty());
  REQUIRE(plan->notes.size() == 1);
  CHECK(plan->notes[0].kind == NoteKind::Warning);
}

TEST_CASE("drift is noted and repaired: an exit, a lost disk, a dead network, a lost volume") {
  spec::Stack stack = shop();
  service(stack, "db", "postgres").volumes.push_back({spec::MountType::Volume, "data", "/d"});
  service(stack, "web");
  Snapshot drifted = after(*plan_up(stack, nothing()), nothing());
  drifted.containers["shop-db-1"].phase = Phase::Missing;
  drifted.containers["shop-web-1"].phase = Phase::Exited;
  drifted.containers["shop-web-1"].exit_code = 3;
  drifted.networks["shop_default"].alive = false;
  drifted.volumes["shop_data"].present = false;

  const auto plan = plan_up(stack, drifted);

  REQUIRE(plan);
  CHECK(lines(*plan) ==
        "1 + network.default  create network\n"
        "2 + volume.data  create volume\n"
        "3 + service.db[1]  create container after 1 2\n"
        "4 ▸ service.db[1]  start after 3\n"
        "5 ▸ service.web[1]  start after 1\n");
  CHECK(plan->steps[4].reason == "it has exited (3)");
  CHECK(plan->notes.size() == 3);
}

TEST_CASE("orphans are noted, and removed only when asked") {
  spec::Stack stack = shop();
  service(stack, "old");
  service(stack, "web");
  const Snapshot running = after(*plan_up(stack, nothing()), nothing());
  stack.services.erase("old");

  const auto kept = plan_up(stack, running);
  const auto removed = plan_up(stack, running, {.remove_orphans = true});

  REQUIRE(kept);
  REQUIRE(removed);
  CHECK(kept->steps.empty());
  REQUIRE(kept->notes.size() == 1);
  CHECK(kept->notes[0].kind == NoteKind::Orphan);
  CHECK(lines(*removed) ==
        "1 ▸ service.old[1]  stop\n"
        "2 - service.old[1]  remove container after 1\n");
}

TEST_CASE("replacing a dependency restarts who asked for it, around the replacement") {
  spec::Stack stack = shop();
  service(stack, "db", "postgres");
  service(stack, "web").depends_on["db"].restart = true;
  const Snapshot running = after(*plan_up(stack, nothing()), nothing());
  stack.services["db"].environment["X"] = "1";

  const auto plan = plan_up(stack, running);

  REQUIRE(plan);
  CHECK(lines(*plan) ==
        "1 ▸ service.web[1]  stop\n"
        "2 ▸ service.db[1]  stop after 1\n"
        "3 - service.db[1]  remove container after 2\n"
        "4 + service.db[1]  create container after 3\n"
        "5 ▸ service.db[1]  start after 4\n"
        "6 ▸ service.web[1]  start after 1 5\n");
}

TEST_CASE("no_recreate keeps what differs, force_recreate replaces what does not") {
  spec::Stack stack = shop();
  service(stack, "web");
  const Snapshot running = after(*plan_up(stack, nothing()), nothing());
  const auto forced = plan_up(stack, running, {.force_recreate = true});
  stack.services["web"].environment["X"] = "1";
  const auto kept = plan_up(stack, running, {.no_recreate = true});

  REQUIRE(forced);
  REQUIRE(kept);
  CHECK(forced->steps.size() == 4);
  CHECK(kept->steps.empty());
}

TEST_CASE("a container name that somebody else has is an error") {
  spec::Stack stack = shop();
  service(stack, "web").container_name = "mine";
  Snapshot taken = nothing();
  taken.containers["mine"].id = "mine";
  taken.containers["mine"].one_off = true;

  const auto plan = plan_up(stack, taken);

  REQUIRE_FALSE(plan);
  CHECK(plan.error().code() == base::ErrorCode::Exists);
}

TEST_CASE("wait adds a wait for what is not ready, and none for what is") {
  spec::Stack stack = shop();
  service(stack, "web");
  const auto first = plan_up(stack, nothing(), {.wait = true, .wait_timeout_ms = 5000});
  REQUIRE(first);
  const auto second = plan_up(stack, after(*first, nothing()), {.wait = true});

  REQUIRE(second);
  const auto* await = std::get_if<AwaitContainer>(&first->steps.back().operation);
  REQUIRE(await != nullptr);
  CHECK(await->timeout_ms == 5000);
  CHECK(await->healthy_if_checked);
  CHECK(second->steps.empty());
}
