#pragma once
/// The first line of POST /v1/builds as a value; see api/wire.h.
///
/// Pure and strict: an unknown key is an error, because a flag that is dropped in silence builds
/// something else than what was asked for.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "builder/build.h"
#include "builder/cache_transfer.h"
#include "spec/stack.h"

namespace api {

enum class BuildOutput { Image, Oci, Tar, Local };

/// What the machines of a build look like.
struct MachineShape {
  double cpus = 2;
  uint64_t memory_bytes = 2048ull << 20;
  std::optional<uint64_t> shm_bytes;
  std::map<std::string, spec::Ulimit> ulimits;  ///< Of each RUN.
  std::vector<std::string> dns;
  std::vector<std::string> dns_search;
  std::vector<std::string> dns_options;
  std::optional<std::string> dns_domain;
};

struct BuildOrder {
  builder::BuildRequest request;
  bool tar_follows = false;  ///< The context comes behind the line.
  MachineShape machine;
  /// Sizes that the line does not name are the builder's (`builder start`).
  bool has_cpus = false;
  bool has_memory = false;
  BuildOutput output = BuildOutput::Image;
  std::vector<builder::CachePlace> cache_from;
  std::vector<builder::CachePlace> cache_to;
  nlohmann::json access;  ///< To registries: an object, "ask" (api/access_desk.h), or null.
  std::string registry;   ///< Of images that name none; empty: docker.io.
};

/// `architecture` is the host's: what a build is for that names no platform.
base::Result<BuildOrder> build_order_from_json(const nlohmann::json& json,
                                               const std::string& architecture);

}  // namespace api
