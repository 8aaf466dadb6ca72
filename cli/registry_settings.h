#pragma once
/// The user's side of registries: configuration, credentials and proxies, put together for one
/// request. The daemon gets what a request needs in its body, and keeps none of it.
///
///   $XDG_CONFIG_HOME/container/config.toml    registry.domain, registry.hosts.HOST (see README)
///   $XDG_CONFIG_HOME/container/defaults.toml  what `registry default set` wrote; it wins
///   $XDG_CONFIG_HOME/container/auth.json      credentials `registry login` wrote, as docker's
///                                             config.json; $DOCKER_CONFIG/config.json instead, if
///                                             that is set
///   ~/.docker/config.json                     read where the above has nothing
///
/// CONTAINER_REGISTRY_HOST, _USER and _TOKEN win over all of them.

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "cli/arguments.h"
#include "cli/run_options.h"

namespace cli {

struct HostConfig {
  std::string scheme;
  std::vector<std::string> mirrors;
  bool insecure = false;
  std::string ca;  ///< Paths.
  std::string client_certificate;
  std::string client_key;
  std::vector<std::string> realms;
};

struct RegistryConfig {
  std::string domain = "docker.io";
  std::string dns_domain;
  std::map<std::string, HostConfig> hosts;
};

/// Names the file and the line of what cannot be read.
base::Result<RegistryConfig> read_registry_config(const Surroundings& surroundings);
/// `defaults.toml` with that domain; without one, with none.
base::Result<> write_default_registry(const Surroundings& surroundings,
                                      const std::optional<std::string>& domain);

/// `registry.example:5000` of `registry.example:5000/a/b`; "" where the reference names none.
std::string registry_of(const std::string& reference);
/// The reference with the configured registry in front, if it names none.
std::string with_registry(const std::string& reference, const RegistryConfig& config);
/// The same of a command that takes the beginning of a digest for a name, too.
std::string name_here(const std::string& reference, const RegistryConfig& config);
/// `docker.io` for the names people use for it, else the host as it is, without scheme and path.
std::string canonical_registry(const std::string& server);

struct LoginRecord {
  std::string host;
  std::string username;
  std::string modified;  ///< RFC 3339; empty if another tool wrote it.
  std::string created;
};
base::Result<std::vector<LoginRecord>> list_logins(const Surroundings& surroundings);
/// By the credential helper that the file names for the host, else in the file (mode 0600).
base::Result<> store_login(const Surroundings& surroundings, const std::string& host,
                           const std::string& username, const std::string& password);
/// NotFound if there is none of ours.
base::Result<> erase_login(const Surroundings& surroundings, const std::string& host);

/// Flags of every command that speaks to registries.
std::vector<Flag> registry_flags();
Flag downloads_flag();

/// `access` of api/wire.h for what `references` may need.
base::Result<nlohmann::json> registry_access(const Surroundings& surroundings,
                                             const RegistryConfig& config, const Parsed& parsed,
                                             const std::vector<std::string>& references);

}  // namespace cli
