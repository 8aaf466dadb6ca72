/// `container_sim --seed N --runs K [--trace]`: random lives of a system, one per seed. Exits with
/// 1 at the first that breaks a rule, after printing its seed and what happened.

#include <cstdint>
#include <cstdio>
#include <string>

#include <CLI/CLI.hpp>

#include "base/log.h"
#include "tests/sim/scenario.h"

int main(int argc, char** argv) {
  CLI::App app("Simulates the reconciler with random stacks, faults and crashes");
  uint64_t seed = 1;
  uint64_t runs = 300;
  bool trace = false;
  app.add_option("--seed", seed, "the first seed");
  app.add_option("--runs", runs, "how many seeds, counting up");
  app.add_flag("--trace", trace, "print what happens even if no rule is broken");
  CLI11_PARSE(app, argc, argv);
  spdlog::set_level(spdlog::level::off);

  uint64_t crashes = 0;
  uint64_t commands = 0;
  for (uint64_t i = 0; i < runs; ++i) {
    const sim::Verdict verdict = sim::run_scenario(seed + i);
    crashes += verdict.crashes;
    commands += verdict.commands;
    if (trace || !verdict.broken_rules.empty())
      for (const std::string& line : verdict.trace) std::printf("%s\n", line.c_str());
    for (const std::string& rule : verdict.broken_rules) std::printf("BROKEN: %s\n", rule.c_str());
    if (verdict.broken_rules.empty()) continue;
    std::printf("seed %llu failed; again with: container_sim --seed %llu --runs 1\n",
                static_cast<unsigned long long>(seed + i),
                static_cast<unsigned long long>(seed + i));
    return 1;
  }
  std::printf("%llu lives, %llu commands, %llu crashes: all rules held\n",
              static_cast<unsigned long long>(runs), static_cast<unsigned long long>(commands),
              static_cast<unsigned long long>(crashes));
  return 0;
}
