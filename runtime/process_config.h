#pragma once
/// What the agent is told to run, joined from the image's config and the service. Pure.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "guest/protocol/protocol.h"
#include "reconciler/ports/runtime.h"

namespace runtime {

/// Entrypoint and command: a service's entrypoint drops the image's command too.
base::Result<std::vector<std::string>> process_arguments(
    const reconciler::ImageRuntimeConfig& image, const spec::Service& service);

/// Image first, then service; null removes; PATH and, at a terminal, TERM where nobody set them.
std::vector<std::string> process_environment(const reconciler::ImageRuntimeConfig& image,
                                             const spec::Service& service);

/// The default set, dropped or filled by ALL, then the additions, then the single drops.
base::Result<std::vector<std::string>> process_capabilities(const spec::Service& service);

base::Result<guest::ProcessConfig> process_config(const reconciler::ImageRuntimeConfig& image,
                                                  const spec::Service& service, uint16_t rows,
                                                  uint16_t columns);

/// The service's check over the image's; empty test if disabled or absent.
guest::HealthConfig health_config(const reconciler::ImageRuntimeConfig& image,
                                  const spec::Service& service);

/// One more process beside the main one: its environment and user unless the request says other.
guest::ProcessConfig exec_process_config(const guest::ProcessConfig& main,
                                         const reconciler::ExecRequest& request);

/// Everything but the clock and the entropy, which are taken when it is sent.
base::Result<guest::ContainerConfig> container_config(const reconciler::StartRequest& request);

/// The signal `stop` sends if nobody names one: service, image, SIGTERM. `SIGINT`, `INT` or `2`.
base::Result<int> signal_number(std::string_view name);

}  // namespace runtime
