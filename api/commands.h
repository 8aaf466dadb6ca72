#pragma once
/// A Command of api/wire.h as a value, and the plan it asks for.
///
/// Pure: what the image store knows comes in with the snapshot; `image_references` tells what to
/// ask it for. Strict: an unknown key or a wrong type is an error, because an option that is
/// dropped in silence does something else than what was asked.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "planner/plan.h"
#include "planner/snapshot.h"
#include "spec/stack.h"

namespace api {

/// Containers by id, or networks or volumes by name; or all of those that the command makes sense
/// for.
struct Chosen {
  std::vector<std::string> ids;
  bool all = false;
};

struct UpCommand {
  spec::Stack stack;
  planner::UpOptions options;
};
struct DownCommand {
  std::string project;
  planner::DownOptions options;
};
/// One container outside any stack; the key of its one service is its id.
struct CreateCommand {
  spec::Stack stack;
  bool start = false;
  bool auto_remove = false;
  bool attach = false;  ///< Needs `start`.
  bool trace = false;
};
struct StartCommand {
  Chosen chosen;
};
struct StopCommand {
  Chosen chosen;
  std::optional<std::string> signal;
  std::optional<int64_t> grace_ms;
};
struct KillCommand {
  Chosen chosen;
  std::string signal = "KILL";
};
struct RestartCommand {
  Chosen chosen;
  std::optional<int64_t> grace_ms;
};
struct RemoveCommand {
  Chosen chosen;
  bool force = false;
  bool volumes = false;
};
/// A network or volume outside any stack. What neither could do is not among its members.
struct CreateNetworkCommand {
  spec::Network network;
};
struct RemoveNetworksCommand {
  Chosen chosen;
};
struct PruneNetworksCommand {};
struct CreateVolumeCommand {
  spec::Volume volume;
};
struct RemoveVolumesCommand {
  Chosen chosen;
};
struct PruneVolumesCommand {
  bool named = false;  ///< Not only anonymous ones.
};
using Command = std::variant<UpCommand, DownCommand, CreateCommand, StartCommand, StopCommand,
                             KillCommand, RestartCommand, RemoveCommand, CreateNetworkCommand,
                             RemoveNetworksCommand, PruneNetworksCommand, CreateVolumeCommand,
                             RemoveVolumesCommand, PruneVolumesCommand>;

struct CommandRequest {
  Command command;
  std::string owner;  ///< For the message to whoever has to wait for it.
  bool wait_for_lock = true;
};

base::Result<CommandRequest> command_from_json(const nlohmann::json& json);

/// The only containers it has to do with. Empty: it may need what any container gives back at its
/// end, a name, a port or an address.
std::vector<std::string> containers_of(const Command& command);

/// Images as the services of the command write them, each once.
std::vector<std::string> image_references(const Command& command);
/// Of those, what the stack builds itself: no registry is asked for it.
std::set<std::string> built_images(const Command& command);

/// `actual.image_digests` holds the digests of those `image_references` that exist.
base::Result<planner::Plan> make_plan(const Command& command, const planner::Snapshot& actual);

/// Containers that a plan touches, in the order of its steps, each once.
std::vector<std::string> container_ids(const planner::Plan& plan);
/// The network or volume that a step makes or removes, by the step's number.
std::map<uint32_t, std::string> resource_names(const planner::Plan& plan);

/// A time a client may ask to wait: 0 to `limits::api_wait_ms_max`.
base::Result<std::optional<int64_t>> read_milliseconds(const nlohmann::json& object,
                                                       const char* key);

}  // namespace api
