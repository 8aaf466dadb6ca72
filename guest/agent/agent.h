#pragma once
/// What the agent does for the host: every request of guest/protocol/protocol.h.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "guest/agent/build/machine.h"
#include "guest/agent/cgroup.h"
#include "guest/agent/event_log.h"
#include "guest/agent/health.h"
#include "guest/agent/process.h"
#include "guest/agent/session.h"

namespace agent {

/// What was found at boot.
struct Machine {
  std::string image_disk;    ///< `/dev/vda`
  std::string scratch_disk;  ///< `/dev/vdb`
  std::string files_port;    ///< `/dev/vport1p2`
  int64_t boot_to_ready_ns = 0;
};

class Agent : public RequestHandler {
 public:
  Agent(Loop& loop, Machine machine) : loop_(loop), machine_(std::move(machine)), cgroup_(loop) {}

  /// What is the same for every container: done before the first order, and so before a template
  /// is taken.
  base::Result<> prepare();

  std::shared_ptr<BodySink> upload(const Request& request, const ReplyPtr& reply) override;
  void request(const Request& request, const ReplyPtr& reply) override;
  void new_daemon() override;

 private:
  using Handler = base::Result<> (Agent::*)(const Request&, const std::string& id, const ReplyPtr&);
  struct Route {
    std::string_view method;
    std::string_view path;  ///< `*` stands for the process.
    Handler handler;
  };
  static const std::vector<Route>& routes();

  base::Result<> state(const Request&, const std::string&, const ReplyPtr& reply);
  base::Result<> configure(const Request& request, const std::string&, const ReplyPtr& reply);
  base::Result<> execute(const Request& request, const std::string&, const ReplyPtr& reply);
  base::Result<> step(const Request& request, const std::string&, const ReplyPtr& reply);
  base::Result<> layer(const Request&, const std::string& id, const ReplyPtr& reply);
  base::Result<> connections(const Request&, const std::string& id, const ReplyPtr& reply);
  base::Result<> output(const Request& request, const std::string& id, const ReplyPtr& reply);
  base::Result<> acknowledge(const Request& request, const std::string& id, const ReplyPtr& reply);
  base::Result<> signal(const Request& request, const std::string& id, const ReplyPtr& reply);
  base::Result<> resize(const Request& request, const std::string& id, const ReplyPtr& reply);
  base::Result<> forget(const Request&, const std::string& id, const ReplyPtr& reply);
  base::Result<> events(const Request& request, const std::string&, const ReplyPtr& reply);
  base::Result<> acknowledge_events(const Request& request, const std::string&,
                                    const ReplyPtr& reply);
  base::Result<> health(const Request& request, const std::string&, const ReplyPtr& reply);
  base::Result<> hosts(const Request& request, const std::string&, const ReplyPtr& reply);
  base::Result<> time(const Request& request, const std::string&, const ReplyPtr& reply);
  base::Result<> statistics(const Request&, const std::string&, const ReplyPtr& reply);
  base::Result<> end_rehearsal(const Request&, const std::string&, const ReplyPtr& reply);
  base::Result<> shutdown(const Request&, const std::string&, const ReplyPtr& reply);

  base::Result<> prepare_machine(const guest::ContainerConfig& config);
  base::Result<std::shared_ptr<BodySink>> build_upload(const Request& request,
                                                       const ReplyPtr& reply);
  base::Result<> check_room_for(const std::string& process) const;
  base::Result<> start_process(const std::string& id, const guest::ProcessConfig& config,
                               const Place& place, int timeout_ms, const ReplyPtr& reply);
  void on_started(const std::string& id, const base::Result<>& result, const ReplyPtr& reply);
  void on_ended(const std::string& id, int wait_status);
  void end_step(const std::string& process, bool succeeded);
  void tell(guest::Event event);
  base::Result<std::shared_ptr<Process>> find(const std::string& id) const;

  void set_health(guest::HealthConfig config);
  void schedule_probe();
  void run_probe();
  void finish_probe(bool succeeded, int64_t began_ns);

  Loop& loop_;
  Machine machine_;
  Cgroup cgroup_;
  OutputBudget budget_;
  EventLog log_;
  std::vector<std::weak_ptr<Reply>> event_readers_;
  bool configured_ = false;
  guest::ContainerConfig config_;
  std::optional<BuildMachine> build_;  ///< Of a build machine.
  std::map<std::string, std::shared_ptr<Process>> processes_;
  base::UniqueFd main_pidfd_;
  /// Keeps the container's mounts when its last process has gone: its end is told at once, and
  /// disks are written, not unmounted, when the VM ends.
  base::UniqueFd main_mounts_;
  int64_t main_started_ns_ = 0;

  guest::HealthConfig health_config_;
  std::optional<HealthMonitor> monitor_;
  std::shared_ptr<Process> probe_;
  Timer probe_timer_ = 0;
  Timer probe_deadline_ = 0;
  uint64_t probe_generation_ = 0;
};

}  // namespace agent
