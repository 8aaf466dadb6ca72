#include "cli/build_options.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "api/wire.h"
#include "base/base64.h"
#include "base/fd.h"
#include "base/fields.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/repository.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/registry_settings.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

template <class... Args>
tl::unexpected<base::Error> wrong(fmt::format_string<Args...> format, Args&&... args) {
  return base::fail(ErrorCode::InvalidArgument, format, std::forward<Args>(args)...);
}

std::optional<std::string> variable(const Context& context, const std::string& name) {
  const auto found = context.surroundings.environment.find(name);
  if (found == context.surroundings.environment.end()) return std::nullopt;
  return found->second;
}

Result<std::string> read_stdin(uint64_t bytes_max) {
  std::string text;
  std::string buffer(64u << 10, '\0');
  while (const size_t count = TRY(base::read_some(STDIN_FILENO, buffer))) {
    text.append(buffer, 0, count);
    if (text.size() > bytes_max)
      return wrong("what stdin gives is larger than {} bytes", bytes_max);
  }
  return text;
}

/// `K=V` of a flag; `K` alone takes the environment's value, and is left out where it has none.
Result<json> pairs_of(const Context& context, const Parsed& parsed, const char* flag,
                      bool from_environment) {
  json pairs = json::object();
  for (const std::string& text : parsed.all(flag)) {
    const size_t equals = text.find('=');
    const std::string name = text.substr(0, equals);
    if (name.empty()) return wrong("--{} '{}': write it as NAME=VALUE", flag, text);
    if (equals != std::string::npos)
      pairs[name] = text.substr(equals + 1);
    else if (const auto value = from_environment ? variable(context, name) : std::string())
      pairs[name] = *value;
  }
  return pairs;
}

// ---- what to build -----------------------------------------------------------------------------

Result<json> context_of(const Context& context, const std::string& text) {
  if (text == "-") return json{{"tar", true}};
  if (const std::string git = base::repository_context(text); !git.empty())
    return json{{"git", git}};
  if (text.find("://") != std::string::npos)
    return wrong(
        "'{}' is no repository; download the archive and pipe it in: … | container build -",
        base::escape_controls(text));
  const std::string path = absolute_path(context, text);
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0)
    return base::fail_errno(errno,
                            fmt::format("open the context '{}'", base::escape_controls(text)));
  if (!S_ISDIR(status.st_mode))
    return wrong("the context '{}' is no folder; the Dockerfile is named with --file",
                 base::escape_controls(text));
  return json{{"folder", path}};
}

