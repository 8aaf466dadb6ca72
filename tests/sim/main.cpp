/// `container_sim --seed N --runs K [--trace]`: random lives of a system, one per seed. Exits with
/// 1 at the first that breaks a rule, after printing its seed and what happened.

#include <getopt.h>

#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/log.h"
#include "tests/sim/scenario.h"

namespace {

struct Options {
  uint64_t seed = 1;    ///< The first; they count up.
  uint64_t runs = 300;  ///< How many seeds.
  bool trace = false;   ///< Print what happens even if no rule is broken.
};

bool read_number(const char* text, uint64_t& number) {
  const char* end = text + std::strlen(text);
  const auto [rest, problem] = std::from_chars(text, end, number);
  return problem == std::errc{} && rest == end;
}

bool read_options(int argc, char** argv, Options& options) {
  static const std::array<option, 4> known = {{{"seed", required_argument, nullptr, 's'},
                                               {"runs", required_argument, nullptr, 'r'},
                                               {"trace", no_argument, nullptr, 't'},
                                               {nullptr, 0, nullptr, 0}}};
  for (;;) {
    switch (::getopt_long(argc, argv, "", known.data(), nullptr)) {
      case -1: return optind == argc;
      case 's':
        if (!read_number(optarg, options.seed)) return false;
        break;
      case 'r':
        if (!read_number(optarg, options.runs)) return false;
        break;
      case 't': options.trace = true; break;
      default: return false;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!read_options(argc, argv, options)) {
    std::fprintf(stderr, "Usage: container_sim [--seed N] [--runs COUNT] [--trace]\n");
    return 64;
  }
  const auto [seed, runs, trace] = options;
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
