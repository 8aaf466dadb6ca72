#pragma once
/// Builds images: a Dockerfile and its context in, an image in the store out.
///
/// Only stages that the target needs are looked at, independent ones side by side. A step whose
/// result is in the cache costs a look-up; COPY, ADD and WORKDIR are made on the host, RUN in the
/// stage's machine, which is started when the first step needs it and gone after the last.
///
/// Knows nothing of HTTP, plans or terminals: machines, pulls and events are the caller's.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "builder/cache.h"
#include "builder/dockerfile.h"
#include "builder/tree.h"
#include "image/manifest.h"
#include "image/store.h"
#include "reconciler/ports/build.h"

namespace builder {

// ---- what is asked -----------------------------------------------------------------------------

struct Secret {
  std::string id;
  std::string bytes;
  /// Of its file, where the step says nothing itself.
  std::optional<uint32_t> mode;
  std::optional<uint32_t> user;
  std::optional<uint32_t> group;
};

struct BuildRequest {
  std::string context_folder;  ///< Absolute; empty with one of the next two, or without context.
  std::string context_tar;     ///< A spooled archive.
  std::string context_git;     ///< `https://…/x.git#ref:folder`
  std::optional<std::string> dockerfile;  ///< Its text; else it is read from the context.
  std::string dockerfile_path;            ///< In the context, and for messages. Empty: usual names.
  std::optional<std::string> ignore;      ///< Text of an ignore file outside of the context.
  std::map<std::string, std::string>
      named_contexts;  ///< Name to folder, repository, `docker-image://…`.

  std::string target;
  std::map<std::string, std::string> arguments;
  std::map<std::string, std::string> labels;
  std::vector<std::string> tags;           ///< Full references.
  std::vector<image::Platform> platforms;  ///< Several make an index. Never empty.
  image::Platform host;
  bool no_cache = false;
  std::vector<std::string> no_cache_stages;  ///< By name or number; case does not count.
  std::vector<std::string> run_limits;  ///< `name=soft:hard` the machines set; part of RUN's keys.
  bool pull = false;  ///< Images it takes something from are asked for even if they are here,
  std::set<std::string> local_images;  ///< but for these, which were made here.
  std::vector<Secret> secrets;
  std::map<std::string, std::string> ssh;  ///< Id to the agent's socket.
  bool network = true;                     ///< false: as `RUN --network=none` everywhere.
  bool privileged = false;                 ///< Every RUN.
  std::vector<std::string> extra_hosts;    ///< `name=address`
  std::optional<int64_t> source_date_epoch;
  bool check_only = false;     ///< Parse and lint; nothing is made.
  uint32_t vertices_told = 0;  ///< Ids of VertexStarted that are taken already.
};

// ---- what is told ------------------------------------------------------------------------------

/// A step, or something a build does besides: `[build 2/4] RUN make`.
struct VertexStarted {
  uint32_t id = 0;
  std::string name;
};
struct VertexEnded {
  uint32_t id = 0;
  bool cached = false;
  std::string problem;  ///< Empty: it went well.
  bool cancelled = false;
};
struct VertexOutput {
  uint32_t id = 0;
  int stream = 1;  ///< 1 stdout, 2 stderr.
  std::string bytes;
};
struct Warned {
  std::string text;  ///< Rendered with its place.
};
using BuildEvent = std::variant<VertexStarted, VertexEnded, VertexOutput, Warned>;
/// From several threads, one call at a time.
using BuildSink = std::function<void(const BuildEvent&)>;

// ---- what is used ------------------------------------------------------------------------------

/// A folder of the host that the steps of one machine may mount (RUN --mount=type=cache).
struct MachineShare {
  std::string host_path;
  std::string target;  ///< Name for StepMount::source.
};

struct MachineRequest {
  std::string image;  ///< Digest of a manifest in the store.
  image::Platform platform;
  std::vector<MachineShare> shares;
};

/// A machine that runs until this is destroyed.
class BuildMachine {
 public:
  virtual ~BuildMachine() = default;
  virtual reconciler::BuildSession& session() = 0;
};

class BuildMachines {
 public:
  virtual ~BuildMachines() = default;
  /// Blocks until it takes steps. Cancelled if the build was.
  virtual base::Result<std::unique_ptr<BuildMachine>> start(const MachineRequest& request) = 0;
};

/// Tells whoever works to stop. Thread-safe.
class Cancellation {
 public:
  Cancellation();
  /// Calls whoever listens, one after the other, on this thread.
  void cancel();
  bool cancelled() const;
  /// Calls `call` when cancelled, at once if that has been; until the returned value is gone.
  /// It must not cancel, listen or stop listening itself.
  std::shared_ptr<const void> on_cancel(std::function<void()> call);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// An image that a build begins with, copies or mounts from.
struct ImageWanted {
  std::string reference;
  image::Platform platform;
  bool always = false;  ///< The registry is asked even if it is here.
};
/// Takes a line for whoever watches the step that waits.
using StepNote = std::function<void(const std::string& line)>;

struct BuildPorts {
  image::Store& store;
  Cache& cache;
  BuildMachines& machines;
  /// Brings the image into the store unless it is there. Its descriptor.
  std::function<base::Result<image::Descriptor>(const ImageWanted& wanted, const StepNote& note)>
      fetch_image;
  std::string work_folder;   ///< For spooled archives; a folder of this build's own.
  std::string digest_file;   ///< Digests of context files, from build to build; empty: none.
  std::string cache_folder;  ///< Of `--mount=type=cache`; outlives builds.
  int64_t now_s = 0;         ///< Since 1970.
};

// ---- what comes of it --------------------------------------------------------------------------

struct BuildResult {
  image::Descriptor image;    ///< A manifest, or an index of several platforms. Held by `lease`.
  std::string config_digest;  ///< Of the only or first platform.
  std::shared_ptr<image::Lease> lease;
  std::set<std::string> cache_keys;  ///< Of every step.
  uint32_t warnings = 0;
  uint32_t vertices_told = 0;  ///< With those of before.
};

/// The error of a step names its line: several lines of text, with a caret and the step's last
/// output.
base::Result<BuildResult> build(const BuildRequest& request, const BuildPorts& ports,
                                const BuildSink& sink, Cancellation& cancellation);

}  // namespace builder
