#pragma once
/// What the `container` command and the daemon say to each other: HTTP/1.1 over a unix socket,
/// JSON bodies, and byte frames where processes talk.
///
/// Errors: status 4xx/5xx and {"code": "not-found", "message": "…"} with base::ErrorCode names.
///
///   GET    /v1/ping                          {"version", "pid", "epoch"}
///   GET    /v1/system                        status, folders, versions, accelerator and why, way
///   out POST   /v1/system/stop                   {"grace_ms"?}: stops containers by a plan,
///                                            answers with lines like /v1/apply, then exits
///   GET    /v1/containers?all=1              array of ContainerRecord (planner/snapshot.h), whole
///   GET    /v1/containers/ID                 one of them; 404
///   GET    /v1/networks, /v1/volumes         arrays of their records
///   GET    /v1/images?verbose=1              array of {reference, digest, created, os,
///                                            architecture, size_bytes}; verbose: also variants,
///                                            as inspect tells them, without their configs
///   GET    /v1/images/inspect?reference=R    {reference, digest, descriptor, variants: [{platform,
///                                            digest, size, created, config}]}
///   POST   /v1/images/load?force=1           body: the archive; {"loaded": [references],
///                                            "notes": [texts]}
///   POST   /v1/images/save                   {"references": [R], "platform"?}: the archive
///   POST   /v1/images/tag                    {"source": R, "target": R}: {"reference"}
///   POST   /v1/images/prune                  {"all": bool}: as DELETE
///   POST   /v1/images/check                  {"access"}: lines; their last has "blobs", "disks"
///                                            (counts), "repaired", "problems" (texts)
///   POST   /v1/images/pull                   {"reference", "platform"?, "digest"?: what it must
///                                            lead to, "own_platform"?, "access"}: lines, see below
///   POST   /v1/images/push                   {"reference", "platform"?, "access"}: lines
///   POST   /v1/images/present                {"reference", "platform"?, "digest"?}: {"present"}
///   POST   /v1/registries/login              {"registry", "access"}: {} if it takes the login
///   POST   /v1/registries/access             {"question", "access"} or {"question", "problem"}
///   DELETE /v1/images?reference=R&force=1    {"deleted": [references], "reclaimed_bytes"}
///   GET    /v1/system/df                     {images, containers, volumes: {total, active,
///                                            sizeInBytes, reclaimable}}
///   POST   /v1/plan                          Command → plan (planner/plan.h, to_json); with
///                                            "access" looks up missing images, not "not_pulled"
///   POST   /v1/apply                         Command, or {"plan": …}: lines of JSON, see below
///   GET    /v1/containers/ID/logs?follow=1&last=N&boot=1        output frames, chunked
///   POST   /v1/containers/ID/attach?from_start=1                upgrade: frames both ways
///   POST   /v1/containers/ID/exec            ExecRequest fields; upgrade: frames both ways
///   GET    /v1/containers/ID/trace?until=W   of a container created with "trace": its spans
///                                            (base/trace.h), once that named W is among them
///   POST   /v1/builds                        body: a line of JSON (below), then the context's tar
///                                            if the line says so; answer: lines, see below
///   GET    /v1/builder                       {"started", "cpus", "memory_bytes", "builds",
///                                            "cache_bytes", "cache_entries"}
///   POST   /v1/builder                       {"start": {cpus?, memory_bytes?, dns?}}, or
///                                            {"stop": true}, or {"delete": true, "force"?}
///   POST   /v1/builder/prune                 {"all"?, "keep_bytes"?} → {"entries",
///                                            "reclaimed_bytes"}
///   GET    /v1/notices?project=P             lines of JSON, one ContainerNotice each, for ever;
///                                            the first line is {"type": "ready"}
///
/// Command: {"command": C, "owner": text, "wait_for_lock": bool, …} where C is one of
///   up      {"stack": Stack, "options": {services, force_recreate, no_recreate, no_start,
///            no_dependencies, remove_orphans, wait, wait_timeout_ms, stop_grace_ms,
///            scale: {service: count}}}
///   down    {"project": P, "options": {volumes, remove_orphans, stop_grace_ms}}
///   create  {"stack": Stack with one service whose key is the container's id, "start": bool,
///            "auto_remove": bool, "attach": bool, "trace": bool}. With "attach" the answer is an
///            upgrade: frames both ways as of attach, from the first byte on, and `Started`
///   start {"ids"} · stop {"ids", "signal"?, "grace_ms"?} · kill {"ids", "signal"}
///   restart {"ids", "grace_ms"?} · remove {"ids", "force", "volumes"}
///   network create {"name", "internal", "subnet"?, "gateway"?, "labels": {key: text}}
///   volume create  {"name", "labels"}
///   network remove, volume remove {"names"}
///   network prune {} · volume prune {"all": also named ones}
/// "ids" and "names" may be ["*"] with "all": true.
///
/// Lines of /v1/apply: {"type": "plan", "plan": …}; {"type": "progress", "kind":
/// "step-started|step-done|step-failed|step-skipped", "step": N, "text": …}; at the end
/// {"type": "result", "success": bool, "code"?, "message"?, "ids": [affected container ids],
/// "names": [networks and volumes that were made or removed], "reclaimed_bytes"? (volume prune)}.
/// A client that hangs up before the result cancels the steps that have not started.
/// Lines of pull and push: {"type": "progress", "blobs_done", "blobs_total", "bytes_done",
/// "bytes_total"}; at the end {"type": "result", "success", "code"?, "message"?, "reference",
/// "digest", …}. Hanging up ends it; the next pull of that reference goes on from there.
/// access: how registries may be reached, for this request alone: {"scheme": "auto|http|https",
/// "max_concurrent_downloads": N, "dns_domain", "credentials": {HOST: {"username", "password"} or
/// {"identity_token"} or {"registry_token"}}, "hosts": {HOST: {"scheme", "mirrors": [URLs],
/// "insecure": bool, "ca", "client_certificate", "client_key": PEM, "realms": [hosts]}},
/// "proxy": {"http", "https", "none"}}. Where check and builds are given "ask" instead, a line
/// {"type": "access", "question": id, "reference"} asks for it, when a registry is needed.
/// The line of /v1/builds: {"context": {"folder": absolute path} | {"git": address} |
/// {"tar": true}, "dockerfile"? (its text), "dockerfile_path"? (in the context), "ignore"?,
/// "contexts": {name: folder, repository or docker-image://name}, "target", "arguments", "labels",
/// "tags", "platforms", "no_cache", "no_cache_stages", "pull", "network" (bool), "privileged",
/// "extra_hosts", "secrets": [{"id", "data": base64, "mode"?, "uid"?, "gid"?}], "ssh": {id:
/// socket}, "cpus", "memory_bytes", "shm_bytes", "ulimits": {name: {"soft", "hard"}}, "dns",
/// "dns_search", "dns_options", "dns_domain", "source_date_epoch", "check", "output":
/// image|oci|tar|local, "cache_from", "cache_to", "access", "registry" (of names that have none),
/// "local_images" (pull leaves them)}. Lines of its answer:
/// {"type": "started", "id", "name"},
/// {"type": "output", "id", "stream", "data": base64}, {"type": "ended", "id", "cached",
/// "cancelled", "problem"}, {"type": "warning", "text"}, {"type": "file", "data": base64} (pieces
/// of the tar of `output` tar and local), and at the end {"type": "result", "success", "digest",
/// "config", "tags", "warnings"} or "code" and "message". A client that hangs up ends the build.
/// Frame: 1 byte kind, 4 bytes big-endian length (at most frame_bytes_max), payload.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace api {

