#pragma once
/// A Dockerfile as it is written: instructions in order, grouped into stages, nothing expanded.
///
/// The language is that of Docker's "Dockerfile reference", lexed as its reference parser does:
/// parser directives, escapes and line continuations, comments between continued lines, here
/// documents, flags, JSON (exec) and shell form. Variables stay as text; builder/expand.h replaces
/// them when the stage that holds them is built, because only then their values are known.
///
/// Pure: no files. Every problem of a file is reported in one go.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace builder {

/// Where something stands in the file; lines and columns from 1.
struct Location {
  uint32_t line = 0;
  uint32_t column = 1;
  uint32_t last_line = 0;  ///< Of the instruction, with its here documents.
};

struct Problem {
  Location location;
  std::string message;  ///< With the way out: "unknown instruction 'COPPY'; did you mean COPY?"
  bool warning = false;
  std::string rule;  ///< Of a check that can be skipped: `StageNameCasing`. Empty: always told.
};

/// `Dockerfile:3:1: error: …`, the line, and a caret below it.
std::string render(const Problem& problem, std::string_view file_name, std::string_view text);

/// A command in one of its two forms.
struct CommandLine {
  bool shell_form = false;         ///< Then `words` is one text, for the stage's SHELL.
  std::vector<std::string> words;  ///< Exec form: argv.
};

struct Heredoc {
  std::string name;     ///< Of the delimiter; for COPY the file's name.
  std::string content;  ///< Without the delimiter's line; tabs already stripped for `<<-`.
  bool expand = true;   ///< false where the delimiter was quoted.
};

/// `KEY=value` pairs in their order: the last of a key counts. A value never sees the other pairs
/// of its instruction, only what was set before it.
using Pairs = std::vector<std::pair<std::string, std::string>>;

enum class RunMountType { Bind, Cache, Tmpfs, Secret, Ssh };
enum class CacheSharing { Shared, Private, Locked };

/// `RUN --mount=…`. Where `text` holds variables, only expand() can tell what the other members
/// are: it reads `text` again with their values.
struct RunMount {
  std::string text;  ///< As written, after `--mount=`.
  RunMountType type = RunMountType::Bind;
  std::string from;    ///< Bind and cache: a stage, an image, or empty for the context.
  std::string source;  ///< Inside `from`; "" is its root.
  std::string target;
  std::string id;         ///< Cache, secret, ssh. Empty: the target (cache), `default` (ssh).
  bool read_only = true;  ///< Default: false for cache and tmpfs, true for all others.
  bool required = false;  ///< Secret, ssh: an absent one is an error.
  CacheSharing sharing = CacheSharing::Shared;
  std::optional<std::string> environment;  ///< Secret as a variable instead of a file.
  std::optional<uint32_t> mode;
  std::optional<uint32_t> user;
  std::optional<uint32_t> group;
  std::optional<uint64_t> tmpfs_bytes;
};

enum class RunNetwork { Default, None, Host };

struct FromInstruction {
  std::string platform;  ///< Empty: the build's target platform.
  std::string image;     ///< An image, an earlier stage, or `scratch`.
  std::string name;      ///< `AS name`, lower case.
};
struct ArgInstruction {
  std::vector<std::pair<std::string, std::optional<std::string>>> names;  ///< With defaults.
};
struct EnvInstruction {
  Pairs pairs;
};
struct LabelInstruction {
  Pairs pairs;
};
struct RunInstruction {
  CommandLine command;
  /// One, if it is the whole command: a script, which is `command`'s text too. It runs in the
  /// SHELL, or as a program if it begins with `#!`. With a command beside them, here documents are
  /// that command's input: then they are in `command`'s text, for the shell to read, and not here.
  std::vector<Heredoc> heredocs;
  std::vector<RunMount> mounts;
  RunNetwork network = RunNetwork::Default;
  bool insecure = false;  ///< `--security=insecure`
};
struct CopyInstruction {
  bool add = false;  ///< ADD: URLs, git, and archives that are unpacked.
  std::vector<std::string> sources;
  std::vector<Heredoc> heredocs;  ///< Files given in the Dockerfile itself; after `sources`.
  std::string target;
  std::string from;  ///< COPY only.
  std::string chown;
  std::string chmod;
  std::string checksum;  ///< ADD of a URL: `sha256:…`.
  bool link = false;
  bool parents = false;
  bool keep_git_dir = false;
  std::optional<bool> unpack;  ///< ADD.
  std::vector<std::string> exclude;
};
struct WorkdirInstruction {
  std::string path;
};
struct UserInstruction {
  std::string user;
};
struct CmdInstruction {
  CommandLine command;
};
struct EntrypointInstruction {
  CommandLine command;
};
struct ExposeInstruction {
  std::vector<std::string> ports;
};
struct VolumeInstruction {
  std::vector<std::string> paths;
};
struct StopSignalInstruction {
  std::string signal;
};
struct HealthcheckInstruction {
  bool none = false;
  CommandLine command;
  std::string interval, timeout, start_period, start_interval, retries;  ///< As written, or empty.
};
struct ShellInstruction {
  std::vector<std::string> words;
};
/// Run by the next stage that is built from the resulting image.
struct OnbuildInstruction {
  std::string text;
};
struct MaintainerInstruction {
  std::string text;
};

using Operation = std::variant<ArgInstruction, EnvInstruction, LabelInstruction, RunInstruction,
                               CopyInstruction, WorkdirInstruction, UserInstruction, CmdInstruction,
                               EntrypointInstruction, ExposeInstruction, VolumeInstruction,
                               StopSignalInstruction, HealthcheckInstruction, ShellInstruction,
                               OnbuildInstruction, MaintainerInstruction>;

struct Instruction {
  Operation operation;
  std::string text;  ///< As written, continuation lines joined: for progress and history.
  Location location;
};

struct Stage {
  FromInstruction from;
  std::vector<Instruction> instructions;
  std::string text;
  Location location;
};

struct Dockerfile {
  char escape = '\\';
  std::string syntax;                         ///< The directive; a front end of ours all the same.
  std::vector<std::string> skipped_checks;    ///< `# check=skip=…`
  bool checks_are_errors = false;             ///< `# check=error=true`
  std::vector<Instruction> global_arguments;  ///< ARG before the first FROM.
  std::vector<Stage> stages;
};

struct Parsed {
  Dockerfile file;
  std::vector<Problem> problems;  ///< In order of place; with an error `file` must not be used.
  bool ok() const;
};

/// Never fails otherwise: what is wrong is in `problems`.
Parsed parse_dockerfile(std::string_view text);

/// One instruction on its own, as ONBUILD keeps them.
Parsed parse_instruction(std::string_view text, char escape);

}  // namespace builder
