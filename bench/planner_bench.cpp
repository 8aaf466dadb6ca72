/// Planning at the size where peers take seconds: a thousand services from nothing, and again with
/// one change. The bound is 50 ms each.

#include <benchmark/benchmark.h>

#include <fmt/format.h>

#include "planner/test_stack.h"

namespace {

/// Services in chains of ten, each with a network, a volume and some settings.
spec::Stack big_stack(int64_t services) {
  spec::Stack stack = planner::test::shop();
  for (int64_t i = 0; i < services; ++i) {
    spec::Service& service = planner::test::service(stack, fmt::format("s{:05}", i));
    for (int j = 0; j < 8; ++j) service.environment[fmt::format("KEY{}", j)] = "a value";
    service.labels["team"] = "blue";
    service.volumes.push_back({spec::MountType::Volume, "data", "/data"});
    if (i % 10 != 0) service.depends_on[fmt::format("s{:05}", i - 1)] = {};
  }
  return stack;
}

void from_nothing(benchmark::State& state) {
  const spec::Stack stack = big_stack(state.range(0));
  const planner::Snapshot actual = planner::test::nothing();
  for (auto _ : state) benchmark::DoNotOptimize(planner::plan_up(stack, actual));
}

void with_one_change(benchmark::State& state) {
  spec::Stack stack = big_stack(state.range(0));
  const planner::Snapshot actual = planner::test::after(
      *planner::plan_up(stack, planner::test::nothing()), planner::test::nothing());
  stack.services["s00042"].environment["KEY0"] = "another value";
  for (auto _ : state) benchmark::DoNotOptimize(planner::plan_up(stack, actual));
}

}  // namespace

BENCHMARK(from_nothing)->Arg(1000)->Arg(3000)->Unit(benchmark::kMillisecond);
BENCHMARK(with_one_change)->Arg(1000)->Arg(3000)->Unit(benchmark::kMillisecond);
BENCHMARK_MAIN();
