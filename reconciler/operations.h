#pragma once
/// The effect of each operation, as straight-line code for a worker thread. Every function may be
/// repeated after a crash at any point of it: effects are named after the container, and the
/// record is written last. Decides nothing about order; see the executor.

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "planner/plan.h"
#include "reconciler/reconciler.h"

namespace reconciler {

struct ErasedContainer {
  std::string id;
};
struct ErasedNetwork {
  std::string name;
};
struct ErasedVolume {
  std::string name;
};
/// What became true; the loop applies it to its snapshot in order.
using RecordChange =
    std::variant<planner::ContainerRecord, planner::NetworkRecord, planner::VolumeRecord,
                 ErasedContainer, ErasedNetwork, ErasedVolume>;

struct Outcome {
  base::Result<> result;
  std::vector<RecordChange> changes;  ///< Also after a failure.
  bool dirty = false;                 ///< A record could not be written; it is tried again later.
};

/// What an operation may look at, copied on the loop before it begins.
struct View {
  std::optional<planner::ContainerRecord> container;
  std::optional<planner::NetworkRecord> network;
  std::optional<planner::VolumeRecord> volume;
  std::map<std::string, planner::VolumeRecord> anonymous_volumes;  ///< Of the container.
  std::vector<std::string> networks;                               ///< All that are recorded.
  bool is_going = false;  ///< The same plan removes the container.
};

/// One call at a time: the store behind it has one connection.
class SerialStore {
 public:
  explicit SerialStore(StorePort& store) : store_(store) {}
  template <class Call>
  auto with(const Call& call) {
    const std::lock_guard lock(mutex_);
    return call(store_);
  }

 private:
  std::mutex mutex_;
  StorePort& store_;
};

class Operations {
 public:
  Operations(const Ports& ports, SerialStore& store) : ports_(ports), store_(store) {}

  Outcome run(const planner::Operation& operation, const View& view);
  /// The first half of a stop: the container is not wanted any more, and asked to end.
  Outcome ask_to_stop(const planner::StopContainer& op, const View& view);
  /// The process has ended: frees what it held and writes it down. Nothing if it runs after all.
  Outcome note_exit(const View& view, const ExitStatus& seen);
  Outcome note_health(const View& view, planner::HealthState health);
  Outcome note_phase(const View& view, planner::Phase phase);
  /// The machine is held, or (no reason) goes on.
  Outcome note_paused(const View& view, const std::string& reason);
  /// Its network was made again: puts a running container back on it.
  Outcome rejoin(const View& view, const std::string& network);
  /// Everybody is back on it.
  Outcome note_network_alive(const View& view);
  Outcome end_stray(const View& view);
  /// Tries once more to write a record.
  Outcome rewrite(const View& view);

 private:
  class Recorder;
  base::Result<> create_network(const planner::CreateNetwork& op, const View& view, Recorder& out);
  base::Result<> remove_network(const planner::RemoveNetwork& op, const View& view, Recorder& out);
  base::Result<> create_volume(const planner::CreateVolume& op, const View& view, Recorder& out);
  base::Result<> remove_volume(const planner::RemoveVolume& op, const View& view, Recorder& out);
  base::Result<> create(const planner::CreateContainer& op, const View& view, Recorder& out);
  base::Result<> update(const planner::UpdateContainer& op, const View& view, Recorder& out);
  base::Result<> start(const planner::StartContainer& op, const View& view, Recorder& out);
  base::Result<int> signal_of(const planner::StopContainer& op,
                              const planner::ContainerRecord& record);
  void want_stopped(planner::ContainerRecord& record, Recorder& out);
  base::Result<> stop(const planner::StopContainer& op, const View& view, Recorder& out);
  base::Result<> kill(const planner::KillContainer& op, const View& view, Recorder& out);
  base::Result<> remove(const planner::RemoveContainer& op, const View& view, Recorder& out);

  base::Result<ImageRuntimeConfig> resolve_image(const planner::ContainerRecord& record);
  base::Result<std::vector<ShareSource>> shares_of(const planner::ContainerRecord& record,
                                                   const ImageRuntimeConfig& image);
  base::Result<> make_anonymous_volumes(planner::ContainerRecord& record,
                                        const ImageRuntimeConfig& image, const View& view,
                                        std::vector<std::string>& made, Recorder& out);
  base::Result<NetworkLease> lease(const planner::ContainerRecord& record,
                                   const std::string& network);
  base::Result<std::vector<planner::PublishedPort>> publish(const planner::ContainerRecord& record,
                                                            const std::string& network,
                                                            const std::string& address);
  base::Result<uint16_t> publish_one(PublishRequest request, std::optional<uint16_t> held);
  void note_size(planner::ContainerRecord& record) const;
  base::Result<> bring_up(planner::ContainerRecord& record, const ImageRuntimeConfig& image);
  base::Result<> announce(const planner::ContainerRecord& record, bool on);
  base::Result<> release(const planner::ContainerRecord& record);
  base::Error taken_down(const planner::ContainerRecord& record, base::Error error);
  int stop_signal_of(const planner::ContainerRecord& record);

  Ports ports_;
  SerialStore& store_;
};

bool is_up(const planner::ContainerRecord& record);
/// How long the container has to end by itself.
int64_t grace_ms_of(const planner::StopContainer& op, const planner::ContainerRecord& record);
/// Networks in the order of the NICs: higher priority first, then by name.
std::vector<std::string> networks_in_order(const spec::Service& service);
std::string hosts_text(const planner::ContainerRecord& record,
                       const std::vector<NetworkLease>& leases);
std::string resolv_conf_text(const planner::ContainerRecord& record,
                             const std::vector<NetworkLease>& leases);

}  // namespace reconciler