/// The ignore file of a Dockerfile that lies outside of its context; not through links.
Result<> add_ignore_of(const std::string& path, json& request) {
  struct stat status {};
  const std::string ignore = path + ".dockerignore";
  if (::lstat(ignore.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return {};
  request["ignore"] = TRY(base::read_file(ignore, base::limits::dockerfile_bytes_max));
  return {};
}

Result<> add_dockerfile(const Context& context, const std::string& file, json& request) {
  if (file == "-") {
    if (request["context"].contains("tar"))
      return wrong("stdin cannot give both the Dockerfile and the context");
    request["dockerfile"] = TRY(read_stdin(base::limits::dockerfile_bytes_max));
    return {};
  }
  const auto folder = request["context"].find("folder");
  if (folder == request["context"].end()) {  // of the archive or repository
    request["dockerfile_path"] = file;
    return {};
  }
  const std::string path = absolute_path(context, file);
  const std::string root = folder->get<std::string>();
  const std::string prefix = root == "/" ? root : root + "/";
  if (path.starts_with(prefix)) {
    request["dockerfile_path"] = path.substr(prefix.size());
    return {};
  }
  request["dockerfile"] = TRY(base::read_file(path, base::limits::dockerfile_bytes_max));
  request["dockerfile_path"] = file;
  return add_ignore_of(path, request);
}

Result<> add_named_contexts(const Context& context, const Parsed& parsed, json& request) {
  json contexts = json::object();
  for (const std::string& text : parsed.all("build-context")) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
      return wrong("--build-context '{}': write it as NAME=FOLDER", base::escape_controls(text));
    const std::string place = text.substr(equals + 1);
    const bool is_address = place.find("://") != std::string::npos || base::is_repository(place);
    contexts[text.substr(0, equals)] = is_address ? place : absolute_path(context, place);
  }
  if (!contexts.empty()) request["contexts"] = std::move(contexts);
  return {};
}

// ---- for which machines ------------------------------------------------------------------------

std::vector<std::string> platforms_of(const Context& context, const Parsed& parsed) {
  std::vector<std::string> platforms;
  const auto add = [&](const std::string& list, const auto& make) {
    for (const std::string& one : base::split(list, ','))
      if (!one.empty()) platforms.push_back(make(one));
  };
  for (const std::string& list : parsed.all("platform"))
    add(list, [](const std::string& one) { return one; });
  if (!platforms.empty()) return platforms;
  for (const std::string& list : parsed.all("arch"))
    add(list, [&](const std::string& one) { return "linux/" + one; });
  if (const auto usual = variable(context, "CONTAINER_DEFAULT_PLATFORM");
      platforms.empty() && usual && !usual->empty())
    platforms.push_back(*usual);
  return platforms;
}

Result<> add_machine(const Parsed& parsed, json& request) {
  if (const auto text = parsed.value("cpus")) {
    double cpus = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), cpus);
    if (error != std::errc() || end != text->data() + text->size() || !(cpus > 0))
      return wrong("--cpus '{}': write a number such as 2", base::escape_controls(*text));
    request["cpus"] = cpus;
  }
  if (const auto text = parsed.value("memory"))
    request["memory_bytes"] = TRY_DURING(base::parse_bytes(*text), "--memory");
  if (const auto text = parsed.value("shm-size"))
    request["shm_bytes"] = TRY_DURING(base::parse_bytes(*text), "--shm-size");
  for (const auto& [flag, key] : {std::pair{"dns", "dns"}, std::pair{"dns-search", "dns_search"},
                                  std::pair{"dns-option", "dns_options"}})
    if (parsed.has(flag)) request[key] = parsed.all(flag);
  if (const auto domain = parsed.value("dns-domain")) request["dns_domain"] = *domain;
  return {};
}

// ---- what steps are given ----------------------------------------------------------------------

Result<json> secret_of(const Context& context, const std::string& text) {
  std::map<std::string, std::string> fields = base::comma_fields(text);
  std::string id = fields["id"];
  for (const auto& [key, value] : fields)
    if (key != "id" && key != "env" && key != "src" && key != "source" && key != "type")
      return wrong("--secret '{}': '{}' is not known; write id=NAME,src=FILE or id=NAME,env=NAME",
                   base::escape_controls(text), base::escape_controls(key));
  const std::string type = fields["type"];
  if (!type.empty() && type != "file" && type != "env")
    return wrong("--secret '{}': the type is file or env", base::escape_controls(text));
  std::string path = fields.contains("src") ? fields["src"] : fields["source"];
  if (type == "env" && !path.empty()) fields["env"] = std::exchange(path, {});
  if (id.empty() && !path.empty()) id = std::filesystem::path(path).filename();
  if (id.empty()) return wrong("--secret needs an id; write id=NAME,src=FILE or id=NAME,env=NAME");
  std::string bytes;
  if (!path.empty()) {
    bytes = TRY_DURING(base::read_file(absolute_path(context, path), api::build_secret_bytes_max),
                       "--secret id={}", id);
  } else {
    const std::string name = fields["env"].empty() ? id : fields["env"];
    const auto value = variable(context, name);
    if (!value)
      return base::fail(ErrorCode::NotFound,
                        "--secret id={}: the environment has no {}; set it, or name a file with "
                        "src=",
                        base::escape_controls(id), base::escape_controls(name));
    bytes = *value;
  }
  return json{{"id", id}, {"data", base::encode_base64(bytes)}};
}

/// Of a stack's file. Its places are the project's, and so is the environment.
Result<json> stack_secret(const spec::BuildSecret& secret) {
  json made = {{"id", secret.id}};
  if (secret.variable.empty()) {
    made["data"] =
        base::encode_base64(TRY(base::read_file(secret.file, api::build_secret_bytes_max)));
  } else if (secret.value) {
    made["data"] = base::encode_base64(*secret.value);
  } else {
    return base::fail(ErrorCode::NotFound,
                      "neither the environment nor an env file has {}; set it, or name a file",
                      base::escape_controls(secret.variable));
  }
  if (secret.mode) made["mode"] = *secret.mode;
  if (secret.user) made["uid"] = *secret.user;
  if (secret.group) made["gid"] = *secret.group;
  return made;
}

