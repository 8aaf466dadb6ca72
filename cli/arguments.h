#pragma once
/// The command line as a table: which commands there are, what they take, and what was given.
///
/// One table serves the parser, the help and whoever lists commands (completion). Pure: reads no
/// environment, prints nothing.

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "base/result.h"

namespace cli {

struct Context;
struct Parsed;

/// Does what a command says; the exit code of the program.
using Handler = base::Result<int> (*)(Context& context, const Parsed& parsed);

struct Flag {
  std::string_view name;  ///< Long form without dashes: `env-file`.
  char short_name = '\0';
  std::string_view value;  ///< What it is called; `a|b`: one of these; empty: a switch.
  std::string_view help;
  std::string_view other_names = "";  ///< More long forms, separated by spaces.
};

struct Command {
  std::string_view name;
  std::string_view other_names = "";  ///< Separated by spaces: `rm`.
  std::string_view group = "";        ///< Heading in the help of the root.
  std::string_view summary = "";
  std::string_view arguments = "";  ///< `IMAGE [ARGUMENT…]`
  size_t arguments_min = 0;
  size_t arguments_max = 0;
  /// From the first argument on nothing is ours any more: `run alpine ls -l`.
  bool rest_verbatim = false;
  std::vector<Flag> flags = {};
  std::vector<Command> commands = {};
  Handler handler = nullptr;
};

/// A command line that has been understood.
struct Parsed {
  const Command* command = nullptr;
  std::string path;  ///< `image list`; empty for the root.
  std::map<std::string, std::vector<std::string>, std::less<>> values;  ///< By Flag::name.
  std::vector<std::string> arguments;

  bool has(std::string_view flag) const { return values.find(flag) != values.end(); }
  /// The last one given wins.
  std::optional<std::string> value(std::string_view flag) const;
  const std::vector<std::string>& all(std::string_view flag) const;
};

struct UsageError {
  std::string message;
  const Command* command = nullptr;
  std::string path;
};

inline constexpr int exit_usage = 64;  ///< EX_USAGE of sysexits.h.

/// `words` are those behind the program's name. `--help`, `--debug` and `--version` are known to
/// every command. A command that is asked for its help needs no arguments.
tl::expected<Parsed, UsageError> parse(const Command& root, const std::vector<std::string>& words);

/// The command a path of names leads to; the root for an empty one.
tl::expected<Parsed, UsageError> find_command(const Command& root,
                                              const std::vector<std::string>& names);

std::string help(const Command& command, std::string_view path);
/// What a wrong command line is answered with: the mistake, the usage, where to read more.
std::string usage(const UsageError& error);

}  // namespace cli
