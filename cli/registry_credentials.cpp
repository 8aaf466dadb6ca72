/// Credentials in the form of docker's config.json, and the helpers that keep them elsewhere.
/// Secrets travel through pipes and files of mode 0600, never in arguments.

#include <algorithm>
#include <csignal>
#include <map>

#include <poll.h>
#include <sys/wait.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/deadline.h"
#include "base/file.h"
#include "base/json.h"
#include "base/process.h"
#include "base/text.h"
#include "cli/registry_files.h"
#include "cli/registry_settings.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;

constexpr const char* docker_server = "https://index.docker.io/v1/";
constexpr std::string_view letters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// As other tools write it: with or without padding, perhaps in lines.
std::optional<std::string> base64_decode(std::string_view text) {
  std::string bytes;
  uint32_t group = 0;
  int bits = 0;
  for (const char c : text) {
    if (c == '=' || c == '\n' || c == '\r') continue;
    const size_t value = letters.find(c);
    if (value == std::string_view::npos) return std::nullopt;
    group = group << 6 | static_cast<uint32_t>(value);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(group >> bits & 0xFF);
  }
  return bytes;
}

// ---- files -------------------------------------------------------------------------------------

std::string own_file(const Surroundings& surroundings) {
  const std::string docker = environment_value(surroundings, "DOCKER_CONFIG");
  return docker.empty() ? config_folder(surroundings) + "/auth.json" : docker + "/config.json";
}

/// Ours first.
std::vector<std::string> files(const Surroundings& surroundings) {
  std::vector<std::string> all{own_file(surroundings)};
  if (environment_value(surroundings, "DOCKER_CONFIG").empty())
    all.push_back(surroundings.home_directory + "/.docker/config.json");
  return all;
}

Result<json> read_auth_file(const std::string& path) {
  if (!base::path_exists(path)) return json::object();
  const std::string text = TRY(base::read_file(path, registry_settings_bytes_max));
  Result<json> document = base::parse_json(text);
  // Not the parser's words: they may quote what stands there.
  if (!document || !document->is_object())
    return fail(ErrorCode::InvalidArgument, "'{}' is no JSON object; mend it or move it away",
                path);
  return document;
}

const json* member(const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() || !found->is_object() ? nullptr : &*found;
}

/// The entry of `host` under any of the names tools give it.
const json* entry_of(const json& document, const std::string& host) {
  const json* entries = member(document, "auths");
  if (entries == nullptr) return nullptr;
  for (const auto& [key, entry] : entries->items())
    if (entry.is_object() && canonical_registry(key) == host) return &entry;
  return nullptr;
}

std::string helper_of(const json& document, const std::string& host) {
  if (const json* helpers = member(document, "credHelpers"))
    for (const auto& [key, name] : helpers->items())
      if (name.is_string() && canonical_registry(key) == host) return name.get<std::string>();
  return base::json_string_or(document, "credsStore", "");
}

/// null if the entry holds no secret.
json credential_of(const json& entry) {
  std::string username = base::json_string_or(entry, "username", "");
  std::string password = base::json_string_or(entry, "password", "");
  if (const auto pair = base64_decode(base::json_string_or(entry, "auth", ""))) {
    const size_t colon = pair->find(':');
    if (colon != std::string::npos) {
      username = pair->substr(0, colon);
      password = pair->substr(colon + 1);
      while (password.ends_with('\0')) password.pop_back();
    }
  }
  const std::string identity = base::json_string_or(entry, "identitytoken", "");
  const std::string bearer = base::json_string_or(entry, "registrytoken", "");
  if (password.empty() && identity.empty() && bearer.empty()) return nullptr;
  return {{"username", username},
          {"password", password},
          {"identity_token", identity},
          {"registry_token", bearer}};
}

// ---- helpers -----------------------------------------------------------------------------------

Result<std::string> find_helper(const Surroundings& surroundings, const std::string& name) {
  if (name.find('/') != std::string::npos)
    return fail(ErrorCode::InvalidArgument, "'{}' is no name of a credential helper", name);
  const std::string program = "docker-credential-" + name;
  for (const std::string& folder : base::split(environment_value(surroundings, "PATH"), ':'))
    if (folder.starts_with("/") && base::path_exists(folder + "/" + program))
      return folder + "/" + program;
  return fail(ErrorCode::NotFound,
              "the credential helper '{}' is not in PATH; install it, or take it out of the file "
              "that names it",
              program);
}

