#include "builder/image_config.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <utility>

#include "base/json.h"
#include "base/lower_case.h"
#include "base/text.h"
#include "base/units.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

/// Of a document that came with the base and says nothing about the image we make.
constexpr const char* leftovers[] = {"container", "container_config", "docker_version", "id",
                                     "parent",    "os.version",       "throwaway"};

/// `path` of the image, absolute, without `.` and `..`.
std::string clean_path(const std::string& folder, const std::string& path) {
  const std::string joined = path.starts_with('/') ? path : folder + "/" + path;
  std::string clean = std::filesystem::path(joined).lexically_normal().string();
  while (clean.size() > 1 && clean.ends_with('/')) clean.pop_back();
  while (clean.starts_with("//")) clean.erase(0, 1);
  return clean;
}

Result<uint16_t> port_number(std::string_view text, const std::string& whole) {
  uint16_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || number == 0)
    return base::fail(ErrorCode::InvalidArgument,
                      "'{}' is no port to expose; write 80, 80/udp or 8000-8010",
                      base::escape_controls(whole));
  return number;
}

Result<int64_t> duration(const std::string& text, const char* flag) {
  const int64_t nanoseconds = TRY_DURING(base::parse_duration_ns(text), "--{}", flag);
  constexpr int64_t least = 1'000'000;
  if (nanoseconds != 0 && nanoseconds < least)
    return base::fail(ErrorCode::InvalidArgument, "--{}={} is less than a millisecond", flag, text);
  return nanoseconds;
}

}  // namespace

std::vector<std::string> default_shell() { return {"/bin/sh", "-c"}; }

ImageConfig ImageConfig::scratch(const image::Platform& platform) {
  json document = {{"architecture", platform.architecture},
                   {"os", platform.os},
                   {"config", {{"Env", {"PATH=" + std::string(default_path)}}}},
                   {"rootfs", {{"type", "layers"}, {"diff_ids", json::array()}}},
                   {"history", json::array()}};
  if (!platform.variant.empty()) document["variant"] = platform.variant;
  return ImageConfig(std::move(document));
}

Result<ImageConfig> ImageConfig::from_json(json document) {
  if (!document.is_object())
    return base::fail(ErrorCode::InvalidArgument, "the base image's config is no object");
  for (const char* key : leftovers) document.erase(key);
  if (!document.contains("config") || !document["config"].is_object())
    document["config"] = json::object();
  if (!document.contains("history") || !document["history"].is_array())
    document["history"] = json::array();
  const auto rootfs = document.find("rootfs");
  if (rootfs == document.end() || !rootfs->is_object() || !rootfs->contains("diff_ids") ||
      !rootfs->at("diff_ids").is_array())
    return base::fail(ErrorCode::InvalidArgument, "the base image's config names no layers");
  ImageConfig config(std::move(document));
  if (!config.variable("PATH")) config.set_variable("PATH", std::string(default_path));
  return config;
}

std::vector<std::string> ImageConfig::texts(const char* key) const {
  std::vector<std::string> list;
  const auto found = inner().find(key);
  if (found == inner().end() || !found->is_array()) return list;
  for (const json& one : *found)
    if (one.is_string()) list.push_back(one.get<std::string>());
  return list;
}

std::vector<std::string> ImageConfig::environment() const { return texts("Env"); }

