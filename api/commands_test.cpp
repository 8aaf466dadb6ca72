#include "api/commands.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "planner/test_stack.h"
#include "spec/json.h"

namespace {

using base::ErrorCode;
using nlohmann::json;
using planner::test::after;
using planner::test::lines;
using planner::test::nothing;

base::Result<planner::Plan> plan(const json& command, const planner::Snapshot& actual) {
  const auto request = api::command_from_json(command);
  if (!request) return tl::unexpected<base::Error>(request.error());
  return api::make_plan(request->command, actual);
}

std::string text_of(const base::Result<planner::Plan>& plan) {
  return plan ? lines(*plan) : "error: " + plan.error().to_string();
}

std::string error_of(const json& command) {
  const auto request = api::command_from_json(command);
  return request ? "no error" : request.error().to_string();
}

/// `web` depends on `db`.
spec::Stack two_services() {
  spec::Stack stack = planner::test::shop();
  planner::test::service(stack, "db", "postgres");
  planner::test::service(stack, "web").depends_on["db"] = {};
  return stack;
}

planner::Snapshot two_running() {
  const auto made = planner::plan_up(two_services(), nothing());
  REQUIRE(made);
  return after(*made, nothing());
}

spec::Stack one_container(const std::string& id) {
  spec::Stack stack;
  stack.networks["default"] = {.name = "default", .external = true};
  stack.volumes["data"].name = "data";
  spec::Service& service = stack.services[id];
  service.image = "nginx";
  service.networks["default"] = {};
  service.volumes.push_back({.source = "data", .target = "/data"});
  return stack;
}

}  // namespace

TEST_CASE("up plans the stack with its options") {
  const json command = {{"command", "up"},
                        {"stack", spec::to_json(two_services())},
                        {"options", {{"services", {"db"}}, {"scale", {{"db", 2}}}}}};

  CHECK(text_of(plan(command, nothing())) ==
        "1 + network.default  create network\n"
        "2 + service.db[1]  create container after 1\n"
        "3 ▸ service.db[1]  start after 2\n"
        "4 + service.db[2]  create container after 1\n"
        "5 ▸ service.db[2]  start after 4\n");
}

TEST_CASE("create makes the built-in network and the volume it needs") {
  const json command = {
      {"command", "create"}, {"stack", spec::to_json(one_container("box"))}, {"start", true}};

  const auto made = plan(command, nothing());

  REQUIRE_MESSAGE(made, text_of(made));
  const planner::Snapshot then = after(*made, nothing());
  CHECK(then.networks.at("default").builtin);
  CHECK(then.volumes.contains("data"));
  const planner::ContainerRecord& box = then.containers.at("box");
  CHECK(box.one_off);
  CHECK(box.image_digest == "sha256:nginx");
  CHECK(box.applied.volumes.at(0).source == "data");
  CHECK(box.phase == planner::Phase::Running);
}

TEST_CASE("a second container finds the built-in network and makes none") {
  const json first = {{"command", "create"}, {"stack", spec::to_json(one_container("a"))}};
  const json second = {{"command", "create"}, {"stack", spec::to_json(one_container("b"))}};
  const auto made = plan(first, nothing());
  REQUIRE(made);

  CHECK(text_of(plan(second, after(*made, nothing()))) == "1 + container.b  create container\n");
}

TEST_CASE("create fails for an image that is not there, and says how to get it") {
  spec::Stack stack = one_container("box");
  stack.services.at("box").image = "absent";

  const auto made = plan({{"command", "create"}, {"stack", spec::to_json(stack)}}, nothing());

  REQUIRE(!made);
  CHECK(made.error().code() == ErrorCode::NotFound);
  CHECK(made.error().to_string().find("container image load") != std::string::npos);
}

TEST_CASE("create refuses a name that could become a path") {
  const auto made =
      plan({{"command", "create"}, {"stack", spec::to_json(one_container("../x"))}}, nothing());

  REQUIRE(!made);
  CHECK(made.error().code() == ErrorCode::InvalidArgument);
}

