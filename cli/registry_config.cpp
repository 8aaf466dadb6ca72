/// The configuration files of registries; credentials are in registry_credentials.cpp.

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <toml++/toml.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "cli/registry_files.h"
#include "cli/registry_settings.h"

namespace cli {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;

std::string environment_value(const Surroundings& surroundings, const std::string& name) {
  const auto found = surroundings.environment.find(name);
  return found == surroundings.environment.end() ? "" : found->second;
}

std::string config_folder(const Surroundings& surroundings) {
  const std::string given = environment_value(surroundings, "XDG_CONFIG_HOME");
  return (given.empty() ? surroundings.home_directory + "/.config" : given) + "/container";
}

namespace {

/// One file; says what is wrong with its place in it.
class ConfigReader {
 public:
  ConfigReader(std::string path, RegistryConfig& into) : path_(std::move(path)), into_(into) {}

  Result<> read() {
    if (!base::path_exists(path_)) return {};
    const std::string text = TRY(base::read_file(path_, registry_settings_bytes_max));
    // The parser recurses with the nesting; nothing of ours is nested that deep.
    if (std::count(text.begin(), text.end(), '[') > brackets_max)
      return fail(ErrorCode::InvalidArgument, "'{}' has more than {} brackets", path_,
                  brackets_max);
    try {
      return take(toml::parse(text));
    } catch (const toml::parse_error& error) {
      return fail(ErrorCode::InvalidArgument, "{}:{}: {}", path_, error.source().begin.line,
                  error.description());
    }
  }

 private:
  static constexpr int64_t brackets_max = 10'000;

  tl::unexpected<base::Error> wrong(const toml::node& node, std::string_view key,
                                    std::string_view wanted) const {
    return fail(ErrorCode::InvalidArgument, "{}:{}: '{}' must be {}", path_,
                node.source().begin.line, key, wanted);
  }

  Result<> text(const toml::table& table, std::string_view key, std::string& into) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) return {};
    const auto value = node->value_exact<std::string>();
    if (!value) return wrong(*node, key, "text in quotes");
    into = *value;
    return {};
  }

  Result<> texts(const toml::table& table, std::string_view key,
                 std::vector<std::string>& into) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) return {};
    const toml::array* list = node->as_array();
    if (list == nullptr) return wrong(*node, key, "a list of texts");
    into.clear();
    for (const toml::node& one : *list) {
      const auto value = one.value_exact<std::string>();
      if (!value) return wrong(one, key, "a list of texts");
      into.push_back(*value);
    }
    return {};
  }

  Result<> host(const std::string& name, const toml::node& node) {
    const toml::table* table = node.as_table();
    if (table == nullptr) return wrong(node, name, "a table");
    static const std::vector<std::string> known = {
        "scheme", "mirrors", "insecure", "ca", "client-key", "client-certificate", "realms"};
    for (const auto& [key, value] : *table) {
      const std::string written(key.str());
      if (std::find(known.begin(), known.end(), written) != known.end()) continue;
      const auto meant = base::did_you_mean(written, known);
      return fail(ErrorCode::InvalidArgument, "{}:{}: a registry has no '{}'{}", path_,
                  value.source().begin.line, written,
                  meant ? fmt::format("; did you mean '{}'?", *meant) : "");
    }
    HostConfig& config = into_.hosts[canonical_registry(name)];
    TRY(text(*table, "scheme", config.scheme));
    if (!config.scheme.empty() && config.scheme != "http" && config.scheme != "https")
      return wrong(*table->get("scheme"), "scheme", "\"http\" or \"https\"");
    TRY(texts(*table, "mirrors", config.mirrors));
    TRY(texts(*table, "realms", config.realms));
    TRY(text(*table, "ca", config.ca));
    TRY(text(*table, "client-certificate", config.client_certificate));
    TRY(text(*table, "client-key", config.client_key));
    if (const toml::node* insecure = table->get("insecure")) {
      const auto value = insecure->value_exact<bool>();
      if (!value) return wrong(*insecure, "insecure", "true or false");
      config.insecure = *value;
    }
    return {};
  }

  Result<> take(const toml::table& all) {
    if (const toml::table* dns = all["dns"].as_table()) TRY(text(*dns, "domain", into_.dns_domain));
    const toml::node* node = all.get("registry");
    if (node == nullptr) return {};
    const toml::table* table = node->as_table();
    if (table == nullptr) return wrong(*node, "registry", "a table");
    TRY(text(*table, "domain", into_.domain));
    const toml::node* hosts = table->get("hosts");
    if (hosts == nullptr) return {};
    if (hosts->as_table() == nullptr) return wrong(*hosts, "registry.hosts", "a table");
    for (const auto& [name, one] : *hosts->as_table()) TRY(host(std::string(name.str()), one));
    return {};
  }

  const std::string path_;
  RegistryConfig& into_;
};

/// PEM files become their content: the daemon reads no file of the user's.
Result<json> host_json(const HostConfig& config) {
  json object = {{"scheme", config.scheme},
                 {"mirrors", config.mirrors},
                 {"insecure", config.insecure},
                 {"realms", config.realms}};
  for (const auto& [key, path] :
       {std::pair{"ca", &config.ca}, std::pair{"client_certificate", &config.client_certificate},
        std::pair{"client_key", &config.client_key}})
    if (!path->empty())
      object[key] = TRY_DURING(base::read_file(*path, registry_settings_bytes_max),
                               "read what config.toml names");
  return object;
}

