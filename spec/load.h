#pragma once
/// Stack files into a Stack: the one public door of the readers.
///
/// A pipeline of named steps, in the order users can observe: decode (YAML or TOML into one tree
/// of nodes with positions) → interpolate → merge files → check attributes against the table →
/// canonical forms → defaults, paths and names → read env files → cross-checks. Reports every
/// problem of all files in one run; never stops at the first.
///
/// Reads files only through `LoadOptions::read_file`, so tests are hermetic; reads no clock and no
/// process environment of its own.

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "spec/build_secret.h"
#include "spec/diagnostic.h"
#include "spec/pull_policy.h"
#include "spec/stack.h"

namespace spec {

struct LoadOptions {
  std::vector<std::string> files;  ///< In merge order; absolute paths; "-" is `stdin_text`.
  std::string stdin_text;
  std::optional<std::string>
      project_name;               ///< `-p`; else COMPOSE_PROJECT_NAME, `name:`, the folder.
  std::string project_directory;  ///< Absolute; empty: the folder of the first file.
  std::string working_directory;  ///< Of the caller; its `.env` comes before the project's.
  std::string home_directory;     ///< For `~`.
  std::map<std::string, std::string> environment;  ///< Of the caller; wins over `.env`.
  std::vector<std::string> env_files;  ///< `--env-file`; empty: `.env` in the project folder.
  bool strict = false;                 ///< What has no effect here is an error, not a note.
  std::function<base::Result<std::string>(const std::string& path)> read_file;
};

struct Loaded {
  std::optional<Stack> stack;           ///< Absent if any diagnostic is an error.
  std::vector<Diagnostic> diagnostics;  ///< Sorted by file and position.
  /// Of the services that say one. Beside them, not in them: whoever brings images needs it, and no
  /// container is another for it.
  std::map<std::string, PullPolicy> pull_policies;
  std::map<std::string, std::vector<BuildSecret>> build_secrets;  ///< By service.
};

Loaded load(const LoadOptions& options);

/// The variables that stack is read with: the caller's, then those of its env files, one of which
/// may name the stack's files. Needs no `files`; what is wrong in the env files is told by `load`.
std::map<std::string, std::string> project_environment(const LoadOptions& options);

/// The stack file(s) of a folder and its parents, as Compose finds them: compose.yaml, compose.yml,
/// docker-compose.yml, docker-compose.yaml, and ours: stack.yaml, stack.toml, compose.toml; plus
/// the override file beside it. `exists` answers for a path. Empty if there is none.
std::vector<std::string> discover(const std::string& folder,
                                  const std::function<bool(const std::string&)>& exists);

/// The files beside those `found` that `discover` would have taken were they alone; in the order of
/// their rank.
std::vector<std::string> passed_over(const std::vector<std::string>& found,
                                     const std::function<bool(const std::string&)>& exists);

}  // namespace spec
