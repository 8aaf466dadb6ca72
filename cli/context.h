#pragma once
/// What every command is given besides its own words: where the system is, and how to ask it.

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "api/paths.h"
#include "base/result.h"
#include "cli/arguments.h"
#include "cli/http_client.h"
#include "cli/run_options.h"

namespace cli {

struct Context {
  api::Paths paths;
  HttpClient client;
  Surroundings surroundings;
  const Command* root = nullptr;  ///< For `help`.
};

/// Working folder, home, environment and files of this process.
base::Result<Surroundings> our_surroundings();

/// `path` as the daemon and other folders can understand it.
std::string absolute_path(const Context& context, const std::string& path);

/// GET, parsed.
base::Result<nlohmann::json> ask(const Context& context, const std::string& target);

/// One container's record; `container not found: x`.
base::Result<nlohmann::json> ask_container(const Context& context, const std::string& id);

/// A command line that the parser could not know to be wrong: tells why, and how it is used.
int wrong_usage(const Context& context, const Parsed& parsed, const std::string& message);

}  // namespace cli
