#pragma once
/// The world without QEMU, kernel and disk: simulating fakes of every port, on one virtual clock.
///
/// They keep state, take time, fail when told to, and outlive the daemon: `World::crash` throws
/// away the reconciler with all it had not yet written, at any port call, before or after that
/// call's effect. Everything random comes from one seed.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "reconciler/reconciler.h"

namespace sim {

/// Thrown out of a port call where the daemon dies.
struct Crash {};

class Dice {
 public:
  explicit Dice(uint64_t seed) : engine_(seed) {}
  /// 0 … n-1.
  uint32_t below(uint32_t n) { return n == 0 ? 0 : static_cast<uint32_t>(engine_() % n); }
  bool one_in(uint32_t n) { return n > 0 && below(n) == 0; }

 private:
  std::mt19937_64 engine_;
};

/// Virtual time. What belongs to the daemon is dropped when it dies; what belongs to the world
/// (a process that ends) is not.
class Clock {
 public:
  using Id = uint64_t;
  Id at(int64_t time_ms, bool of_daemon, std::function<void()> call);
  void cancel(Id id);
  void drop_daemon();
  bool step();  ///< Runs the next event; false if there is none.
  std::optional<int64_t> next_ms() const;
  int64_t now_ms() const { return now_ms_; }
  void advance_to(int64_t time_ms) { now_ms_ = std::max(now_ms_, time_ms); }

 private:
  struct Event {
    Id id = 0;
    bool of_daemon = false;
    std::function<void()> call;
  };
  std::multimap<int64_t, Event> events_;
  int64_t now_ms_ = 1;
  Id last_id_ = 0;
};

/// What every port call goes through: time, faults, and the crash.
struct Weather {
  explicit Weather(uint64_t seed) : dice(seed) {}
  Dice dice;
  uint32_t fault_one_in = 0;  ///< 0: calm.
  bool disk_full = false;
  std::optional<uint64_t> crash_in;  ///< Port calls until the daemon dies.
  bool crash_after_effect = false;
  int64_t cost_ms = 0;                   ///< Of the work being run.
  std::map<std::string, int> fail_next;  ///< Call → how often it shall fail, as in `start web`.
  std::vector<std::string> trace;
  std::function<int64_t()> now_ms;

  void note(const std::string& line);
  /// Error for a fault; throws Crash if it is time and the effect shall not happen.
  base::Result<> enter(const std::string& call, int64_t cost);
  /// Throws Crash if it is time and the effect has happened.
  void leave();

 private:
  bool dying_ = false;
};

class Workers : public reconciler::WorkersPort {
 public:
  Workers(Clock& clock, Weather& weather) : clock_(clock), weather_(weather) {}
  void run(std::function<void()> work, std::function<void()> done) override;
  reconciler::TimerId after(int64_t delay_ms, std::function<void()> fire) override;
  void cancel(reconciler::TimerId timer) override { clock_.cancel(timer); }
  void post(std::function<void()> call) override;
  int64_t monotonic_ms() const override { return clock_.now_ms(); }
  int64_t wall_ns() const override { return clock_.now_ms() * 1'000'000; }
  bool crashed = false;

