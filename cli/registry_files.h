#pragma once
/// Shared by the two halves of registry_settings.h.

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "cli/run_options.h"

namespace cli {

inline constexpr uint64_t registry_settings_bytes_max = 1u << 20;  ///< config.toml, config.json.
inline constexpr int credential_helper_timeout_ms = 60'000;        ///< It may ask the user.
inline constexpr uint64_t registry_downloads_default = 3;

std::string environment_value(const Surroundings& surroundings, const std::string& name);
/// `$XDG_CONFIG_HOME/container`
std::string config_folder(const Surroundings& surroundings);
/// The credential for `host` in the form of api/wire.h, or null.
base::Result<nlohmann::json> find_credential(const Surroundings& surroundings,
                                             const std::string& host);

}  // namespace cli
