#pragma once
/// Pulls and pushes as commands ask for them: the request with its credentials, and the progress
/// while it lasts.

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "cli/arguments.h"
#include "cli/context.h"
#include "planner/plan.h"
#include "spec/stack.h"

namespace cli {

/// `os/architecture[/variant]` of --platform, --os and --arch, else of CONTAINER_DEFAULT_PLATFORM
/// (with a warning); nullopt where nobody says.
std::optional<std::string> wanted_platform(const Context& context, const Parsed& parsed);

/// POST to `target` with `body` and the access its reference needs; the result's line.
base::Result<nlohmann::json> transfer(const Context& context, const Parsed& parsed,
                                      const std::string& target, const std::string& what,
                                      nlohmann::json body);

/// `access` for all images of the stack.
base::Result<nlohmann::json> access_for(const Context& context, const Parsed& parsed,
                                        const spec::Stack& stack);

/// Brings the images of the stack's services here as `--pull` says: those that are missing
/// (`missing`, the default), all of them (`always`) or none (`never`). `services` empty: all.
base::Result<> bring_images(const Context& context, const Parsed& parsed, const spec::Stack& stack);

/// The same for a saved plan: what it makes containers of, by the digest it was made with.
base::Result<> bring_planned_images(const Context& context, const Parsed& parsed,
                                    const planner::Plan& plan);

/// `--pull`, and those of registry_flags() and downloads_flag().
std::vector<Flag> pull_flags();

}  // namespace cli