std::optional<std::string> ImageConfig::variable(std::string_view name) const {
  for (const std::string& entry : environment())
    if (entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=')
      return entry.substr(name.size() + 1);
  return std::nullopt;
}

std::string ImageConfig::working_dir() const {
  const std::string folder = base::json_string_or(inner(), "WorkingDir", "");
  return clean_path("/", folder);
}

std::string ImageConfig::user() const { return base::json_string_or(inner(), "User", ""); }

std::vector<std::string> ImageConfig::shell() const {
  std::vector<std::string> words = texts("Shell");
  return words.empty() ? default_shell() : words;
}

image::Platform ImageConfig::platform() const {
  return {.os = base::json_string_or(document_, "os", "linux"),
          .architecture = base::json_string_or(document_, "architecture", ""),
          .variant = base::json_string_or(document_, "variant", "")};
}

std::string ImageConfig::created() const { return base::json_string_or(document_, "created", ""); }

void ImageConfig::set_variable(const std::string& name, const std::string& value) {
  json& list = inner()["Env"];
  if (!list.is_array()) list = json::array();
  for (json& entry : list)
    if (entry.is_string() && entry.get_ref<const std::string&>().starts_with(name + "=")) {
      entry = name + "=" + value;
      return;
    }
  list.push_back(name + "=" + value);
}

void ImageConfig::set_label(const std::string& name, const std::string& value) {
  json& labels = inner()["Labels"];
  if (!labels.is_object()) labels = json::object();
  labels[name] = value;
}

std::string ImageConfig::set_working_dir(const std::string& path) {
  std::string clean = clean_path(working_dir(), path);
  inner()["WorkingDir"] = clean;
  return clean;
}

void ImageConfig::set_user(const std::string& user) { inner()["User"] = user; }
void ImageConfig::set_author(const std::string& text) { document_["author"] = text; }
void ImageConfig::set_stop_signal(const std::string& signal) { inner()["StopSignal"] = signal; }
void ImageConfig::set_shell(const std::vector<std::string>& words) { inner()["Shell"] = words; }

void ImageConfig::set_command(const std::vector<std::string>& words) {
  inner()["Cmd"] = words;
  command_is_ours_ = true;
}

void ImageConfig::set_entrypoint(const std::vector<std::string>& words) {
  inner()["Entrypoint"] = words;
  if (!command_is_ours_) inner().erase("Cmd");
}

void ImageConfig::add_volume(const std::string& path) {
  json& volumes = inner()["Volumes"];
  if (!volumes.is_object()) volumes = json::object();
  volumes[path] = json::object();
}

Result<> ImageConfig::expose(const std::string& ports) {
  const size_t slash = ports.find('/');
  const std::string protocol =
      slash == std::string::npos ? "tcp" : base::lower_case(ports.substr(slash + 1));
  if (protocol != "tcp" && protocol != "udp" && protocol != "sctp")
    return base::fail(ErrorCode::InvalidArgument, "'{}': the protocol is tcp, udp or sctp",
                      base::escape_controls(ports));
  const std::string numbers = ports.substr(0, slash);
  const size_t dash = numbers.find('-');
  const uint16_t first = TRY(port_number(std::string_view(numbers).substr(0, dash), ports));
  const uint16_t last = dash == std::string::npos
                            ? first
                            : TRY(port_number(std::string_view(numbers).substr(dash + 1), ports));
  if (last < first)
    return base::fail(ErrorCode::InvalidArgument, "'{}' ends before it begins",
                      base::escape_controls(ports));
  json& exposed = inner()["ExposedPorts"];
  if (!exposed.is_object()) exposed = json::object();
  for (uint32_t port = first; port <= last; ++port)
    exposed[fmt::format("{}/{}", port, protocol)] = json::object();
  return {};
}

Result<> ImageConfig::set_health_check(const HealthcheckInstruction& instruction) {
  if (instruction.none) {
    inner()["Healthcheck"] = {{"Test", {"NONE"}}};
    return {};
  }
  json check = json::object();
  json test = json::array({instruction.command.shell_form ? "CMD-SHELL" : "CMD"});
  for (const std::string& word : instruction.command.words) test.push_back(word);
  check["Test"] = std::move(test);
  const std::pair<const char*, std::pair<const char*, const std::string*>> durations[] = {
      {"Interval", {"interval", &instruction.interval}},
      {"Timeout", {"timeout", &instruction.timeout}},
      {"StartPeriod", {"start-period", &instruction.start_period}},
      {"StartInterval", {"start-interval", &instruction.start_interval}},
  };
  for (const auto& [key, flag] : durations)
    if (!flag.second->empty()) check[key] = TRY(duration(*flag.second, flag.first));
  if (!instruction.retries.empty()) {
    uint32_t retries = 0;
    const char* last = instruction.retries.data() + instruction.retries.size();
    const auto [end, error] = std::from_chars(instruction.retries.data(), last, retries);
    if (error != std::errc() || end != last || retries < 1 || retries > 1'000'000)
      return base::fail(ErrorCode::InvalidArgument, "--retries={} must be at least 1",
                        base::escape_controls(instruction.retries));
    check["Retries"] = retries;
  }
  inner()["Healthcheck"] = std::move(check);
  return {};
}

void ImageConfig::add_trigger(const std::string& text) {
  json& list = inner()["OnBuild"];
  if (!list.is_array()) list = json::array();
  list.push_back(text);
}

std::vector<std::string> ImageConfig::take_triggers() {
  std::vector<std::string> triggers = texts("OnBuild");
  inner().erase("OnBuild");
  return triggers;
}

std::vector<std::string> ImageConfig::command_words(const CommandLine& command) const {
  if (!command.shell_form) return command.words;
  std::vector<std::string> words = shell();
  words.push_back(base::join(command.words, " "));
  return words;
}

void ImageConfig::add_history(const std::string& created_by, const std::string& created,
                              bool empty_layer) {
  json entry = {{"created_by", created_by}};
  if (!created.empty()) entry["created"] = created;
  if (empty_layer) entry["empty_layer"] = true;
  document_["history"].push_back(std::move(entry));
}

void ImageConfig::add_layer(const std::string& diff_id) {
  document_["rootfs"]["diff_ids"].push_back(diff_id);
}

std::vector<std::string> ImageConfig::diff_ids() const {
  std::vector<std::string> ids;
  for (const json& one : document_.at("rootfs").at("diff_ids"))
    if (one.is_string()) ids.push_back(one.get<std::string>());
  return ids;
}

void ImageConfig::take_layers_of(const ImageConfig& other) {
  document_["rootfs"] = other.document_.at("rootfs");
  document_["history"] = other.document_.at("history");
}

void ImageConfig::set_created(const std::string& created) { document_["created"] = created; }

json ImageConfig::identity() const {
  json known = document_;
  for (const char* key : {"history", "created", "rootfs"}) known.erase(key);
  return known;
}

}  // namespace builder