struct Told {
  int exit_code = 0;
  std::string output;
};

Result<std::string> read_until(int fd, const base::Deadline& deadline) {
  std::string text;
  char buffer[4096];
  for (;;) {
    pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&waiting, 1, deadline.remaining_ms());
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return fail(ErrorCode::Timeout, "the credential helper does not answer");
    const size_t count = TRY(base::read_some(fd, buffer));
    if (count == 0) return text;
    text.append(buffer, count);
    if (text.size() > registry_settings_bytes_max)
      return fail(ErrorCode::InvalidArgument, "the credential helper says too much");
  }
}

Result<Told> ask_helper(const Surroundings& surroundings, const std::string& name,
                        const std::string& verb, const std::string& input) {
  const std::string program = TRY(find_helper(surroundings, name));
  base::Pipe in = TRY(base::make_pipe());
  base::Pipe out = TRY(base::make_pipe());
  base::SpawnOptions options;
  options.arguments = {program, verb};
  for (const auto& [key, value] : surroundings.environment)
    options.environment.push_back(key + "=" + value);
  options.descriptors = {{in.reader.get(), 0}, {out.writer.get(), 1}, {2, 2}};
  options.new_session = false;  // it may want to ask the user
  const base::ProcessIdentity process = TRY(base::spawn(options));
  in.reader.reset();
  out.writer.reset();
  (void)base::write_all(in.writer.get(), input);  // one that does not read has its own words
  in.writer.reset();
  const base::Deadline deadline = base::Deadline::in_ms(credential_helper_timeout_ms);
  Result<std::string> output = read_until(out.reader.get(), deadline);
  const base::UniqueFd watched = TRY(base::open_process(process));
  if (!output) (void)base::signal_process(watched.get(), SIGKILL);
  const auto status = TRY(base::await_process(watched.get(), process.pid, deadline));
  const std::string text = TRY(std::move(output));
  const bool success = status && WIFEXITED(*status) && WEXITSTATUS(*status) == 0;
  return Told{.exit_code = success ? 0 : 1, .output = text};
}

std::string server_of(const std::string& host) {
  return host == "docker.io" ? std::string(docker_server) : host;
}

Result<json> ask_for_credential(const Surroundings& surroundings, const std::string& helper,
                                const std::string& host) {
  const Told told = TRY(ask_helper(surroundings, helper, "get", server_of(host)));
  if (told.exit_code != 0) {
    if (told.output.find("credentials not found") != std::string::npos) return json();
    return fail(ErrorCode::Denied, "docker-credential-{}: {}", helper,
                base::escape_controls(told.output.substr(0, told.output.find('\n'))));
  }
  const Result<json> answer = base::parse_json(told.output);
  if (!answer || !answer->is_object())
    return fail(ErrorCode::Io, "docker-credential-{} did not answer with JSON", helper);
  const std::string username = base::json_string_or(*answer, "Username", "");
  const std::string secret = base::json_string_or(*answer, "Secret", "");
  if (secret.empty()) return json();
  // By its convention, the name of what is no password.
  if (username == "<token>") return json{{"identity_token", secret}};
  return json{{"username", username}, {"password", secret}};
}

Result<> write_auth_file(const std::string& path, const json& document) {
  TRY(base::make_directories(path.substr(0, path.rfind('/'))));
  return base::write_file_atomically(path, base::dump_json_pretty(document) + "\n", 0600);
}

}  // namespace

Result<json> find_credential(const Surroundings& surroundings, const std::string& host) {
  const std::string chosen = environment_value(surroundings, "CONTAINER_REGISTRY_HOST");
  if (!chosen.empty() && canonical_registry(chosen) == host) {
    const std::string token = environment_value(surroundings, "CONTAINER_REGISTRY_TOKEN");
    if (token.empty())
      return fail(ErrorCode::InvalidArgument,
                  "CONTAINER_REGISTRY_HOST is set and CONTAINER_REGISTRY_TOKEN is not");
    return json{{"username", environment_value(surroundings, "CONTAINER_REGISTRY_USER")},
                {"password", token}};
  }
  for (const std::string& path : files(surroundings)) {
    const json document = TRY(read_auth_file(path));
    if (const json* entry = entry_of(document, host))
      if (json found = credential_of(*entry); !found.is_null()) return found;
    if (const std::string helper = helper_of(document, host); !helper.empty())
      if (json found = TRY(ask_for_credential(surroundings, helper, host)); !found.is_null())
        return found;
  }
  return json();
}

