#pragma once
/// Pulls and pushes as commands ask for them: the request with its credentials, and the progress
/// while it lasts.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "cli/arguments.h"
#include "cli/context.h"
#include "planner/plan.h"
#include "spec/pull_policy.h"
#include "spec/stack.h"

namespace cli {

/// `os/architecture[/variant]` of --platform, --os and --arch, else of CONTAINER_DEFAULT_PLATFORM
/// (with a warning); nullopt where nobody says.
std::optional<std::string> wanted_platform(const Context& context, const Parsed& parsed);

/// POST to `target` with `body` and the access its reference needs; the result's line.
base::Result<nlohmann::json> transfer(const Context& context, const Parsed& parsed,
                                      const std::string& target, const std::string& what,
                                      nlohmann::json body);

/// POST to `target` of what may need registries on its way, and asks for the access then.
base::Result<nlohmann::json> long_task(const Context& context, const Parsed& parsed,
                                       const std::string& target, const std::string& what);

/// Answers a line {"type": "access"} of a task: it turned out to need a registry, and gets the
/// configuration and credentials for that one, or why there are none.
base::Result<> answer_access(const Context& context, const Parsed& parsed,
                             const nlohmann::json& question);

/// `access` for all images of the stack.
base::Result<nlohmann::json> access_for(const Context& context, const Parsed& parsed,
                                        const spec::Stack& stack);

/// Of services that say one (spec/load.h).
using PullPolicies = std::map<std::string, spec::PullPolicy>;

/// Brings the images of the stack's services here: those that are missing (`missing`, the default),
/// all of them (`always`) or none (`never`), as `--pull` says, else as each service does.
base::Result<> bring_images(const Context& context, const Parsed& parsed, const spec::Stack& stack,
                            const PullPolicies& policies = {});

/// Images that bring_images() would leave alone even if they are missing.
std::vector<std::string> images_not_pulled(const Parsed& parsed, const spec::Stack& stack,
                                           const PullPolicies& policies);

/// The same for a saved plan: what it makes containers of, by the digest it was made with.
base::Result<> bring_planned_images(const Context& context, const Parsed& parsed,
                                    const planner::Plan& plan);

/// `--pull`, and those of registry_flags() and downloads_flag().
std::vector<Flag> pull_flags();

}  // namespace cli
