#pragma once
/// POST /v1/builds: sends what is asked, shows what happens, and tells what came of it.

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "cli/context.h"

namespace cli {

enum class BuildProgress { Auto, Plain, Tty, Json, Quiet };

struct BuildCall {
  const Parsed& parsed;  ///< Of the command; says how registries are reached.
  std::string line;      ///< The request, without its end of line.
  int tar_fd = -1;       ///< The context, sent behind it.
  BuildProgress progress = BuildProgress::Auto;
  /// Gets the tar of `output` tar and local.
  std::function<base::Result<>(std::string_view bytes)> files;
};

/// The result line. A build that failed is an error of several lines, ready to be printed.
base::Result<nlohmann::json> run_build(const Context& context, const BuildCall& call);

}  // namespace cli
