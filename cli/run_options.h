#pragma once
/// The flags of `run`, `create` and `exec` as a Stack of one service.
///
/// The flags are written down as a stack document and read by the loader of stack files, so that
/// `-p 8080:80` and `ports: ["8080:80"]` are checked by the same code and mean the same. Pure.

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/arguments.h"
#include "spec/stack.h"

namespace cli {

/// What the flags refer to besides themselves.
struct Surroundings {
  std::string working_directory;  ///< Absolute; relative host paths start here.
  std::string home_directory;
  std::map<std::string, std::string> environment;  ///< For `-e NAME`.
  std::function<base::Result<std::string>(const std::string& path)> read_file;
};

/// Flags that describe a process: of run, create and exec.
std::vector<Flag> process_flags();
/// Flags that describe the machine around it: of run and create.
std::vector<Flag> machine_flags();

struct RunOptions {
  std::string id;     ///< Of the container: `--name`, or a new UUID.
  spec::Stack stack;  ///< One service, under `id`.
  bool auto_remove = false;
  std::vector<std::string> warnings;  ///< For whoever typed it.
};

/// `parsed.arguments` are the image and the command. Problems name the flags they are about.
base::Result<RunOptions> read_run_options(const Parsed& parsed, const Surroundings& surroundings);

/// `K=V` of `--env-file` and `--env`, in their order.
base::Result<std::vector<std::string>> read_environment(const Parsed& parsed,
                                                        const Surroundings& surroundings);

/// `--user`, or `--uid` and `--gid` put together.
base::Result<std::optional<std::string>> read_user(const Parsed& parsed);

/// `KILL`, `SIGKILL`, `kill` or `9` as a number.
base::Result<int> signal_number(std::string_view text);

}  // namespace cli
