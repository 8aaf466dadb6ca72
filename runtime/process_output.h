#pragma once
/// The output of one process in a machine, from its beginning to its end.

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "reconciler/ports/runtime.h"
#include "runtime/vm.h"

namespace runtime {

/// Opens the process's output from `offset` on: `GET /v1/processes/ID/output?offset=…`.
using OpenOutput = std::function<base::Result<std::shared_ptr<AgentStream>>(uint64_t offset)>;

std::string output_path(const std::string& process, uint64_t offset);

/// Gives all of it to `sink`, acknowledging what was taken; asks again where the connection broke.
/// Cancelled if `sink` wants no more, or the stream was cancelled.
base::Result<> copy_process_output(Vm& vm, const std::string& process,
                                   const reconciler::OutputSink& sink, const OpenOutput& open);

}  // namespace runtime
