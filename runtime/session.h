#pragma once
/// Talking to one process: an exec of ours, or the main process under attach.

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "reconciler/ports/runtime.h"
#include "runtime/log/container_log.h"
#include "runtime/vm.h"

namespace runtime {

/// What the driver keeps of one container; sessions hold it beyond the container's removal.
struct Container {
  std::string id;
  std::shared_ptr<ContainerLog> log;
  std::shared_ptr<ConsoleLog> boot_log;

  std::shared_ptr<Vm> vm() const {
    const std::lock_guard lock(mutex);
    return machine;
  }
  void set_vm(std::shared_ptr<Vm> vm) {
    const std::lock_guard lock(mutex);
    machine = std::move(vm);
    changed.notify_all();
  }

  mutable std::mutex mutex;
  mutable std::condition_variable changed;
  std::shared_ptr<Vm> machine;  ///< Null while nothing runs.
};

/// Starts the process. When the session is destroyed the agent forgets it, or lets it run on with
/// its output thrown away.
base::Result<std::unique_ptr<reconciler::ProcessSession>> start_exec(
    std::shared_ptr<Vm> vm, const reconciler::ExecRequest& request);

std::unique_ptr<reconciler::ProcessSession> start_attach(std::shared_ptr<Container> container,
                                                         bool from_start);

}  // namespace runtime