TEST_CASE("restart stops dependents first and starts them last") {
  const json command = {{"command", "restart"}, {"ids", {"shop-web-1", "shop-db-1"}}};

  const auto made = plan(command, two_running());

  REQUIRE_MESSAGE(made, text_of(made));
  REQUIRE(made->steps.size() == 4);
  CHECK(std::get<planner::StopContainer>(made->steps[0].operation).id == "shop-web-1");
  CHECK(std::get<planner::StopContainer>(made->steps[1].operation).id == "shop-db-1");
  CHECK(made->steps[1].after == std::vector<planner::StepId>{{1}});
  CHECK(std::get<planner::StartContainer>(made->steps[2].operation).id == "shop-db-1");
  CHECK(made->steps[2].after == std::vector<planner::StepId>{{2}});
  CHECK(std::get<planner::StartContainer>(made->steps[3].operation).id == "shop-web-1");
  CHECK(made->steps[3].after == std::vector<planner::StepId>{{1}, {3}});
  CHECK(planner::check_fresh(*made, two_running()));
}

TEST_CASE("restart starts what was not running") {
  planner::Snapshot actual = two_running();
  actual.containers.at("shop-db-1").phase = planner::Phase::Exited;
  actual.containers.at("shop-db-1").wanted = planner::Wanted::Stopped;

  const auto made = plan({{"command", "restart"}, {"ids", {"shop-db-1"}}}, actual);

  REQUIRE(made);
  REQUIRE(made->steps.size() == 1);
  CHECK(std::holds_alternative<planner::StartContainer>(made->steps[0].operation));
}

TEST_CASE("all means those the command makes sense for") {
  planner::Snapshot actual = two_running();
  actual.containers.at("shop-db-1").phase = planner::Phase::Exited;
  actual.containers.at("shop-db-1").wanted = planner::Wanted::Stopped;
  const json all = {"*"};
  const auto ids = [&](const json& command) {
    const auto made = plan(command, actual);
    REQUIRE_MESSAGE(made, text_of(made));
    return api::container_ids(*made);
  };
  using Ids = std::vector<std::string>;

  CHECK(ids({{"command", "kill"}, {"ids", all}, {"all", true}}) == Ids{"shop-web-1"});
  CHECK(ids({{"command", "start"}, {"all", true}}) == Ids{"shop-db-1"});
  CHECK(ids({{"command", "stop"}, {"all", true}}) == Ids{"shop-web-1"});
  CHECK(ids({{"command", "remove"}, {"all", true}}) == Ids{"shop-db-1"});
  CHECK(ids({{"command", "remove"}, {"all", true}, {"force", true}}).size() == 2);
}

TEST_CASE("what stop is told reaches its step") {
  const json command = {
      {"command", "stop"}, {"ids", {"shop-db-1"}}, {"signal", "INT"}, {"grace_ms", 1500}};

  const auto made = plan(command, two_running());

  REQUIRE(made);
  const auto& stop = std::get<planner::StopContainer>(made->steps.at(0).operation);
  CHECK(stop.signal == "INT");
  CHECK(stop.grace_ms == 1500);
}

TEST_CASE("a container is found by its whole id only") {
  const auto made = plan({{"command", "stop"}, {"ids", {"shop-web"}}}, two_running());

  REQUIRE(!made);
  CHECK(made.error().code() == ErrorCode::NotFound);
}

TEST_CASE("down needs no stack") {
  const auto made = plan({{"command", "down"}, {"project", "shop"}}, two_running());

  REQUIRE(made);
  const planner::Snapshot then = after(*made, two_running());
  CHECK(then.containers.empty());
}

TEST_CASE("a command that is not understood is refused with a hint, never half obeyed") {
  CHECK(error_of({{"command", "stpo"}}).find("did you mean 'stop'?") != std::string::npos);
  CHECK(error_of({{"command", "stop"}, {"ids", {"a"}}, {"grace", 1}}) ==
        "the command stop has no member 'grace'");
  CHECK(error_of({{"command", "stop"}, {"ids", {"a"}}, {"grace_ms", -1}}).find("grace_ms") !=
        std::string::npos);
  CHECK(error_of({{"command", "stop"}, {"ids", {"a"}}, {"grace_ms", 1e300}}).find("grace_ms") !=
        std::string::npos);
  CHECK(error_of({{"command", "stop"}, {"ids", "a"}}).find("a list of texts") != std::string::npos);
  CHECK(error_of({{"command", "stop"}, {"ids", json::array()}}).find("at least one") !=
        std::string::npos);
  CHECK(error_of({{"command", "stop"}, {"ids", {"a"}}, {"all", true}}).find("not both") !=
        std::string::npos);
  CHECK(error_of({{"command", "kill"}, {"ids", {"a"}}, {"signal", "BOGUS"}}).find("no signal") !=
        std::string::npos);
  CHECK(error_of(json::array()) == "a command must be an object, not array");
  CHECK(error_of({{"command", "down"}, {"project", ""}}) != "no error");
  CHECK(error_of({{"command", "up"}, {"stack", 7}}) != "no error");
  CHECK(error_of({{"command", "create"}, {"stack", spec::to_json(two_services())}}).find("one") !=
        std::string::npos);
}