 private:
  Clock& clock_;
  Weather& weather_;
};

class Network;

struct Vm {
  uint64_t generation = 0;
  uint64_t life = 0;
  bool disk = false;
  bool disk_given_up = false;  ///< What it holds may be old: nobody may start on it again.
  reconciler::VmPhase phase = reconciler::VmPhase::Absent;
  reconciler::Health health = reconciler::Health::None;
  std::optional<reconciler::ExitStatus> exit;
  std::string paused_reason;
  spec::Service service;
};

/// Processes do what `command` says: `serve`, or `exit <ms> <code>`; `sick` never gets healthy,
/// `deaf` does not end when it is asked to.
class Runtime : public reconciler::RuntimePort {
 public:
  Runtime(Clock& clock, Weather& weather) : clock_(clock), weather_(weather) {}
  reconciler::MachineSize size_of(const spec::Service& service) const override;
  base::Result<> create(const reconciler::ContainerSetup& setup) override;
  base::Result<> start(const reconciler::StartRequest& request) override;
  void give_up_disk(const std::string& id) override;
  base::Result<> begin_stop(const std::string& id, int signal) override;
  base::Result<reconciler::ExitStatus> stop(const std::string& id, int signal,
                                            int64_t grace_ms) override;
  base::Result<> kill(const std::string& id, int signal) override;
  base::Result<> remove(const std::string& id) override;
  base::Result<std::vector<reconciler::VmObservation>> list() override;
  base::Result<reconciler::VmObservation> observe(const std::string& id) override;
  base::Result<> adopt(std::function<void(reconciler::VmEvent)> on_event) override;
  base::Result<std::unique_ptr<reconciler::ProcessSession>> exec(
      const std::string& id, const reconciler::ExecRequest& request) override;
  base::Result<std::unique_ptr<reconciler::ProcessSession>> attach(const std::string& id,
                                                                   bool from_start) override;
  base::Result<> logs(const std::string& id, const reconciler::LogRequest& request,
                      const reconciler::OutputSink& sink) override;
  base::Result<> update_hosts(const std::string& id, const std::string& hosts,
                              const std::string& resolv_conf) override;
  base::Result<> create_volume(const std::string& name) override;
  base::Result<> remove_volume(const std::string& name) override;
  base::Result<std::vector<std::string>> list_volumes() override;
  std::string volume_path(const std::string& name) override { return "/nonexistent/sim/" + name; }

  /// What happens to a VM from outside.
  void end(const std::string& id, int code, bool vm_died);
  void set_health(const std::string& id, reconciler::Health health);
  /// An empty reason: it goes on.
  void set_paused(const std::string& id, const std::string& reason);

  std::map<std::string, Vm> vms;
  std::set<std::string> volumes;
  std::function<void(reconciler::VmEvent)> on_event;
  Network* network = nullptr;

 private:
  void live(const std::string& id);

  Clock& clock_;
  Weather& weather_;
  uint64_t lives_ = 0;
};

struct Lease {
  uint32_t host = 0;
  bool announced = false;
  std::set<std::string> ports;  ///< `127.0.0.1:8080/0`
};

struct Bridge {
  uint32_t number = 0;
  std::string gateway;
  bool internal = false;
  bool alive = true;
  std::map<std::string, Lease> leases;
};

class Network : public reconciler::NetworkPort {
 public:
  explicit Network(Weather& weather) : weather_(weather) {}
  base::Result<reconciler::NetworkObservation> create(
      const reconciler::NetworkSetup& setup) override;
  base::Result<> remove(const std::string& name) override;
  base::Result<std::vector<reconciler::NetworkObservation>> list() override;
  base::Result<reconciler::NetworkLease> lease(const reconciler::LeaseRequest& request) override;
  base::Result<> release(const std::string& network, const std::string& container) override;
  base::Result<> announce(const std::string& network, const std::string& container,
                          bool on) override;
  base::Result<uint16_t> publish(const reconciler::PublishRequest& request) override;
  base::Result<> unpublish(const std::string& network, const std::string& container) override;

  /// Its process dies and forgets.
  void die(const std::string& name);

  std::map<std::string, Bridge> bridges;
  std::set<std::string> taken_outside;  ///< Ports that other programs listen on.

 private:
  base::Result<Bridge*> find(const std::string& name);
  bool is_taken(const std::string& port) const;
  reconciler::NetworkObservation observe(const std::string& name, const Bridge& bridge) const;

