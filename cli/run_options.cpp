#include "cli/run_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstring>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/names.h"
#include "base/text.h"
#include "spec/dotenv.h"
#include "spec/load.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

/// A flag whose values go into one attribute of the stack file as they are.
struct Straight {
  std::string_view flag;
  const char* attribute;
  enum { Text, Switch, List, KeyValues } form;
};

constexpr std::array straight = {
    Straight{"publish", "ports", Straight::List},
    Straight{"label", "labels", Straight::KeyValues},
    Straight{"cap-add", "cap_add", Straight::List},
    Straight{"cap-drop", "cap_drop", Straight::List},
    Straight{"dns", "dns", Straight::List},
    Straight{"dns-search", "dns_search", Straight::List},
    Straight{"dns-option", "dns_opt", Straight::List},
    Straight{"dns-domain", "domainname", Straight::Text},
    Straight{"add-host", "extra_hosts", Straight::List},
    Straight{"tmpfs", "tmpfs", Straight::List},
    Straight{"sysctl", "sysctls", Straight::KeyValues},
    Straight{"group-add", "group_add", Straight::List},
    Straight{"memory", "mem_limit", Straight::Text},
    Straight{"cpus", "cpus", Straight::Text},
    Straight{"pids-limit", "pids_limit", Straight::Text},
    Straight{"shm-size", "shm_size", Straight::Text},
    Straight{"workdir", "working_dir", Straight::Text},
    Straight{"hostname", "hostname", Straight::Text},
    Straight{"restart", "restart", Straight::Text},
    Straight{"stop-signal", "stop_signal", Straight::Text},
    Straight{"platform", "platform", Straight::Text},
    Straight{"boot", "x-boot", Straight::Text},
    Straight{"read-only", "read_only", Straight::Switch},
    Straight{"privileged", "privileged", Straight::Switch},
    Straight{"init", "init", Straight::Switch},
    Straight{"interactive", "stdin_open", Straight::Switch},
    Straight{"tty", "tty", Straight::Switch},
};

/// Which flag wrote an attribute that no table entry above names.
std::string_view flag_of(std::string_view attribute) {
  for (const Straight& entry : straight)
    if (attribute == entry.attribute) return entry.flag;
  constexpr std::pair<std::string_view, std::string_view> others[] = {
      {"environment", "env"},
      {"entrypoint", "entrypoint"},
      {"user", "user"},
      {"ulimits", "ulimit"},
      {"volumes", "volume"},
      {"networks", "network"},
      {"network_mode", "network"},
      {"healthcheck", "health-cmd"},
      {"stop_grace_period", "stop-timeout"},
  };
  for (const auto& [name, flag] : others)
    if (attribute == name) return flag;
  return "";
}

/// The loader fills in variables; what stands on a command line has been through a shell already.
json without_variables(const json& value) {
  if (value.is_string()) {
    std::string doubled;
    for (const char c : value.get_ref<const std::string&>()) doubled.append(c == '$' ? 2 : 1, c);
    return doubled;
  }
  json copy = value;
  if (copy.is_structured())
    for (auto& inner : copy) inner = without_variables(inner);
  return copy;
}

std::pair<std::string, std::optional<std::string>> key_value(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) return {text, std::nullopt};
  return {text.substr(0, equals), text.substr(equals + 1)};
}

void add_straight(const Parsed& parsed, json& service) {
  for (const Straight& entry : straight) {
    if (!parsed.has(entry.flag)) continue;
    switch (entry.form) {
      case Straight::Text: service[entry.attribute] = *parsed.value(entry.flag); break;
      case Straight::Switch: service[entry.attribute] = true; break;
      case Straight::List: service[entry.attribute] = parsed.all(entry.flag); break;
      case Straight::KeyValues:
        for (const std::string& text : parsed.all(entry.flag)) {
          const auto [key, value] = key_value(text);
          service[entry.attribute][key] = value.value_or("");
        }
        break;
    }
  }
}

Result<> add_platform(const Parsed& parsed, const Surroundings& surroundings, json& service,
                      std::vector<std::string>& warnings) {
  if (parsed.has("platform")) return {};
  if (!parsed.has("arch") && !parsed.has("os")) {
    const auto usual = surroundings.environment.find("CONTAINER_DEFAULT_PLATFORM");
    if (usual == surroundings.environment.end() || usual->second.empty()) return {};
    service["platform"] = usual->second;
    warnings.push_back(
        fmt::format("using platform {} from CONTAINER_DEFAULT_PLATFORM", usual->second));
    return {};
  }
  std::string architecture = parsed.value("arch").value_or("amd64");
  if (architecture == "x86_64" || architecture == "x86-64") architecture = "amd64";
  if (architecture == "aarch64") architecture = "arm64";
  service["platform"] =
      fmt::format("{}/{}", parsed.value("os").value_or("linux"), std::move(architecture));
  return {};
}

