#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "base/file.h"
#include "planner/test_stack.h"

using namespace planner;        // NOLINT(google-build-using-namespace)
using namespace planner::test;  // NOLINT(google-build-using-namespace)

namespace {

/// The stored text; with UPDATE_GOLDEN=1 it becomes `text`.
std::string golden(const std::string& name, const std::string& text) {
  const std::string path = std::string(CONTAINER_SOURCE_DIR) + "/planner/testdata/" + name;
  if (std::getenv("UPDATE_GOLDEN") != nullptr)
    REQUIRE(base::write_file_atomically(path, text, 0644));
  const auto stored = base::read_file(path, 1 << 20);
  return stored ? *stored : stored.error().to_string();
}

}  // namespace

TEST_CASE("the text of a first plan") {
  spec::Stack stack = shop();
  service(stack, "db", "postgres").volumes.push_back({spec::MountType::Volume, "data", "/d"});
  service(stack, "web").depends_on["db"].condition = spec::DependencyCondition::Healthy;

  const std::string text = render_text(*plan_up(stack, nothing()));

  CHECK(text == golden("first.txt", text));
}

TEST_CASE("the text of a plan with every kind of change, drift and an orphan") {
  spec::Stack stack = shop();
  for (const char* name : {"api", "db", "gone", "job", "old", "web"}) service(stack, name);
  stack.services["api"].environment["DB_PASSWORD"] = "hunter2";
  Snapshot actual = after(*plan_up(stack, nothing()), nothing());
  actual.containers["shop-job-1"].phase = Phase::Exited;
  actual.containers["shop-gone-1"].phase = Phase::Missing;
  stack.services.erase("old");
  stack.services["api"].environment["DB_PASSWORD"] = "two";
  stack.services["api"].image = "postgres";
  stack.services["db"].healthcheck = spec::HealthCheck{.test = {"true"}};
  stack.services["web"].labels["team"] = "blue";

  const std::string text = render_text(*plan_up(stack, actual));

  CHECK(text == golden("changes.txt", text));
  CHECK(text.find("hunter2") == std::string::npos);
}

TEST_CASE("the text of a plan that takes everything down") {
  spec::Stack stack = shop();
  service(stack, "web");
  const Snapshot running = after(*plan_up(stack, nothing()), nothing());

  const std::string text = render_text(*plan_down("shop", running));

  CHECK(text == golden("down.txt", text));
}

TEST_CASE("no steps are said in one sentence") {
  CHECK(render_text(Plan{}) == "No changes. The stack is as declared.\n");
}

TEST_CASE("a name cannot drive the terminal") {
  Plan plan;
  Step step;
  step.id = {1};
  step.address = "service.\x1b[31mred";
  step.operation = StartContainer{"x"};
  step.reason = "\x07";
  plan.steps.push_back(step);

  const std::string text = render_text(plan);

  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(text.find('\x07') == std::string::npos);
}