Result<json> stack_secrets(const StackFiles& files, const std::string& service) {
  json secrets = json::array();
  if (const auto found = files.build_secrets.find(service); found != files.build_secrets.end())
    for (const spec::BuildSecret& secret : found->second)
      secrets.push_back(TRY_DURING(stack_secret(secret), "service '{}': secret '{}'", service,
                                   base::escape_controls(secret.id)));
  return secrets;
}

Result<json> agents_of(const Context& context, const std::vector<std::string>& texts) {
  json agents = json::object();
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    const std::string id = text.substr(0, equals);
    const auto usual = variable(context, "SSH_AUTH_SOCK");
    if (equals == std::string::npos && (!usual || usual->empty()))
      return base::fail(ErrorCode::NotFound,
                        "--ssh {}: SSH_AUTH_SOCK is not set; start an agent, or write {}=SOCKET",
                        base::escape_controls(id), base::escape_controls(id));
    agents[id] =
        absolute_path(context, equals == std::string::npos ? *usual : text.substr(equals + 1));
  }
  return agents;
}

/// Folders of `--cache-from` and `--cache-to` start where we are.
std::vector<std::string> cache_places(const Context& context, const std::vector<std::string>& texts,
                                      const std::string& key) {
  std::vector<std::string> places;
  for (const std::string& text : texts) {
    std::vector<std::string> pieces = base::split(text, ',');
    for (std::string& piece : pieces)
      if (piece.starts_with(key + "="))
        piece = key + "=" + absolute_path(context, piece.substr(key.size() + 1));
    places.push_back(base::join(pieces, ","));
  }
  return places;
}

Result<> add_epoch(const Context& context, json& request) {
  std::optional<std::string> text = variable(context, "SOURCE_DATE_EPOCH");
  const json& arguments = request["arguments"];
  if (const auto given = arguments.find("SOURCE_DATE_EPOCH"); given != arguments.end())
    text = given->get<std::string>();
  if (!text || text->empty()) return {};
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
  if (error != std::errc() || end != text->data() + text->size() || seconds < 0)
    return wrong("SOURCE_DATE_EPOCH '{}' is no number of seconds since 1970",
                 base::escape_controls(*text));
  request["source_date_epoch"] = seconds;
  return {};
}

std::string output_name(OutputKind kind) {
  switch (kind) {
    case OutputKind::Image: return "image";
    case OutputKind::Oci: return "oci";
    case OutputKind::Tar: return "tar";
    case OutputKind::Local: return "local";
  }
  return "image";
}

/// As `run` will look for them.
std::vector<std::string> named_here(const std::vector<std::string>& tags,
                                    const RegistryConfig& config) {
  std::vector<std::string> names;
  for (const std::string& tag : tags) names.push_back(with_registry(tag, config));
  return names;
}

Result<> add_output(const Parsed& parsed, const RegistryConfig& config, BuildOptions& options) {
  if (const auto text = parsed.value("output")) options.output = TRY(parse_output(*text));
  const OutputKind kind = options.output.kind;
  if (kind == OutputKind::Local && options.output.destination.empty())
    return wrong("--output type=local needs dest=FOLDER");
  options.tags = parsed.all("tag");
  const bool is_image = kind == OutputKind::Image || kind == OutputKind::Oci;
  if (options.tags.empty() && is_image && !parsed.has("check"))
    options.tags = {base::random_uuid()};
  options.request["tags"] = named_here(options.tags, config);
  options.request["output"] = output_name(kind);
  return {};
}

/// Access to registries is asked for when the build turns out to need one.
void add_registries(const RegistryConfig& config, json& request) {
  request["access"] = "ask";
  if (config.domain != "docker.io") request["registry"] = config.domain;
}

}  // namespace