std::string absolute(const Surroundings& surroundings, const std::string& path) {
  if (path.starts_with('/')) return path;
  return surroundings.working_directory + "/" + path;
}

/// A source with a slash is a path, also where a stack file would want `./` before it.
std::string volume_text(const Surroundings& surroundings, const std::string& text) {
  const size_t colon = text.find(':');
  const std::string source = text.substr(0, colon);
  const bool is_path = source.find('/') != std::string::npos && source[0] != '/' &&
                       source[0] != '~' && source[0] != '.';
  if (colon == std::string::npos || !is_path) return text;
  return absolute(surroundings, source) + text.substr(colon);
}

/// The name of a volume in `name:/path`; empty for paths and anonymous volumes.
std::string volume_name(const std::string& text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos || colon == 0) return {};
  const std::string source = text.substr(0, colon);
  const bool is_path =
      source.find('/') != std::string::npos || source[0] == '.' || source[0] == '~';
  return is_path ? std::string() : source;
}

void declare_volume(json& document, const std::string& name) {
  if (!name.empty()) document["volumes"][name] = {{"name", name}};
}

/// One `key` or `key=value` of --mount into the long form of a stack file.
Result<> add_mount_part(const std::string& part, json& mount) {
  const auto [key, value] = key_value(part);
  if (key == "type") {
    mount["type"] = value == "virtiofs" ? "bind" : value.value_or("");
  } else if (key == "source" || key == "src") {
    mount["source"] = value.value_or("");
  } else if (key == "target" || key == "destination" || key == "dst") {
    mount["target"] = value.value_or("");
  } else if (key == "readonly" || key == "ro") {
    mount["read_only"] = value.value_or("true") != "false";
  } else if (key == "size" || key == "mode") {
    mount["tmpfs"][key] = value.value_or("");
  } else {
    return base::fail(ErrorCode::InvalidArgument,
                      "--mount: unknown part '{}'; it takes type, source, target, readonly, size "
                      "and mode",
                      base::escape_controls(part));
  }
  return {};
}

Result<> add_mounts(const Parsed& parsed, const Surroundings& surroundings, const std::string& id,
                    json& document) {
  json& service = document["services"][id];
  for (const std::string& text : parsed.all("volume")) {
    service["volumes"].push_back(volume_text(surroundings, text));
    declare_volume(document, volume_name(text));
  }
  for (const std::string& text : parsed.all("mount")) {
    json mount = {{"type", "bind"}};
    for (const std::string& part : base::split(text, ',')) TRY(add_mount_part(part, mount));
    if (mount["type"] == "bind" && mount.contains("source"))
      mount["source"] = absolute(surroundings, mount["source"].get<std::string>());
    if (mount["type"] == "bind") mount["bind"]["create_host_path"] = false;
    if (mount["type"] == "volume")
      declare_volume(document, base::json_string_or(mount, "source", ""));
    service["volumes"].push_back(std::move(mount));
  }
  return {};
}

Result<> add_network(const std::string& text, json& document, json& service) {
  const std::vector<std::string> parts = base::split(text, ',');
  json attachment = json::object();
  for (size_t i = 1; i < parts.size(); ++i) {
    const auto [key, value] = key_value(parts[i]);
    if (key == "mac" && value) {
      attachment["mac_address"] = *value;
    } else if (key == "ip" && value) {
      attachment["ipv4_address"] = *value;
    } else if (key == "alias" && value) {
      attachment["aliases"].push_back(*value);
    } else {
      return base::fail(ErrorCode::InvalidArgument,
                        "--network: unknown part '{}'; it takes mac=, ip= and alias=",
                        base::escape_controls(parts[i]));
    }
  }
  document["networks"][parts[0]] = {{"name", parts[0]}, {"external", true}};
  service["networks"][parts[0]] = std::move(attachment);
  return {};
}

