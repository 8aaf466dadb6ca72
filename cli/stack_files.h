#pragma once
/// Which stack files a command line means, and what is in them.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/context.h"
#include "spec/build_secret.h"
#include "spec/pull_policy.h"
#include "spec/stack.h"

namespace cli {

/// --file, --project-name, --project-directory, --env-file, --strict.
std::vector<Flag> stack_file_flags();

struct StackFiles {
  std::optional<spec::Stack> stack;  ///< Absent: there are errors, and they have been told.
  size_t errors = 0;
  std::map<std::string, spec::PullPolicy> pull_policies;  ///< Of services that say one.
  std::map<std::string, std::vector<spec::BuildSecret>> build_secrets;  ///< By service.
  std::set<std::string> read;  ///< Every file that was looked at, absolute: what to watch.
};

/// Reads and checks them; tells every diagnostic on stderr, each with its line. Fails only if there
/// is no file to read.
base::Result<StackFiles> load_stack(const Context& context, const Parsed& parsed);

/// The same for commands that can do nothing without a stack: it is there.
base::Result<StackFiles> load_valid_files(const Context& context, const Parsed& parsed);
base::Result<spec::Stack> load_valid_stack(const Context& context, const Parsed& parsed);

/// The project's name alone: the stack's files are read only if neither `--project-name` nor
/// COMPOSE_PROJECT_NAME say it, and the configuration of registries never.
base::Result<std::string> project_of(const Context& context, const Parsed& parsed);

}  // namespace cli