std::vector<Flag> build_flags() {
  return {
      {"arch", 'a', "ARCH", "Build for this architecture; repeat, or a list with commas"},
      {"build-arg", '\0', "NAME=VALUE", "Value of an ARG"},
      {"build-context", '\0', "NAME=PLACE",
       "A further context, for FROM and --from: a folder, docker-image://NAME, a git repository"},
      {"cache-from", '\0', "PLACE",
       "Use this cache: type=local,src=FOLDER or type=registry,ref=NAME", "cache-in"},
      {"cache-to", '\0', "PLACE",
       "Keep the cache there: type=local,dest=FOLDER or type=registry,ref=NAME", "cache-out"},
      {"check", '\0', "", "Check the Dockerfile only"},
      {"cpus", 'c', "NUMBER", "Processors of the build's machine (2)"},
      {"dns", '\0', "IP", "Name server"},
      {"dns-domain", '\0', "NAME", "Domain of the machine"},
      {"dns-option", '\0', "OPTION", "Option of resolv.conf"},
      {"dns-search", '\0', "DOMAIN", "Search domain"},
      {"add-host", '\0', "NAME=IP", "A line of /etc/hosts"},
      {"file", 'f', "FILE", "The Dockerfile; -: stdin (Dockerfile, then Containerfile)"},
      {"label", 'l', "NAME=VALUE", "A label of the image"},
      downloads_flag(),
      {"memory", 'm', "SIZE", "Memory of the build's machine (2048M)"},
      {"network", '\0', "default|none", "none: steps have no network"},
      {"no-cache", '\0', "", "Do every step again"},
      {"no-cache-filter", '\0', "STAGE[,…]", "Do the steps of these stages again"},
      {"os", '\0', "OS", "Operating system: linux"},
      {"output", 'o', "PLACE", "type=oci|tar|local|image[,dest=PATH]; default: the image store"},
      {"platform", '\0', "OS/ARCH", "Build for this platform; wins over --os and --arch"},
      {"privileged", '\0', "", "Steps may do everything inside their machine"},
      {"progress", '\0', "auto|plain|tty|json", "How to show what happens"},
      {"pull", '\0', "", "Ask registries for newer images, also where there is one here"},
      {"quiet", 'q', "", "Print the image's digest only"},
      registry_flags().front(),
      {"secret", '\0', "id=NAME[,env=NAME|,src=FILE]", "A secret for RUN --mount=type=secret"},
      {"shm-size", '\0', "SIZE", "Size of /dev/shm"},
      {"ssh", '\0', "ID[=SOCKET]", "An agent for RUN --mount=type=ssh: default"},
      {"tag", 't', "NAME", "Name of the image; repeat (a random one, printed)"},
      {"target", '\0', "STAGE", "Build up to this stage"},
      {"vsock-port", '\0', "PORT", "Accepted for older scripts; builds have no port"},
  };
}

Result<OutputPlace> parse_output(const std::string& text) {
  if (text == "-") return OutputPlace{.kind = OutputKind::Tar, .destination = {}};
  if (text.find('=') == std::string::npos)
    return OutputPlace{.kind = OutputKind::Local, .destination = text};
  std::map<std::string, std::string> fields = base::comma_fields(text);
  OutputPlace output;
  output.destination = fields.contains("dest") ? fields["dest"] : fields["destination"];
  const std::string type = fields["type"];
  for (const auto& [key, value] : fields)
    if (key != "type" && key != "dest" && key != "destination")
      return wrong("--output: '{}' is not known; write type=…,dest=…", base::escape_controls(key));
  if (type == "oci")
    output.kind = output.destination.empty() ? OutputKind::Image : OutputKind::Oci;
  else if (type == "tar")
    output.kind = OutputKind::Tar;
  else if (type == "local")
    output.kind = OutputKind::Local;
  else if (type != "image")
    return wrong("--output: there is no type '{}'; use oci, tar, local or image",
                 base::escape_controls(type));
  return output;
}

