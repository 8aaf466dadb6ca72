#pragma once
/// Files of variables: `.env` and `env_file`. The dialect of Compose, which no shell reads.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spec/interpolate.h"

namespace spec {

struct DotenvEntry {
  std::string key;
  std::optional<std::string> value;  ///< Absent: `KEY` alone, taken from the surroundings.
  uint32_t line = 0;
};

struct DotenvProblem {
  uint32_t line = 0;
  uint32_t column = 0;
  bool is_error = true;  ///< Otherwise a warning.
  std::string text;
};

struct Dotenv {
  std::vector<DotenvEntry> entries;  ///< In the order of the file; a later one wins.
  std::vector<DotenvProblem> problems;
};

/// Comments, `export`, quotes, escapes and variables. A variable in a value is looked up outside
/// first, then among the keys above it. A broken line is a problem; the lines after it are read.
/// Values that use values grow fast: at most `bytes_max` in all, then the rest is not read.
Dotenv parse_dotenv(std::string_view text, const VariableLookup& lookup, size_t bytes_max);

/// `format: raw`: everything after the first `=` is the value, quotes included.
Dotenv parse_raw_env(std::string_view text);

}  // namespace spec
