#pragma once
/// What the `container` command and the daemon say to each other: HTTP/1.1 over a unix socket,
/// JSON bodies, and byte frames where processes talk.
///
/// Errors: status 4xx/5xx and {"code": "not-found", "message": "…"} with base::ErrorCode names.
///
///   GET    /v1/ping                          {"version", "pid", "epoch"}
///   GET    /v1/system                        status, folders, versions, accelerator and why
///   POST   /v1/system/stop                   {"grace_ms"?}: stops containers by a plan, then
///   exits;
///                                            answers with progress lines like /v1/apply
///   GET    /v1/containers?all=1              array of ContainerRecord (planner/snapshot.h), whole
///   GET    /v1/containers/ID                 one of them; 404
///   GET    /v1/networks, /v1/volumes         arrays of their records
///   GET    /v1/images                        array of {reference, digest, created, os,
///                                            architecture, size_bytes}
///   GET    /v1/images/inspect?reference=R    {reference, digest, descriptor, variants: [{platform,
///                                            digest, size, config}]}
///   POST   /v1/images/load                   body: the archive; {"loaded": [references],
///                                            "notes": [texts]}
///   DELETE /v1/images?reference=R&force=1    {"deleted": [references], "reclaimed_bytes"}
///   POST   /v1/plan                          Command → plan (planner/plan.h, to_json)
///   POST   /v1/apply                         Command, or {"plan": …}: lines of JSON, see below
///   GET    /v1/containers/ID/logs?follow=1&last=N&boot=1        output frames, chunked
///   POST   /v1/containers/ID/attach?from_start=1                upgrade: frames both ways
///   POST   /v1/containers/ID/exec            ExecRequest fields; upgrade: frames both ways
///   GET    /v1/notices?project=P             lines of JSON, one ContainerNotice each, for ever;
///                                            the first line is {"type": "ready"}
///
/// Command: {"command": C, "owner": text, "wait_for_lock": bool, …} where C is one of
///   up      {"stack": Stack, "options": {services, force_recreate, no_recreate, no_start,
///            no_dependencies, remove_orphans, wait, wait_timeout_ms, stop_grace_ms, scale: {s:
///            n}}}
///   down    {"project": P, "options": {volumes, remove_orphans, stop_grace_ms}}
///   create  {"stack": Stack with one service whose key is the container's id, "start": bool,
///            "auto_remove": bool}
///   start {"ids"} · stop {"ids", "signal"?, "grace_ms"?} · kill {"ids", "signal"}
///   restart {"ids", "grace_ms"?} · remove {"ids", "force", "volumes"}
/// "ids" may be ["*"] with "all": true.
///
/// Lines of /v1/apply: {"type": "plan", "plan": …}; {"type": "progress", "kind":
/// "step-started|step-done|step-failed|step-skipped", "step": N, "text": …}; at the end
/// {"type": "result", "success": bool, "code"?, "message"?, "ids": [affected container ids]}.
/// A client that hangs up before the result cancels the steps that have not started.
///
/// Frame: 1 byte kind, 4 bytes big-endian length (at most frame_bytes_max), payload.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace api {

/// Protocol name in the Upgrade header of attach and exec.
inline constexpr std::string_view upgrade_protocol = "container-frames";
inline constexpr size_t frame_header_bytes = 5;
inline constexpr uint32_t frame_bytes_max = 64 * 1024;

enum class FrameKind : uint8_t {
  Stdout = 1,
  Stderr = 2,
  Exit = 3,     ///< {"exit_code": N}; the last frame
  Failure = 4,  ///< {"code", "message"}; the last frame
  Stdin = 10,
  StdinEnd = 11,
  Resize = 12,  ///< {"rows", "columns"}
  Signal = 13,  ///< {"signal": N}
};

}  // namespace api