Result<BuildOptions> read_build_options(const Context& context, const Parsed& parsed) {
  BuildOptions options;
  json& request = options.request;
  const std::string place = parsed.arguments.empty() ? "." : parsed.arguments.front();
  request["context"] = TRY(context_of(context, place));
  options.context_from_stdin = place == "-";
  if (const auto file = parsed.value("file")) TRY(add_dockerfile(context, *file, request));
  TRY(add_named_contexts(context, parsed, request));
  request["arguments"] = TRY(pairs_of(context, parsed, "build-arg", true));
  request["labels"] = TRY(pairs_of(context, parsed, "label", false));
  request["target"] = parsed.value("target").value_or("");
  if (const std::string os = parsed.value("os").value_or("linux"); os != "linux")
    return wrong("--os '{}': images are built for linux", base::escape_controls(os));
  request["platforms"] = platforms_of(context, parsed);
  request["no_cache"] = parsed.has("no-cache");
  request["no_cache_stages"] = json::array();
  for (const std::string& list : parsed.all("no-cache-filter"))
    for (const std::string& stage : base::split(list, ','))
      request["no_cache_stages"].push_back(stage);
  request["pull"] = parsed.has("pull");
  request["privileged"] = parsed.has("privileged");
  request["check"] = parsed.has("check");
  request["network"] = parsed.value("network") != "none";
  request["extra_hosts"] = parsed.all("add-host");
  request["cache_from"] = cache_places(context, parsed.all("cache-from"), "src");
  request["cache_to"] = cache_places(context, parsed.all("cache-to"), "dest");
  request["ssh"] = TRY(agents_of(context, parsed.all("ssh")));
  json secrets = json::array();
  for (const std::string& text : parsed.all("secret"))
    secrets.push_back(TRY(secret_of(context, text)));
  request["secrets"] = std::move(secrets);
  const RegistryConfig config = TRY(read_registry_config(context.surroundings));
  add_registries(config, request);
  TRY(add_machine(parsed, request));
  TRY(add_epoch(context, request));
  TRY(add_output(parsed, config, options));
  return options;
}

// ---- stacks ------------------------------------------------------------------------------------

namespace {

/// `service:x` is the image that x has; it was made here, and no registry knows it.
void add_stack_contexts(const spec::Stack& stack, const spec::Build& build, json& request) {
  json contexts = json::object();
  json made_here = json::array();
  for (const auto& [name, place] : build.additional_contexts) {
    const std::string prefix = "service:";
    const auto other = stack.services.find(place.starts_with(prefix) ? place.substr(prefix.size())
                                                                     : std::string());
    contexts[name] =
        other == stack.services.end() ? place : "docker-image://" + other->second.image;
    if (other != stack.services.end()) made_here.push_back(other->second.image);
  }
  request["local_images"] = std::move(made_here);
  request["contexts"] = std::move(contexts);
}

}  // namespace

Result<json> stack_build_request(const Context& context, const StackFiles& files,
                                 const std::string& service) {
  const spec::Stack& stack = *files.stack;
  const spec::Build& build = stack.builds.at(service);
  const spec::Service& owner = stack.services.at(service);
  json request;
  request["context"] = TRY_DURING(context_of(context, build.context), "service '{}'", service);
  if (build.dockerfile_inline)
    request["dockerfile"] = *build.dockerfile_inline;
  else if (!build.dockerfile.empty() && build.dockerfile.starts_with('/'))
    TRY(add_dockerfile(context, build.dockerfile, request));
  else if (!build.dockerfile.empty())
    request["dockerfile_path"] = build.dockerfile;
  add_stack_contexts(stack, build, request);
  std::vector<std::string> tags{owner.image};
  tags.insert(tags.end(), build.tags.begin(), build.tags.end());
  const RegistryConfig config = TRY(read_registry_config(context.surroundings));
  request["tags"] = named_here(tags, config);
  request["arguments"] = build.args;
  request["labels"] = build.labels;
  request["target"] = build.target;
  request["platforms"] = !build.platforms.empty() ? build.platforms
                         : owner.platform         ? std::vector<std::string>{*owner.platform}
                                                  : std::vector<std::string>{};
  request["no_cache"] = build.no_cache;
  request["no_cache_stages"] = build.no_cache_filter;
  request["pull"] = build.pull;
  request["privileged"] = build.privileged;
  request["network"] = build.network != "none";
  request["extra_hosts"] = build.extra_hosts;
  request["cache_from"] = cache_places(context, build.cache_from, "src");
  request["cache_to"] = cache_places(context, build.cache_to, "dest");
  request["ssh"] = TRY_DURING(agents_of(context, build.ssh), "service '{}'", service);
  request["secrets"] = TRY(stack_secrets(files, service));
  if (build.shm_bytes) request["shm_bytes"] = *build.shm_bytes;
  for (const auto& [name, limit] : build.ulimits)
    request["ulimits"][name] = {{"soft", limit.soft}, {"hard", limit.hard}};
  add_registries(config, request);
  TRY(add_epoch(context, request));
  return request;
}

}  // namespace cli