Result<> add_networks(const Parsed& parsed, const std::string& id, json& document) {
  json& service = document["services"][id];
  std::vector<std::string> networks = parsed.all("network");
  const auto has = [&](const char* name) {
    return std::find(networks.begin(), networks.end(), name) != networks.end();
  };
  // `host` is docker's word, and the stack's reader knows what to say to it.
  if (has("host") || (has("none") && networks.size() == 1)) {
    service["network_mode"] = has("host") ? "host" : "none";
    return {};
  }
  if (has("none"))
    return base::fail(ErrorCode::InvalidArgument,
                      "--network none stands alone: a container with a network has one");
  if (networks.empty()) networks.emplace_back("default");
  for (const std::string& text : networks) TRY(add_network(text, document, service));
  return {};
}

Result<> add_ulimits(const Parsed& parsed, json& service) {
  for (const std::string& text : parsed.all("ulimit")) {
    const auto [type, values] = key_value(text);
    if (!values)
      return base::fail(ErrorCode::InvalidArgument, "--ulimit '{}': write it as TYPE=SOFT[:HARD]",
                        base::escape_controls(text));
    const std::vector<std::string> limits = base::split(*values, ':');
    if (service["ulimits"].contains(type) || limits.size() > 2)
      return base::fail(ErrorCode::InvalidArgument,
                        "--ulimit '{}': each type once, as TYPE=SOFT[:HARD]",
                        base::escape_controls(text));
    const auto number = [](const std::string& limit) {
      return limit == "unlimited" ? std::string("-1") : limit;
    };
    service["ulimits"][type] = {{"soft", number(limits.front())}, {"hard", number(limits.back())}};
  }
  return {};
}

void add_healthcheck(const Parsed& parsed, json& service) {
  constexpr std::pair<std::string_view, const char*> parts[] = {
      {"health-interval", "interval"},         {"health-timeout", "timeout"},
      {"health-start-period", "start_period"}, {"health-start-interval", "start_interval"},
      {"health-retries", "retries"},
  };
  if (const auto command = parsed.value("health-cmd"))
    service["healthcheck"]["test"] = json::array({"CMD-SHELL", *command});
  if (parsed.has("no-healthcheck")) service["healthcheck"]["disable"] = true;
  for (const auto& [flag, attribute] : parts)
    if (const auto value = parsed.value(flag)) service["healthcheck"][attribute] = *value;
}

Result<> add_process(const Parsed& parsed, const Surroundings& surroundings, json& service) {
  service["image"] = parsed.arguments.front();
  if (parsed.arguments.size() > 1)
    service["command"] =
        std::vector<std::string>(parsed.arguments.begin() + 1, parsed.arguments.end());
  if (const auto entrypoint = parsed.value("entrypoint"))
    service["entrypoint"] = entrypoint->empty() ? json::array() : json::array({*entrypoint});
  for (const std::string& text : TRY(read_environment(parsed, surroundings))) {
    const auto [key, value] = key_value(text);
    service["environment"][key] = value.value_or("");
  }
  if (const auto user = TRY(read_user(parsed))) service["user"] = *user;
  if (const auto seconds = parsed.value("stop-timeout"))
    service["stop_grace_period"] =
        seconds->find_first_not_of("0123456789") == std::string::npos ? *seconds + "s" : *seconds;
  return {};
}

/// `services.x.ports[0]` is about --publish.
std::string flag_text(const spec::Diagnostic& diagnostic, const std::string& id) {
  const std::string prefix = "services." + id + ".";
  if (!diagnostic.address.starts_with(prefix)) return diagnostic.address;
  const std::string inner = diagnostic.address.substr(prefix.size());
  const std::string attribute = inner.substr(0, inner.find_first_of(".["));
  const std::string_view flag = flag_of(attribute);
  return flag.empty() ? attribute : fmt::format("--{}", flag);
}

/// All problems, a line each.
base::Error problems_of(const spec::Loaded& loaded, const std::string& id) {
  std::vector<std::string> lines;
  for (const spec::Diagnostic& diagnostic : loaded.diagnostics) {
    if (diagnostic.severity != spec::Severity::Error) continue;
    std::string line = flag_text(diagnostic, id) + ": " + diagnostic.summary;
    for (const std::string& more : {diagnostic.detail, diagnostic.suggestion})
      if (!more.empty()) line += "; " + more;
    lines.push_back(std::move(line));
  }
  return {ErrorCode::InvalidArgument, base::join(lines, "\n")};
}

