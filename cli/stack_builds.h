#pragma once
/// Images that a stack's services build for themselves: which are missing, and making them.

#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/context.h"
#include "cli/stack_files.h"
#include "spec/stack.h"

namespace cli {

enum class WhichBuilds { Missing, All, None };

/// `--build`, `--no-build`; otherwise what is missing.
WhichBuilds which_builds(const Parsed& parsed);

/// Of `services` (all if empty), those to build, each after the ones whose images it builds on.
/// Those of `always` are built again also if their image is here.
base::Result<std::vector<std::string>> services_to_build(const Context& context,
                                                         const spec::Stack& stack,
                                                         const std::set<std::string>& services,
                                                         WhichBuilds which,
                                                         const std::set<std::string>& always = {});

/// Builds them one after the other, with progress on stderr. The stack of `files` is there.
base::Result<> build_services(const Context& context, const Parsed& parsed, const StackFiles& files,
                              const std::vector<std::string>& services);

}  // namespace cli