  Weather& weather_;
  uint32_t next_number_ = 1;
  uint16_t next_port_ = 40000;
};

class Image : public reconciler::ImagePort {
 public:
  explicit Image(Weather& weather) : weather_(weather) {}
  base::Result<reconciler::ImageRuntimeConfig> resolve(const std::string& reference,
                                                       const std::string& platform) override;
  base::Result<std::string> digest_of(const std::string& reference) override;
  base::Result<std::vector<reconciler::ImageSummary>> list() override;

  std::map<std::string, std::string> tags;                         ///< Reference → digest.
  std::map<std::string, reconciler::ImageRuntimeConfig> contents;  ///< By digest.
  std::vector<std::string> platforms;                              ///< Asked for, in order.
  void tag(const std::string& reference, const std::string& digest);

 private:
  Weather& weather_;
};

/// Keeps exactly what was returned from; a crash inside a call may or may not have kept it.
class Store : public reconciler::StorePort {
 public:
  explicit Store(Weather& weather) : weather_(weather) { state.lineage = "sim"; }
  base::Result<reconciler::StoredState> load() override;
  base::Result<> put_container(const planner::ContainerRecord& record) override;
  base::Result<> erase_container(const std::string& id) override;
  base::Result<> put_network(const planner::NetworkRecord& record) override;
  base::Result<> erase_network(const std::string& name) override;
  base::Result<> put_volume(const planner::VolumeRecord& record) override;
  base::Result<> erase_volume(const std::string& name) override;
  base::Result<uint64_t> begin_plan(const planner::Plan& plan, const std::string& owner,
                                    int64_t wall_ns) override;
  base::Result<> record_step(uint64_t plan, const reconciler::JournalStep& step) override;
  base::Result<> finish_plan(uint64_t plan) override;

  struct {
    uint64_t serial = 0;
    std::string lineage;
    std::map<std::string, planner::ContainerRecord> containers;
    std::map<std::string, planner::NetworkRecord> networks;
    std::map<std::string, planner::VolumeRecord> volumes;
    std::map<uint64_t, reconciler::JournalPlan> plans;
  } state;

 private:
  base::Result<> write(const std::string& call, const std::function<void()>& effect);

  Weather& weather_;
  uint64_t last_plan_ = 0;
};

/// All of it, with a daemon that can be killed and started.
class World {
 public:
  explicit World(uint64_t seed);
  ~World();

  void start_daemon();
  reconciler::Begin begin = reconciler::Begin::CarryOn;  ///< Of the next start of the daemon.
  void crash();                                          ///< kill -9
  bool ready() const { return ready_; }
  reconciler::Reconciler& daemon() { return *daemon_; }
  /// Lets virtual time pass; a daemon that died meanwhile is started again.
  void run_for(int64_t milliseconds);
  /// Runs until `done` or the time is over; false if it was over.
  bool run_until(int64_t milliseconds, const std::function<bool()>& done);
  planner::Snapshot snapshot() const;  ///< With the digests of all images.

  struct Applied {
    bool finished = false;
    bool lost = false;  ///< The daemon died before it was answered.
    base::Result<> result;
    std::vector<std::string> lines;
  };
  using Make = std::function<base::Result<planner::Plan>(const planner::Snapshot&)>;
  /// Plans and applies; checks that no step begins before what it must follow.
  std::shared_ptr<Applied> apply(const std::string& owner, const Make& make,
                                 bool wait_for_lock = true);
  /// The same, and waits for the end.
  base::Result<> apply_and_wait(const std::string& owner, const Make& make,
                                int64_t milliseconds = 600'000);

  Clock clock;
  Weather weather;
  Workers workers;
  Runtime runtime;
  Network network;
  Image image;
  Store store;
  std::vector<std::string> broken_rules;  ///< Found while running.
  std::vector<std::string> notices;
  uint32_t crashes = 0;

 private:
  std::unique_ptr<reconciler::Reconciler> daemon_;
  bool ready_ = false;
  std::vector<std::shared_ptr<Applied>> pending_;
};

}  // namespace sim