std::string host_of_url(const std::string& url) {
  const size_t scheme = url.find("://");
  const std::string rest = scheme == std::string::npos ? url : url.substr(scheme + 3);
  return rest.substr(0, rest.find('/'));
}

/// As given by the environment, in either case of the names.
json proxies(const Surroundings& surroundings) {
  const auto value = [&](const char* lower, const char* upper) {
    const std::string one = environment_value(surroundings, lower);
    return one.empty() ? environment_value(surroundings, upper) : one;
  };
  const std::string all = value("all_proxy", "ALL_PROXY");
  const std::string http = value("http_proxy", "HTTP_PROXY");
  const std::string https = value("https_proxy", "HTTPS_PROXY");
  return {{"http", http.empty() ? all : http},
          {"https", https.empty() ? all : https},
          {"none", value("no_proxy", "NO_PROXY")}};
}

Result<uint64_t> downloads_of(const Parsed& parsed) {
  const auto text = parsed.value("max-concurrent-downloads");
  if (!text) return uint64_t{registry_downloads_default};
  uint64_t count = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), count);
  if (error != std::errc() || end != text->data() + text->size() || count == 0)
    return fail(ErrorCode::InvalidArgument,
                "maximum number of concurrent downloads must be greater than 0");
  return count;
}

}  // namespace

Result<RegistryConfig> read_registry_config(const Surroundings& surroundings) {
  RegistryConfig config;
  TRY(ConfigReader(config_folder(surroundings) + "/config.toml", config).read());
  TRY(ConfigReader(config_folder(surroundings) + "/defaults.toml", config).read());
  return config;
}

Result<> write_default_registry(const Surroundings& surroundings,
                                const std::optional<std::string>& domain) {
  const std::string folder = config_folder(surroundings);
  TRY(base::make_directories(folder));
  std::string text = "# Written by `container registry default`; wins over config.toml.\n";
  if (domain) text += fmt::format("[registry]\ndomain = \"{}\"\n", *domain);
  return base::write_file_atomically(folder + "/defaults.toml", text);
}

std::string registry_of(const std::string& reference) {
  const size_t slash = reference.find('/');
  if (slash == std::string::npos) return "";
  const std::string first = reference.substr(0, slash);
  const bool is_host =
      first == "localhost" || first.find_first_of(".:[") != std::string::npos ||
      std::any_of(first.begin(), first.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
  return is_host ? canonical_registry(first) : "";
}

std::string with_registry(const std::string& reference, const RegistryConfig& config) {
  const bool is_digest = reference.starts_with("sha256:");
  if (config.domain == "docker.io" || is_digest || !registry_of(reference).empty())
    return reference;
  return config.domain + "/" + reference;
}

std::string name_here(const std::string& reference, const RegistryConfig& config) {
  constexpr size_t digits_min = 12;  // of a digest; what is shorter is a name
  const bool is_digits = reference.size() >= digits_min &&
                         reference.find_first_not_of("0123456789abcdef") == std::string::npos;
  return is_digits ? reference : with_registry(reference, config);
}

std::string canonical_registry(const std::string& server) {
  const std::string host = host_of_url(server);
  const bool is_docker = host == "index.docker.io" || host == "registry-1.docker.io" ||
                         host == "registry.hub.docker.com";
  return is_docker ? "docker.io" : host;
}

std::vector<Flag> registry_flags() {
  return {{"scheme", '\0', "http|https|auto",
           "How to reach the registry; auto: http on loopback and private addresses"},
          {"progress", '\0', "auto|none|ansi|plain|color", "How to show what goes on"}};
}

Flag downloads_flag() {
  return {"max-concurrent-downloads", '\0', "NUMBER", "Connections at once; otherwise 3"};
}

Result<json> registry_access(const Surroundings& surroundings, const RegistryConfig& config,
                             const Parsed& parsed, const std::vector<std::string>& references) {
  json access = {{"scheme", parsed.value("scheme").value_or("auto")},
                 {"dns_domain", config.dns_domain},
                 {"credentials", json::object()},
                 {"hosts", json::object()},
                 {"proxy", proxies(surroundings)}};
  access["max_concurrent_downloads"] = TRY(downloads_of(parsed));
  std::vector<std::string> hosts;
  const auto want = [&](const std::string& host) {
    if (std::find(hosts.begin(), hosts.end(), host) == hosts.end()) hosts.push_back(host);
  };
  for (const std::string& reference : references) {
    const std::string named = registry_of(reference);
    want(named.empty() ? "docker.io" : named);
  }
  for (size_t i = 0; i < hosts.size(); ++i) {
    const std::string host = hosts[i];
    if (const auto found = config.hosts.find(host); found != config.hosts.end()) {
      access["hosts"][host] =
          TRY_DURING(host_json(found->second), "configuration of registry '{}'", host);
      for (const std::string& mirror : found->second.mirrors) want(host_of_url(mirror));
    }
    json credential = TRY_DURING(find_credential(surroundings, host), "credentials of '{}'", host);
    if (!credential.is_null()) access["credentials"][host] = std::move(credential);
  }
  return access;
}

}  // namespace cli