TEST_CASE("a network made by hand is what was asked for, and outlives a stack that joins it") {
  const auto made = plan({{"command", "network create"},
                          {"name", "front"},
                          {"internal", true},
                          {"subnet", "10.9.0.0/24"},
                          {"gateway", "10.9.0.9"},
                          {"labels", {{"tier", "1"}}}},
                         nothing());
  REQUIRE_MESSAGE(made, text_of(made));
  const planner::Snapshot then = after(*made, nothing());
  const spec::Network& front = then.networks.at("front").applied;
  CHECK(front.internal);
  CHECK(front.subnet == "10.9.0.0/24");
  CHECK(front.gateway == "10.9.0.9");
  CHECK(front.labels == spec::Labels{{"tier", "1"}});
  CHECK(!front.external);

  spec::Stack stack = two_services();
  stack.networks.at("default") = {.name = "front", .external = true};
  const auto up = plan({{"command", "up"}, {"stack", spec::to_json(stack)}}, then);
  REQUIRE_MESSAGE(up, text_of(up));
  CHECK(up->notes.empty());
  const auto down =
      plan({{"command", "down"}, {"project", "shop"}, {"options", {{"volumes", true}}}},
           after(*up, then));
  REQUIRE_MESSAGE(down, text_of(down));
  CHECK(after(*down, after(*up, then)).networks.contains("front"));
}

TEST_CASE("networks and volumes are removed by name, all at once, or where nobody needs them") {
  const auto made = plan({{"command", "volume create"}, {"name", "spare"}}, two_running());
  REQUIRE_MESSAGE(made, text_of(made));
  CHECK(api::resource_names(*made) == std::map<uint32_t, std::string>{{1, "spare"}});
  CHECK(api::container_ids(*made).empty());
  const planner::Snapshot then = after(*made, two_running());
  const std::string gone = "1 - volume.spare  remove volume\n";

  CHECK(text_of(plan({{"command", "volume remove"}, {"names", {"spare"}}}, then)) == gone);
  CHECK(text_of(plan({{"command", "volume remove"}, {"names", {"*"}}, {"all", true}}, then)) ==
        gone);
  CHECK(text_of(plan({{"command", "volume prune"}, {"all", true}}, then)) == gone);
  CHECK(text_of(plan({{"command", "volume prune"}}, then)).empty());
  CHECK(text_of(plan({{"command", "network prune"}}, then)).empty());
  CHECK(text_of(plan({{"command", "network remove"}, {"all", true}}, then)).empty());
  CHECK(text_of(plan({{"command", "network remove"}, {"names", {"shop_default"}}}, then))
            .find("used by container 'shop-db-1'") != std::string::npos);
}

TEST_CASE("what a network or a volume cannot have is refused, not dropped") {
  CHECK(error_of({{"command", "network create"}, {"name", "a"}, {"gateway", "10.9.0.9"}}) ==
        "network create: gateway 10.9.0.9 needs the subnet it is of; give that as well");
  CHECK(error_of({{"command", "volume create"}, {"name", "a"}, {"size", 1}}) ==
        "the command volume create has no member 'size'");
  CHECK(error_of({{"command", "volume create"}, {"name", "a"}, {"labels", {{"k", 1}}}})
            .find("an object of texts") != std::string::npos);
  CHECK(error_of({{"command", "network prune"}, {"all", true}}).find("no member 'all'") !=
        std::string::npos);
  CHECK(error_of({{"command", "volume remove"}}).find("at least one volume") != std::string::npos);
  CHECK(error_of({{"command", "network remove"}, {"names", {"a"}}, {"all", true}})
            .find("networks, or ask for all, not both") != std::string::npos);
  CHECK(text_of(plan({{"command", "network create"}}, nothing())).find("not a network name") !=
        std::string::npos);
}

TEST_CASE("the images of a stack are each asked for once") {
  spec::Stack stack = two_services();
  planner::test::service(stack, "web2");
  const auto request = api::command_from_json({{"command", "up"}, {"stack", spec::to_json(stack)}});

  REQUIRE(request);
  CHECK(api::image_references(request->command) == std::vector<std::string>{"nginx", "postgres"});
}
