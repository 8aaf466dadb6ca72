#pragma once
/// One stage of a Dockerfile with everything filled in: variables replaced, triggers of the base
/// in their place, the configuration at every step known.
///
/// None of that depends on what the steps do, so it is done before any of them runs; what is left
/// are steps that make layers. Pure.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "builder/dockerfile.h"
#include "builder/image_config.h"

namespace builder {

/// The file as messages show it.
struct SourceText {
  std::string name;
  std::string text;
};
/// An error that shows its line of the file, with a caret.
base::Error error_at(const SourceText& source, const Location& location, const base::Error& error);

/// Arguments as one build of one platform sees them.
struct Arguments {
  std::map<std::string, std::string> given;     ///< `--build-arg`
  std::map<std::string, std::string> platform;  ///< TARGETPLATFORM and its kin.
  /// Of ARG before the first FROM, in effect; nullopt: declared without a value.
  std::map<std::string, std::optional<std::string>> global;
};

/// `--build-arg`, the platforms, and what the file's global ARGs make of them.
base::Result<Arguments> make_arguments(const Dockerfile& file, const SourceText& source,
                                       const std::map<std::string, std::string>& given,
                                       const image::Platform& target, const image::Platform& host);

/// FROM with the global arguments in it.
base::Result<FromInstruction> expand_from(const Dockerfile& file, const Stage& stage,
                                          const Arguments& arguments, const SourceText& source);

struct RunWork {
  std::vector<std::string> arguments;
  std::vector<std::string> environment;         ///< What the key covers.
  std::vector<std::string> hidden_environment;  ///< Proxies: of this build only.
  std::string working_dir;
  std::string user;
  std::string script;  ///< Not empty: a file to run, with its own `#!` line.
  std::vector<RunMount> mounts;
  RunNetwork network = RunNetwork::Default;
  bool insecure = false;
};
struct CopyWork {
  CopyInstruction copy;
  std::string working_dir;
};
struct WorkdirWork {
  std::string path;
  std::string user;
};
/// Only the configuration changes.
struct ConfigWork {};

struct LoweredStep {
  std::variant<ConfigWork, RunWork, CopyWork, WorkdirWork> work;
  std::string text;        ///< One line, for progress.
  std::string created_by;  ///< For the history. Holds no value of an argument.
  std::string config;      ///< Digest of the configuration the step runs under.
  Location location;
};

struct LoweredStage {
  std::vector<LoweredStep> steps;
  ImageConfig config;                 ///< After all steps, without their layers and history.
  std::vector<std::string> consumed;  ///< Given arguments that an ARG of it asked for.
};

/// `base` is taken over by the stage. An error shows its line.
base::Result<LoweredStage> lower_stage(const Dockerfile& file, const Stage& stage, ImageConfig base,
                                       const Arguments& arguments, const SourceText& source);

}  // namespace builder