Result<std::vector<LoginRecord>> list_logins(const Surroundings& surroundings) {
  std::map<std::string, LoginRecord> records;
  for (const std::string& path : files(surroundings)) {
    const json document = TRY(read_auth_file(path));
    if (const json* entries = member(document, "auths"))
      for (const auto& [key, entry] : entries->items()) {
        if (!entry.is_object()) continue;
        const std::string host = canonical_registry(key);
        const json credential = credential_of(entry);
        records.try_emplace(
            host, LoginRecord{.host = host,
                              .username = base::json_string_or(
                                  credential.is_null() ? entry : credential, "username", ""),
                              .modified = base::json_string_or(entry, "modified", ""),
                              .created = base::json_string_or(entry, "created", "")});
      }
    const std::string helper = base::json_string_or(document, "credsStore", "");
    if (helper.empty()) continue;
    const Told told = TRY(ask_helper(surroundings, helper, "list", ""));
    const Result<json> answer = base::parse_json(told.output);
    if (told.exit_code != 0 || !answer || !answer->is_object()) continue;
    for (const auto& [server, name] : answer->items())
      if (name.is_string())
        records.try_emplace(canonical_registry(server),
                            LoginRecord{.host = canonical_registry(server),
                                        .username = name.get<std::string>(),
                                        .modified = {},
                                        .created = {}});
  }
  std::vector<LoginRecord> list;
  for (auto& [host, record] : records) list.push_back(std::move(record));
  return list;
}

Result<> store_login(const Surroundings& surroundings, const std::string& host,
                     const std::string& username, const std::string& password) {
  const std::string path = own_file(surroundings);
  json document = TRY(read_auth_file(path));
  const std::string now = base::format_wall_time(base::wall_time_ns());
  std::string created = now;
  if (const json* former = entry_of(document, host))
    created = base::json_string_or(*former, "created", now);
  json entry = {{"created", created}, {"modified", now}};
  if (const std::string helper = helper_of(document, host); !helper.empty()) {
    const json secret = {
        {"ServerURL", server_of(host)}, {"Username", username}, {"Secret", password}};
    const Told told = TRY(ask_helper(surroundings, helper, "store", base::dump_json(secret)));
    if (told.exit_code != 0)
      return fail(ErrorCode::Io, "docker-credential-{} does not store it: {}", helper,
                  base::escape_controls(told.output.substr(0, told.output.find('\n'))));
    entry["username"] = username;
  } else {
    entry["auth"] = base::encode_base64(username + ":" + password);
  }
  if (member(document, "auths") == nullptr) document["auths"] = json::object();
  json& entries = document["auths"];
  for (auto at = entries.begin(); at != entries.end();)
    at = canonical_registry(at.key()) == host ? entries.erase(at) : std::next(at);
  entries[server_of(host)] = std::move(entry);
  return write_auth_file(path, document);
}

Result<> erase_login(const Surroundings& surroundings, const std::string& host) {
  const std::string path = own_file(surroundings);
  json document = TRY(read_auth_file(path));
  bool found = false;
  if (const json* entries = member(document, "auths"); entries != nullptr) {
    json kept = json::object();
    for (const auto& [key, entry] : entries->items())
      if (canonical_registry(key) != host) kept[key] = entry;
    found = kept.size() != entries->size();
    document["auths"] = std::move(kept);
  }
  if (const std::string helper = helper_of(document, host); !helper.empty()) {
    const Told told = TRY(ask_helper(surroundings, helper, "erase", server_of(host)));
    // Helpers say this, in these words, of what they do not have.
    const bool unknown = told.output.find("credentials not found") != std::string::npos;
    if (told.exit_code != 0 && !unknown)
      return fail(ErrorCode::Io, "docker-credential-{} does not forget it: {}", helper,
                  base::escape_controls(told.output.substr(0, told.output.find('\n'))));
    found = found || told.exit_code == 0;
  }
  if (found) return write_auth_file(path, document);
  for (const std::string& other : files(surroundings))
    if (other != path && entry_of(TRY(read_auth_file(other)), host) != nullptr)
      return fail(ErrorCode::NotFound,
                  "the login of '{}' is in '{}', which another tool wrote; log out with that tool",
                  host, other);
  return fail(ErrorCode::NotFound, "no login of '{}' is known", host);
}

}  // namespace cli
