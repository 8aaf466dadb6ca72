#pragma once
/// What image builds ask of a virtual machine: steps run one after the other in one machine, each
/// on top of what the steps before it left, each one's changes taken out as a layer.
///
/// The machine is an ordinary container's, started by a plan like any other, whose service has
/// `build_machine` set: the agent then runs no program of the image, but waits for steps.
/// Implemented by runtime/.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "reconciler/ports/runtime.h"

namespace reconciler {

/// Bytes pulled from the caller; 0 at their end.
using ByteProducer = std::function<base::Result<size_t>(char* buffer, size_t capacity)>;
/// Bytes pushed to the caller, in order; an error stops the sender.
using ByteConsumer = std::function<base::Result<>(std::string_view bytes)>;

enum class StepMountKind { Tree, Share, Tmpfs, Secret, SshAgent };

/// One `RUN --mount` during one step.
struct StepMount {
  StepMountKind kind = StepMountKind::Tmpfs;
  /// Tree: name given to add_tree(). Share: target path of a mount of the machine's service, which
  /// is not visible to steps otherwise (cache mounts).
  std::string source;
  std::string source_path;  ///< Tree: path inside it; "" is its root.
  std::string target;      ///< Absolute, in the step's root; made if missing, and taken away again.
  bool read_only = false;  ///< Tree: otherwise writes go to a layer that is thrown away.
  uint64_t tmpfs_bytes = 0;
  uint32_t mode = 0400;  ///< Secret: of the file. SshAgent: of the socket.
  uint32_t user = 0;
  uint32_t group = 0;
  std::string secret;        ///< The bytes. In memory of the guest only.
  std::string agent_socket;  ///< SshAgent: the socket on the host to connect to.
};

struct BuildStep {
  std::string id;  ///< `[a-z0-9-]+`, new for every step of the machine.
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  ///< Whole: nothing is added but HOME where it is missing.
  std::string working_dir = "/";
  std::string user;        ///< `uid|name[:gid|group]`
  std::string stdin_text;  ///< Given to the process, then closed.
  bool network = true;     ///< false: an empty network namespace.
  bool privileged = false;
  std::vector<StepMount> mounts;
  std::string hostname;
  std::vector<std::string> extra_hosts;  ///< `name=address`
};

/// Thread-safe in that cancel() may come from another thread; otherwise one call at a time.
class BuildSession {
 public:
  virtual ~BuildSession() = default;

  /// Unpacks a tar as the next layer on top (made on the host: COPY, or a cached step). Names are
  /// clamped to the layer; whiteouts are honoured.
  virtual base::Result<> add_layer(const std::string& id, const ByteProducer& tar) = 0;
  /// Unpacks a tar beside the root, for mounts of kind Tree.
  virtual base::Result<> add_tree(const std::string& name, const ByteProducer& tar) = 0;
  /// Runs a step on a fresh layer on top; its exit code. With 0 the layer stays on top for the next
  /// steps; otherwise it is dropped. Output reaches `sink` while it runs.
  virtual base::Result<int32_t> run(const BuildStep& step, const OutputSink& sink) = 0;
  /// What the step changed, as an OCI layer tar (whiteouts as `.wh.` names), sorted by name.
  virtual base::Result<> take_layer(const std::string& id, const ByteConsumer& tar) = 0;
  /// Ends a running step at once: run() returns Cancelled.
  virtual void cancel() = 0;
};

/// Opens the session of a build machine that runs. InvalidState for another container.
class BuildPort {
 public:
  virtual ~BuildPort() = default;
  virtual base::Result<std::unique_ptr<BuildSession>> open_build(const std::string& id) = 0;
};

}  // namespace reconciler