Result<spec::Stack> load_document(const json& document, const std::string& id,
                                  const Surroundings& surroundings) {
  spec::LoadOptions options;
  options.files = {"-"};
  options.stdin_text = base::dump_json(without_variables(document));
  options.project_name = "run";
  options.project_directory = surroundings.working_directory;
  options.home_directory = surroundings.home_directory;
  // Only what the flags say counts: neither `.env` of this folder nor our own variables.
  options.read_file = [](const std::string& path) -> Result<std::string> {
    return base::fail(ErrorCode::NotFound, "'{}' is not read for a command line", path);
  };
  spec::Loaded loaded = spec::load(options);
  if (!loaded.stack) return tl::unexpected<base::Error>(problems_of(loaded, id));
  spec::Stack stack = std::move(*loaded.stack);
  stack.name.clear();
  stack.working_dir.clear();
  stack.files.clear();
  return stack;
}

}  // namespace

std::vector<Flag> process_flags() {
  return {
      {"env", 'e', "KEY[=VALUE]", "Set a variable; KEY alone takes it from here"},
      {"env-file", '\0', "FILE", "Set the variables of a file of KEY=VALUE lines"},
      {"interactive", 'i', "", "Keep stdin open"},
      {"tty", 't', "", "Give the process a terminal"},
      {"user", 'u', "USER[:GROUP]", "Run as this user: a name or a number"},
      {"uid", '\0', "NUMBER", "Run as this user"},
      {"gid", '\0', "NUMBER", "Run as this group"},
      {"workdir", 'w', "FOLDER", "Start in this folder; it is made if missing", "cwd"},
      {"detach", 'd', "", "Start it, print its ID and return"},
  };
}

std::vector<Flag> machine_flags() {
  return {
      {"name", '\0', "NAME", "Name of the container; otherwise a random one"},
      {"cpus", 'c', "NUMBER", "Processors"},
      {"memory", 'm', "SIZE", "Memory: 512M, 2G"},
      {"publish", 'p', "[IP:][PORT[-PORT]:]PORT[/udp]",
       "Publish a port on the host; of a range the first free one"},
      {"volume", 'v', "[SOURCE:]TARGET[:ro]", "Mount a host path or a volume"},
      {"mount", '\0', "type=…,source=…,target=…", "Mount, in words"},
      {"tmpfs", '\0', "TARGET", "Mount an empty folder in memory"},
      {"network", '\0', "NAME[,mac=…][,ip=…][,alias=…]", "Join a network; none: no network", "net"},
      {"label", 'l', "KEY=VALUE", "Attach a label"},
      {"entrypoint", '\0', "PROGRAM", "Replace the image's entrypoint and command"},
      {"hostname", '\0', "NAME", "Host name inside"},
      {"init", '\0', "", "Run a tiny init that passes signals on and reaps"},
      {"read-only", '\0', "", "Make the root folder read-only"},
      {"privileged", '\0', "", "Give every capability and device"},
      {"cap-add", '\0', "CAPABILITY", "Add a capability"},
      {"cap-drop", '\0', "CAPABILITY", "Take a capability away"},
      {"ulimit", '\0', "TYPE=SOFT[:HARD]", "Set a resource limit"},
      {"sysctl", '\0', "KEY=VALUE", "Set a kernel parameter"},
      {"group-add", '\0', "GROUP", "Add a supplementary group"},
      {"pids-limit", '\0', "NUMBER", "Limit the number of processes"},
      {"shm-size", '\0', "SIZE", "Size of /dev/shm"},
      {"dns", '\0', "IP", "Name server"},
      {"dns-domain", '\0', "NAME", "Domain of the container"},
      {"dns-option", '\0', "OPTION", "Option of resolv.conf"},
      {"dns-search", '\0', "DOMAIN", "Search domain"},
      {"add-host", '\0', "NAME:IP", "Add a line to /etc/hosts"},
      {"restart", '\0', "POLICY", "no, on-failure[:N], always, unless-stopped"},
      {"stop-signal", '\0', "SIGNAL", "Signal that stops it"},
      {"stop-timeout", '\0', "SECONDS", "How long a stop waits before it kills"},
      {"health-cmd", '\0', "COMMAND", "Check health by this shell command"},
      {"health-interval", '\0', "DURATION", "Time between checks"},
      {"health-timeout", '\0', "DURATION", "How long one check may take"},
      {"health-start-period", '\0', "DURATION", "Failures before this do not count"},
      {"health-start-interval", '\0', "DURATION", "Time between checks until then"},
      {"health-retries", '\0', "NUMBER", "Failures in a row that make it unhealthy"},
      {"no-healthcheck", '\0', "", "Drop the image's health check"},
      {"platform", '\0', "OS/ARCH", "Platform of the image; wins over --os and --arch"},
      {"arch", 'a', "ARCH", "Architecture of the image"},
      {"os", '\0', "OS", "Operating system of the image"},
      {"boot", '\0', "clone|cold", "How its VM comes to life"},
      {"cidfile", '\0', "FILE", "Write the ID to a file"},
      {"rm", '\0', "", "Remove it once it has ended", "remove"},
  };
}

