#include "image/registry/access.h"

#include <algorithm>
#include <memory>

#include <arpa/inet.h>
#include <curl/curl.h>
#include <nlohmann/json.hpp>

#include "base/lower_case.h"
#include "base/text.h"
#include "image/registry/curl_on_demand.h"
#include "image/registry/http.h"

namespace image::registry {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;

Result<std::string> text(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::string();
  if (!found->is_string())
    return fail(ErrorCode::InvalidArgument, "'{}' of the registry access must be text", key);
  std::string value = found->get<std::string>();
  // Values end up in header lines and URLs.
  const bool multi_line = value.starts_with("-----BEGIN") || value.find("\n-----") != value.npos;
  if (!multi_line && value.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos)
    return fail(ErrorCode::InvalidArgument, "'{}' of the registry access has control characters",
                key);
  return value;
}

Result<std::vector<std::string>> texts(const json& object, const char* key) {
  std::vector<std::string> values;
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return values;
  if (!found->is_array())
    return fail(ErrorCode::InvalidArgument, "'{}' of the registry access must be a list", key);
  for (const json& one : *found) {
    if (!one.is_string())
      return fail(ErrorCode::InvalidArgument, "'{}' of the registry access must hold text", key);
    values.push_back(one.get<std::string>());
  }
  return values;
}

Result<const json*> object_at(const json& object, const char* key) {
  static const json none = json::object();
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return &none;
  if (!found->is_object())
    return fail(ErrorCode::InvalidArgument, "'{}' of the registry access must be an object", key);
  return &*found;
}

Result<> check_scheme(const std::string& scheme) {
  if (scheme == "auto" || scheme == "http" || scheme == "https") return {};
  return fail(ErrorCode::InvalidArgument, "the scheme is http, https or auto, not '{}'",
              base::escape_controls(scheme));
}

Result<HostSettings> settings_from_json(const json& object) {
  if (!object.is_object())
    return fail(ErrorCode::InvalidArgument, "the settings of a registry must be an object");
  HostSettings settings;
  settings.scheme = TRY(text(object, "scheme"));
  if (!settings.scheme.empty()) TRY(check_scheme(settings.scheme));
  settings.mirrors = TRY(texts(object, "mirrors"));
  settings.realms = TRY(texts(object, "realms"));
  settings.ca = TRY(text(object, "ca"));
  settings.client_certificate = TRY(text(object, "client_certificate"));
  settings.client_key = TRY(text(object, "client_key"));
  const auto insecure = object.find("insecure");
  if (insecure != object.end() && !insecure->is_boolean())
    return fail(ErrorCode::InvalidArgument,
                "'insecure' of the registry access must be true or false");
  settings.insecure = insecure != object.end() && insecure->get<bool>();
  return settings;
}

Result<Credential> credential_from_json(const json& object) {
  if (!object.is_object())
    return fail(ErrorCode::InvalidArgument, "the credentials of a registry must be an object");
  Credential credential;
  credential.username = TRY(text(object, "username"));
  credential.password = TRY(text(object, "password"));
  credential.identity_token = TRY(text(object, "identity_token"));
  credential.registry_token = TRY(text(object, "registry_token"));
  return credential;
}

/// `host:port` and `[::1]:port` without the port and the brackets.
std::string host_of(std::string_view authority) {
  if (authority.starts_with("[")) {
    const size_t end = authority.find(']');
    return base::lower_case(authority.substr(1, end == std::string_view::npos ? end : end - 1));
  }
  return base::lower_case(authority.substr(0, authority.rfind(':')));
}

/// 127/8, 10/8, 172.16/12, 192.168/16: where `auto` means http.
bool is_private_address(const std::string& host) {
  in_addr address{};
  if (::inet_pton(AF_INET, host.c_str(), &address) != 1) return false;
  const uint32_t value = ntohl(address.s_addr);
  return value >> 24 == 127 || value >> 24 == 10 || value >> 20 == 0xAC1 || value >> 16 == 0xC0A8;
}

std::string auto_scheme(const std::string& host, const Access& access) {
  const bool own_name =
      !access.dns_domain.empty() && host.ends_with("." + base::lower_case(access.dns_domain));
  return is_loopback_host(host) || is_private_address(host) || own_name ? "http" : "https";
}

const HostSettings* settings_of(const Access& access, const std::string& registry) {
  const auto found = access.hosts.find(registry);
  return found == access.hosts.end() ? nullptr : &found->second;
}

bool allows_plain(const Access& access, const std::string& registry, const std::string& host) {
  const HostSettings* settings = settings_of(access, registry);
  return is_loopback_host(host) || access.scheme == "http" ||
         (settings != nullptr && (settings->insecure || settings->scheme == "http"));
}

Result<Endpoint> mirror_endpoint(const std::string& url, const Access& access) {
  const std::string full = url.find("://") == std::string::npos ? "https://" + url : url;
  const UrlParts parts = TRY_DURING(parse_url(full), "read the mirror '{}'", without_query(url));
  std::string prefix = parts.path;
  while (prefix.ends_with("/")) prefix.pop_back();
  if (prefix.ends_with("/v2")) prefix.resize(prefix.size() - 3);
  return Endpoint{.registry = parts.authority,
                  .scheme = parts.scheme,
                  .authority = parts.authority,
                  .prefix = prefix,
                  .mirror = true,
                  .secrets_allowed =
                      parts.scheme == "https" || allows_plain(access, parts.authority, parts.host)};
}

bool matches_no_proxy(const std::string& host, const std::string& no_proxy) {
  for (std::string entry : base::split(no_proxy, ',')) {
    while (entry.starts_with(" ") || entry.starts_with(".")) entry.erase(0, 1);
    while (entry.ends_with(" ")) entry.pop_back();
    entry = base::lower_case(entry);
    if (entry.empty()) continue;
    if (entry == "*" || entry == host || host.ends_with("." + entry)) return true;
  }
  return false;
}

struct FreeUrl {
  void operator()(CURLU* url) const { ::curl_url_cleanup(url); }
};
using UrlHandle = std::unique_ptr<CURLU, FreeUrl>;

Result<UrlHandle> new_url() {
  TRY(load_curl());
  return UrlHandle(::curl_url());
}

std::string part_of(CURLU* url, CURLUPart what) {
  char* value = nullptr;
  if (::curl_url_get(url, what, &value, 0) != CURLUE_OK) return "";
  std::string result = value;
  ::curl_free(value);
  return result;
}

}  // namespace

