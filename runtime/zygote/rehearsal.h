#pragma once
/// What a machine goes through before it becomes a zygote (zygote.h): the ways of a container and
/// of a build's steps, with nothing in them that is anybody's. The guest is afterwards as it was.

#include <cstdint>

#include "base/deadline.h"
#include "base/result.h"
#include "guest/protocol/protocol.h"
#include "runtime/agent/client.h"

namespace runtime {

/// As the daemon does with every container. Blocks.
base::Result<> rehearse_container(AgentClient& agent, uint32_t nics,
                                  const base::Deadline& deadline);
/// As builds do: two steps, and between them the first one's layer once more, from outside.
base::Result<> rehearse_build(AgentClient& agent, uint32_t nics, const base::Deadline& deadline);

/// The container that is rehearsed.
guest::ContainerConfig rehearsed_container(uint32_t nics);

}  // namespace runtime