/// Protocol name in the Upgrade header of attach and exec.
inline constexpr std::string_view upgrade_protocol = "container-frames";
inline constexpr size_t frame_header_bytes = 5;
inline constexpr uint64_t build_secret_bytes_max = 512u << 10;  ///< Each.
inline constexpr uint32_t frame_bytes_max = 64 * 1024;

enum class FrameKind : uint8_t {
  Stdout = 1,
  Stderr = 2,
  Exit = 3,     ///< {"exit_code": N}; the last frame
  Failure = 4,  ///< {"code", "message"}; the last frame
  Started = 5,  ///< {}: what was asked for with the attachment has been done
  Notice = 6,   ///< {"text"}: what the container's user should know and its process cannot tell
  Stdin = 10,
  StdinEnd = 11,
  Resize = 12,  ///< {"rows", "columns"}
  Signal = 13,  ///< {"signal": N}
};

struct Frame {
  FrameKind kind = FrameKind::Failure;
  std::string payload;
};

/// Adds `payload` to `out` as one frame, or as several where it is larger than one may be.
void append_frame(std::string& out, FrameKind kind, std::string_view payload);

/// Takes bytes as they come from a socket and gives back whole frames. Holds at most one frame
/// and what was fed last.
class FrameDecoder {
 public:
  void feed(std::string_view bytes) { buffer_.append(bytes); }
  /// nullopt: more bytes are needed. InvalidArgument: the peer does not speak this protocol.
  base::Result<std::optional<Frame>> next();
  /// True in the middle of a frame: an end of the stream here is a truncation.
  bool partial() const { return position_ < buffer_.size(); }

 private:
  std::string buffer_;
  size_t position_ = 0;
};

}  // namespace api
