#pragma once
/// The flags of `build`, and a service's `build:` section, as the request of POST /v1/builds.
/// Reads the files that flags name; the context itself is the daemon's to read.

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "cli/context.h"
#include "cli/stack_files.h"
#include "spec/stack.h"

namespace cli {

std::vector<Flag> build_flags();

enum class OutputKind { Image, Oci, Tar, Local };
struct OutputPlace {
  OutputKind kind = OutputKind::Image;
  std::string destination;  ///< As written; empty: stdout (tar), the image store (oci).
};

struct BuildOptions {
  nlohmann::json request;
  std::vector<std::string> tags;  ///< As given, or the one made up.
  OutputPlace output;
  bool context_from_stdin = false;
};

/// `parsed.arguments` hold the context, `.` if empty.
base::Result<BuildOptions> read_build_options(const Context& context, const Parsed& parsed);

/// Of `service` of a stack that is there: the request that makes its image. Reads its secrets.
base::Result<nlohmann::json> stack_build_request(const Context& context, const StackFiles& files,
                                                 const std::string& service);

/// `type=oci|tar|local|image[,dest=PATH]`, or a folder alone: local.
base::Result<OutputPlace> parse_output(const std::string& text);

}  // namespace cli