bool is_loopback_host(const std::string& host) {
  if (host == "localhost" || host.ends_with(".localhost") || host == "::1") return true;
  in_addr address{};
  return ::inet_pton(AF_INET, host.c_str(), &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

bool is_link_local_host(const std::string& host) {
  in_addr four{};
  if (::inet_pton(AF_INET, host.c_str(), &four) == 1) return ntohl(four.s_addr) >> 16 == 0xA9FE;
  in6_addr six{};
  const std::string bare = host.substr(0, host.find('%'));
  return ::inet_pton(AF_INET6, bare.c_str(), &six) == 1 && IN6_IS_ADDR_LINKLOCAL(&six);
}

std::string Endpoint::host() const { return host_of(authority); }

Result<UrlParts> parse_url(const std::string& url) {
  const UrlHandle handle = TRY(new_url());
  if (::curl_url_set(handle.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK)
    return fail(ErrorCode::InvalidArgument, "'{}' is no URL", without_query(url));
  UrlParts parts;
  parts.scheme = base::lower_case(part_of(handle.get(), CURLUPART_SCHEME));
  if (parts.scheme != "http" && parts.scheme != "https")
    return fail(ErrorCode::InvalidArgument, "'{}' is neither an http nor an https URL",
                without_query(url));
  const std::string host = part_of(handle.get(), CURLUPART_HOST);
  const std::string port = part_of(handle.get(), CURLUPART_PORT);
  parts.host = host_of(host.starts_with("[") ? host : host + ":");
  parts.authority = port.empty() ? host : host + ":" + port;
  parts.path = part_of(handle.get(), CURLUPART_PATH);
  return parts;
}

Result<std::string> resolve_url(const std::string& base, const std::string& location) {
  const UrlHandle handle = TRY(new_url());
  if (::curl_url_set(handle.get(), CURLUPART_URL, base.c_str(), 0) != CURLUE_OK ||
      ::curl_url_set(handle.get(), CURLUPART_URL, location.c_str(), CURLU_NON_SUPPORT_SCHEME) !=
          CURLUE_OK)
    return fail(ErrorCode::InvalidArgument, "a redirect to what is no URL: '{}'",
                without_query(location));
  ::curl_url_set(handle.get(), CURLUPART_USER, nullptr, 0);
  ::curl_url_set(handle.get(), CURLUPART_PASSWORD, nullptr, 0);
  ::curl_url_set(handle.get(), CURLUPART_FRAGMENT, nullptr, 0);
  return part_of(handle.get(), CURLUPART_URL);
}

Result<Access> access_from_json(const json& object) {
  if (!object.is_object())
    return fail(ErrorCode::InvalidArgument, "the registry access must be an object");
  Access access;
  if (const std::string scheme = TRY(text(object, "scheme")); !scheme.empty())
    access.scheme = scheme;
  TRY(check_scheme(access.scheme));
  if (const auto number = object.find("max_concurrent_downloads"); number != object.end()) {
    if (!number->is_number_integer() || number->get<int64_t>() < 1)
      return fail(ErrorCode::InvalidArgument,
                  "maximum number of concurrent downloads must be greater than 0");
    access.downloads_max =
        static_cast<uint32_t>(std::min<int64_t>(number->get<int64_t>(), limits::downloads_max));
  }
  access.dns_domain = TRY(text(object, "dns_domain"));
  for (const auto& [host, one] : TRY(object_at(object, "credentials"))->items())
    access.credentials.emplace(host, TRY(credential_from_json(one)));
  for (const auto& [host, one] : TRY(object_at(object, "hosts"))->items())
    access.hosts.emplace(host, TRY(settings_from_json(one)));
  const json& proxy = *TRY(object_at(object, "proxy"));
  access.http_proxy = TRY(text(proxy, "http"));
  access.https_proxy = TRY(text(proxy, "https"));
  access.no_proxy = TRY(text(proxy, "none"));
  return access;
}

Result<std::vector<Endpoint>> endpoints_of(const std::string& registry, const Access& access,
                                           bool for_push) {
  std::vector<Endpoint> endpoints;
  const HostSettings* settings = settings_of(access, registry);
  if (settings != nullptr && !for_push)
    for (const std::string& mirror : settings->mirrors)
      endpoints.push_back(TRY(mirror_endpoint(mirror, access)));
  Endpoint own{.registry = registry, .authority = registry};
  if (registry == "docker.io") own.authority = "registry-1.docker.io";
  own.scheme = access.scheme;
  if (settings != nullptr && !settings->scheme.empty() && access.scheme == "auto")
    own.scheme = settings->scheme;
  if (own.scheme != "http" && own.scheme != "https") own.scheme = auto_scheme(own.host(), access);
  own.secrets_allowed = own.scheme == "https" || allows_plain(access, registry, own.host());
  endpoints.push_back(std::move(own));
  return endpoints;
}

std::string proxy_for(const std::string& url, const Access& access) {
  const Result<UrlParts> parts = parse_url(url);
  if (!parts) return "";
  const std::string& proxy = parts->scheme == "https" ? access.https_proxy : access.http_proxy;
  if (proxy.empty() || is_loopback_host(parts->host)) return "";
  return matches_no_proxy(parts->host, access.no_proxy) ? "" : proxy;
}

}  // namespace image::registry
