/// What is said besides the texts of whole plans, which are in tests/golden/plans.

#include <doctest/doctest.h>

#include <string>

#include "planner/test_stack.h"

using namespace planner;        // NOLINT(google-build-using-namespace)
using namespace planner::test;  // NOLINT(google-build-using-namespace)

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
