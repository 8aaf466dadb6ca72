#pragma once
/// Which stages a build needs, for which platforms, and which wait for which. Pure.

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "builder/dockerfile.h"
#include "builder/lower.h"
#include "image/manifest.h"

namespace builder {

/// Where files or a base come from.
struct Origin {
  enum class Kind { Scratch, Stage, Image, Context };
  Kind kind = Kind::Scratch;
  size_t node = 0;   ///< Stage: index of the node.
  std::string name;  ///< Image: its reference. Context: its name; empty: the build's own.
};

/// One stage for one platform.
struct StageNode {
  size_t stage = 0;          ///< Index in the file.
  image::Platform target;    ///< Of the build: TARGETPLATFORM.
  image::Platform platform;  ///< Of the stage: what FROM --platform says, else its base's.
  Origin base;
  std::map<std::string, Origin> sources;  ///< By `--from` of COPY and RUN mounts, as written.
  std::string name;                       ///< For people: its name, or its number.
  bool fresh = false;                     ///< Nothing of it is taken from the cache.
};

struct BuildGraph {
  std::vector<StageNode> nodes;  ///< Those that are needed; each after those it takes from.
  std::vector<size_t> targets;   ///< One per platform.
};

struct GraphRequest {
  std::string target;  ///< Name or number of a stage; empty: the last.
  std::vector<image::Platform> platforms;
  image::Platform host;
  std::vector<std::string> fresh_stages;  ///< Names or numbers.
  std::map<std::string, std::string> arguments;
  /// Name to folder, or `docker-image://reference`.
  std::map<std::string, std::string> named_contexts;
};

/// NotFound for a target that is no stage, with the nearest name.
base::Result<BuildGraph> make_graph(const Dockerfile& file, const SourceText& source,
                                    const GraphRequest& request);

}  // namespace builder
