#pragma once
/// What a task may use to reach registries: brought along with each request by whoever asks, kept
/// nowhere. The daemon neither reads the user's files nor writes any of this down.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "image/registry/limits.h"

namespace image::registry {

/// One of: name and password; an identity token (OAuth2 refresh token); a ready bearer token.
struct Credential {
  std::string username;
  std::string password;
  std::string identity_token;
  std::string registry_token;
  bool empty() const {
    return username.empty() && password.empty() && identity_token.empty() && registry_token.empty();
  }
};

/// The user's configuration of one registry host.
struct HostSettings {
  std::string scheme;                ///< `http`, `https`, or empty: as Access says.
  std::vector<std::string> mirrors;  ///< URLs, asked first and in this order, for pulls only.
  bool insecure = false;             ///< Certificates are not verified.
  std::string ca;                    ///< PEM, besides the system's own.
  std::string client_certificate;    ///< PEM.
  std::string client_key;            ///< PEM.
  std::vector<std::string> realms;   ///< Other hosts whose token service may see the password.
};

struct Access {
  std::string scheme = "auto";
  uint32_t downloads_max = limits::downloads_default;  ///< Connections at once.
  std::string dns_domain;                         ///< Names in it are ours: `auto` is http there.
  std::map<std::string, Credential> credentials;  ///< By host, as references write it.
  std::map<std::string, HostSettings> hosts;
  std::string http_proxy;
  std::string https_proxy;
  std::string no_proxy;  ///< Comma-separated: names with their subdomains, addresses, or `*`.
};

/// The form of api/wire.h. InvalidArgument names the member; never repeats a value.
base::Result<Access> access_from_json(const nlohmann::json& json);

/// One place where a repository is to be had.
struct Endpoint {
  std::string registry;   ///< The host as references write it; key of settings and credentials.
  std::string scheme;     ///< `http` or `https`.
  std::string authority;  ///< `host[:port]` that is connected to.
  std::string prefix;     ///< Path before `/v2/`, without a slash at its end.
  bool mirror = false;
  bool secrets_allowed = false;  ///< Over this scheme to this host.

  std::string host() const;  ///< `authority` without port and brackets.
  std::string base() const { return scheme + "://" + authority + prefix; }
};

/// Mirrors first (unless `for_push`), the registry itself last.
base::Result<std::vector<Endpoint>> endpoints_of(const std::string& registry, const Access& access,
                                                 bool for_push);

/// The proxy for `url`, or "" for none.
std::string proxy_for(const std::string& url, const Access& access);

struct UrlParts {
  std::string scheme;
  std::string host;       ///< Lower case, without brackets.
  std::string authority;  ///< `host[:port]`, as it stands in the URL, without user information.
  std::string path;
};
/// InvalidArgument for what is no absolute http or https URL.
base::Result<UrlParts> parse_url(const std::string& url);
/// `location` relative to `base`, as a redirect gives it.
base::Result<std::string> resolve_url(const std::string& base, const std::string& location);

bool is_loopback_host(const std::string& host);
/// 169.254/16 and fe80::/10, by address: where a host keeps services for itself.
bool is_link_local_host(const std::string& host);

}  // namespace image::registry