Result<std::vector<std::string>> read_environment(const Parsed& parsed,
                                                  const Surroundings& surroundings) {
  std::vector<std::string> pairs;
  const auto add = [&](const std::string& key, const std::optional<std::string>& value) {
    const auto inherited = surroundings.environment.find(key);
    if (value)
      pairs.push_back(key + "=" + *value);
    else if (inherited != surroundings.environment.end())
      pairs.push_back(key + "=" + inherited->second);
  };
  for (const std::string& file : parsed.all("env-file")) {
    const std::string text =
        TRY_DURING(surroundings.read_file(absolute(surroundings, file)), "--env-file");
    const spec::Dotenv dotenv = spec::parse_raw_env(text);
    for (const spec::DotenvProblem& problem : dotenv.problems)
      if (problem.is_error)
        return base::fail(ErrorCode::InvalidArgument, "--env-file {}:{}: {}", file, problem.line,
                          problem.text);
    for (const spec::DotenvEntry& entry : dotenv.entries) add(entry.key, entry.value);
  }
  for (const std::string& text : parsed.all("env")) {
    const auto [key, value] = key_value(text);
    if (key.empty())
      return base::fail(ErrorCode::InvalidArgument, "--env '{}': a variable needs a name",
                        base::escape_controls(text));
    add(key, value);
  }
  return pairs;
}

Result<std::optional<std::string>> read_user(const Parsed& parsed) {
  const auto number = [&](std::string_view flag) -> Result<std::string> {
    const std::string text = parsed.value(flag).value_or("0");
    if (text.empty() || text.size() > 10 ||
        text.find_first_not_of("0123456789") != std::string::npos)
      return base::fail(ErrorCode::InvalidArgument, "--{} '{}': a number is needed", flag,
                        base::escape_controls(text));
    return text;
  };
  if (parsed.has("user") && (parsed.has("uid") || parsed.has("gid")))
    return base::fail(ErrorCode::InvalidArgument, "--user already says what --uid and --gid say");
  if (parsed.has("user")) return parsed.value("user");
  if (!parsed.has("uid") && !parsed.has("gid")) return std::nullopt;
  const std::string uid = TRY(number("uid"));
  if (!parsed.has("gid")) return uid;
  return uid + ":" + TRY(number("gid"));
}

Result<RunOptions> read_run_options(const Parsed& parsed, const Surroundings& surroundings) {
  RunOptions options;
  options.id = parsed.value("name").value_or(base::random_uuid());
  options.auto_remove = parsed.has("rm");
  TRY_DURING(base::check_name("container", options.id), "--name");
  json document = {{"services", {{options.id, json::object()}}}};
  json& service = document["services"][options.id];
  add_straight(parsed, service);
  TRY(add_platform(parsed, surroundings, service, options.warnings));
  TRY(add_process(parsed, surroundings, service));
  TRY(add_ulimits(parsed, service));
  add_healthcheck(parsed, service);
  TRY(add_mounts(parsed, surroundings, options.id, document));
  TRY(add_networks(parsed, options.id, document));
  options.stack = TRY(load_document(document, options.id, surroundings));
  return options;
}

Result<int> signal_number(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size() && number > 0 && number <= SIGRTMAX)
    return number;
  std::string name(text);
  std::transform(name.begin(), name.end(), name.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  if (name.starts_with("SIG")) name.erase(0, 3);
  for (int candidate = 1; candidate < NSIG; ++candidate)
    if (const char* known = ::sigabbrev_np(candidate); known != nullptr && name == known)
      return candidate;
  return base::fail(ErrorCode::InvalidArgument, "unknown signal '{}'; TERM, SIGTERM and 15 work",
                    base::escape_controls(text));
}

}  // namespace cli
