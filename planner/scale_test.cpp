/// Ten thousand services, one waiting for the other: planned in seconds, not in minutes, and not by
/// recursion. The bound for a thousand (50 ms) is measured by bench/planner_bench.cpp.

#include <ctime>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "planner/test_stack.h"

namespace {

// Sanitizers and builds without optimisation cost a multiple in time, memory and stack.
constexpr int slack = CONTAINER_TEST_SLACK;
constexpr double seconds_max = slack * 2.0;

constexpr int services = 10'000;

spec::Stack long_chain() {
  spec::Stack stack = planner::test::shop();
  for (int i = 0; i < services; ++i) {
    spec::Service& service = planner::test::service(stack, fmt::format("s{}", i));
    service.environment["KEY"] = "value";
    service.volumes.push_back({spec::MountType::Volume, "data", "/data"});
    if (i > 0) service.depends_on[fmt::format("s{}", i - 1)] = {};
  }
  return stack;
}

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

}  // namespace

TEST_CASE("ten thousand services are planned, and planned again with one change, in two seconds") {
  spec::Stack stack = long_chain();
  const double start = cpu_seconds();
  const auto first = planner::plan_up(stack, planner::test::nothing());
  const double planned = cpu_seconds();
  REQUIRE(first);
  CHECK(first->steps.size() == 2 + 2 * services);
  CHECK(planned - start <= seconds_max);

  const planner::Snapshot running = planner::test::after(*first, planner::test::nothing());
  stack.services["s42"].environment["KEY"] = "other";
  const double again = cpu_seconds();
  const auto second = planner::plan_up(stack, running);
  REQUIRE(second);
  CHECK(second->steps.size() == 4);
  CHECK(cpu_seconds() - again <= seconds_max);
}

TEST_CASE("a name that no container can have is refused before anything happens") {
  spec::Stack stack = planner::test::shop();
  planner::test::service(stack, std::string(56, 'a'));

  const auto one = planner::plan_up(stack, planner::test::nothing());
  const auto many =
      planner::plan_up(stack, planner::test::nothing(), {.scale = {{std::string(56, 'a'), 10}}});

  CHECK(one);
  REQUIRE_FALSE(many);
  CHECK(many.error().to_string().starts_with("name the containers of service 'aaa"));
}
