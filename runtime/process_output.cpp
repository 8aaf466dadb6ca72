#include "runtime/process_output.h"

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "guest/protocol/output_frame.h"

namespace runtime {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;
using reconciler::OutputSink;

namespace {

constexpr uint64_t acknowledge_step_bytes = base::limits::agent_output_unacknowledged_bytes_max / 4;

/// True when everything has been given; false or Io if the connection broke before.
Result<bool> copy(Vm& vm, const std::string& process, AgentStream& stream, const OutputSink& sink,
                  uint64_t& offset) {
  if (TRY(stream.status(Deadline::in_ms(base::limits::agent_call_timeout_ms))) != 200)
    return fail(ErrorCode::InvalidState, "the process's output is gone");
  guest::OutputFrameDecoder decoder;
  uint64_t acknowledged = offset;
  for (;;) {
    const std::string bytes = TRY(stream.read(Deadline::never()));
    if (bytes.empty()) return decoder.at_boundary();
    TRY(decoder.feed(bytes, [&](const guest::OutputFrame& frame) -> Result<> {
      if (!sink(frame.stream, frame.payload)) return fail(ErrorCode::Cancelled, "cancelled");
      offset = frame.offset + frame.payload.size();
      return {};
    }));
    if (offset - acknowledged < acknowledge_step_bytes) continue;
    TRY(vm.call("POST", "/v1/processes/" + process + "/acknowledge",
                base::dump_json({{"offset", offset}})));
    acknowledged = offset;
  }
}

}  // namespace

std::string output_path(const std::string& process, uint64_t offset) {
  return fmt::format("/v1/processes/{}/output?offset={}", process, offset);
}

Result<> copy_process_output(Vm& vm, const std::string& process, const OutputSink& sink,
                             const OpenOutput& open) {
  uint64_t offset = 0;
  for (bool complete = false; !complete;) {
    const auto stream = TRY(open(offset));
    Result<bool> all = copy(vm, process, *stream, sink, offset);
    if (!all && all.error().code() != ErrorCode::Io) return tl::unexpected(std::move(all.error()));
    complete = all.value_or(false);
  }
  return {};
}

}  // namespace runtime
