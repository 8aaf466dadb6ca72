/// Readers of what runs and when: image, command, environment, health, dependencies.

#include <algorithm>
#include <array>
#include <cctype>
#include <limits>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/names.h"
#include "base/text.h"
#include "base/units.h"
#include "spec/fields.h"
#include "spec/readers.h"
#include "spec/shell_words.h"

namespace spec::readers {
namespace {

/// The enum value a text names, with a suggestion if it names none.
template <class Enum>
std::optional<Enum> one_of(Reading& reading, const Node& node) {
  std::vector<std::string> known;
  for (const auto& [value, name] : EnumNames<Enum>::list) {
    if (node.text == name) return value;
    known.emplace_back(name);
  }
  const auto nearest = base::did_you_mean(node.text, known);
  reading.error(node, fmt::format("'{}' is not known here", node.text),
                "use one of " + base::join(known, ", "),
                nearest ? fmt::format("did you mean '{}'?", *nearest) : "");
  return std::nullopt;
}

/// One text is split into words, a list is taken as it is, null is nothing.
std::optional<std::vector<std::string>> words(Reading& reading, const Node& node) {
  if (node.is_scalar()) {
    auto split = split_words(node.text);
    if (split) return *split;
    reading.error(node, "cannot be split into words", split.error().to_string());
    return std::nullopt;
  }
  if (!node.is_list()) return std::nullopt;
  std::vector<std::string> result;
  for (const Node& item : node.children) result.push_back(item.text);
  return result;
}

void read_name(Reading& reading, const Node& node, base::Result<> (*check)(std::string_view),
               std::optional<std::string>& to) {
  const auto value = text(reading, node);
  if (!value) return;
  if (const auto outcome = check(*value); !outcome)
    return reading.error(node, "not a valid name", outcome.error().to_string());
  to = *value;
}

Labels read_labels(Reading& reading, const Node& node) {
  Labels result;
  for (Pair& pair : pairs(reading, node)) result[pair.key] = pair.value.value_or("");
  return result;
}

void read_env_file(Reading& reading, const Node& node) {
  EnvFile file{.place = node.place};
  const Node* path = node.is_map() ? node.find("path") : &node;
  if (path == nullptr) return reading.error(node, "'path' is missing", "name the file to read");
  const auto written = text(reading, *path);
  if (!written) return;
  file.path = absolute_path(reading.context, *written);
  if (const Node* required = node.find("required")) {
    Reading inner = inside(reading, "required");
    file.required = boolean(inner, *required).value_or(true);
  }
  if (const Node* format = node.find("format")) {
    if (format->text != "raw")
      reading.error(*format, fmt::format("unknown format '{}'", format->text),
                    "the only other format is 'raw'");
    file.raw = true;
  }
  reading.draft->env_files.push_back(std::move(file));
}

void read_dependency(Reading& reading, const Node& node, Dependency& dependency) {
  if (const Node* condition = node.find("condition")) {
    Reading inner = inside(reading, "condition");
    dependency.condition =
        one_of<DependencyCondition>(inner, *condition).value_or(dependency.condition);
  } else if (node.is_map()) {
    reading.error(node, "'condition' is missing",
                  "use service_started, service_healthy or service_completed_successfully");
  }
  if (const Node* restarts = node.find("restart")) {
    Reading inner = inside(reading, "restart");
    dependency.restart = boolean(inner, *restarts).value_or(false);
  }
  if (const Node* required = node.find("required")) {
    Reading inner = inside(reading, "required");
    dependency.required = boolean(inner, *required).value_or(true);
  }
}

std::vector<std::string> with_shell(const std::string& command) {
  return {"/bin/sh", "-c", command};
}

void read_health_test(Reading& reading, const Node& node, HealthCheck& check) {
  if (node.is_scalar()) {
    if (auto command = text(reading, node)) check.test = with_shell(*command);
    return;
  }
  if (!node.is_list()) return;
  const std::string kind = node.children.empty() ? "" : node.children.front().text;
  std::vector<std::string> rest;
  for (size_t i = 1; i < node.children.size(); ++i) rest.push_back(node.children[i].text);
  if (kind == "NONE") {
    check.disable = true;
    if (!rest.empty()) reading.error(node, "nothing can follow NONE", "remove the other items");
  } else if (kind == "CMD-SHELL") {
    if (rest.size() != 1)
      return reading.error(node, "CMD-SHELL takes exactly one text",
                           "write the whole command line as one item");
    check.test = with_shell(rest.front());
  } else if (kind == "CMD") {
    if (rest.empty())
      return reading.error(node, "CMD needs a command", "add the program behind CMD");
    check.test = std::move(rest);
  } else {
    reading.error(node.children.empty() ? node : node.children.front(),
                  "a health check's list begins with NONE, CMD or CMD-SHELL",
                  "put \"CMD\" in front of the program");
  }
}

/// 0 means "as the image says", as in the image format.
void read_health_duration(const Reading& reading, const Node& node, std::string_view key,
                          std::optional<int64_t>& to, bool zero_means_default = true) {
  const Node* member = node.find(key);
  if (member == nullptr) return;
  Reading inner = inside(reading, key);
  const auto value = duration(inner, *member);
  if (!value || (*value == 0 && zero_means_default)) return;
  if (*value != 0 && *value < 1'000'000)
    return inner.error(*member, "shorter than a millisecond", "write for instance 1s or 500ms");
  to = *value;
}

/// Those that are meant most often first: of equally near ones the first is suggested.
constexpr std::array signal_names = {
    "TERM", "INT",  "HUP",  "QUIT",   "KILL",   "USR1",  "USR2", "ILL",  "TRAP", "ABRT",  "BUS",
    "FPE",  "SEGV", "PIPE", "ALRM",   "STKFLT", "CHLD",  "CONT", "STOP", "TSTP", "TTIN",  "TTOU",
    "URG",  "XCPU", "XFSZ", "VTALRM", "PROF",   "WINCH", "IO",   "PWR",  "SYS",  "RTMIN", "RTMAX"};

bool is_digits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_signal(std::string_view name) {
  if (name.starts_with("RTMIN+") || name.starts_with("RTMAX-")) {
    const std::string_view offset = name.substr(6);
    return is_digits(offset) && offset.size() <= 2 && std::stoi(std::string(offset)) <= 30;
  }
  return std::find(signal_names.begin(), signal_names.end(), name) != signal_names.end();
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace

void image(Reading& reading, const Node& node) {
  const auto value = text(reading, node);
  if (!value) return;
  const bool is_plain = std::all_of(value->begin(), value->end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("._-/:@[]+").find(c) != std::string_view::npos;
  });
  if (!is_plain || value->size() > 512)
    return reading.error(node, fmt::format("'{}' is not an image reference", *value),
                         "write for instance alpine:3.20 or registry.example.com/team/app:1");
  reading.service().image = *value;
}

void platform(Reading& reading, const Node& node) {
  const auto value = text(reading, node);
  if (!value) return;
  const auto pieces = base::split(*value, '/');
  const bool has_form = (pieces.size() == 2 || pieces.size() == 3) && pieces[0] == "linux" &&
                        std::none_of(pieces.begin(), pieces.end(),
                                     [](const std::string& piece) { return piece.empty(); });
  if (!has_form)
    return reading.error(node, fmt::format("'{}' is not a platform", *value),
                         "write for instance linux/amd64 or linux/arm64");
  reading.service().platform = *value;
}

void command(Reading& reading, const Node& node) {
  reading.service().command = words(reading, node);
}

void entrypoint(Reading& reading, const Node& node) {
  reading.service().entrypoint = words(reading, node);
}

/// A name without a value is taken from the project's environment; not there, it is removed.
void environment(Reading& reading, const Node& node) {
  for (Pair& pair : pairs(reading, node)) {
    if (!pair.value) {
      const auto found = reading.context.environment.find(pair.key);
      if (found != reading.context.environment.end()) pair.value = found->second;
    }
    reading.service().environment[pair.key] = std::move(pair.value);
  }
}

void env_file(Reading& reading, const Node& node) {
  if (!node.is_list()) return read_env_file(reading, node);
  for (size_t i = 0; i < node.children.size(); ++i) {
    Reading inner = at_index(reading, i);
    read_env_file(inner, node.children[i]);
  }
}

void working_dir(Reading& reading, const Node& node) {
  const auto value = text(reading, node);
  if (value && !value->starts_with('/'))
    return reading.error(node, "must be an absolute path", "begin it with /");
  reading.service().working_dir = value;
}

void user(Reading& reading, const Node& node) { reading.service().user = text(reading, node); }

void group_add(Reading& reading, const Node& node) {
  reading.service().group_add = texts(reading, node);
}

void hostname(Reading& reading, const Node& node) {
  read_name(reading, node, base::check_hostname, reading.service().hostname);
}

void domainname(Reading& reading, const Node& node) {
  read_name(reading, node, base::check_hostname, reading.service().domainname);
}

void container_name(Reading& reading, const Node& node) {
  read_name(
      reading, node, [](std::string_view name) { return base::check_name("container", name); },
      reading.service().container_name);
}

void labels(Reading& reading, const Node& node) {
  reading.service().labels = read_labels(reading, node);
}

/// Logs are files of the system's, which is what these drivers mean; where else they should go is
/// no wish to drop in silence.
void logging(Reading& reading, const Node& node) {
  const Node* driver = node.find("driver");
  if (driver == nullptr || driver->text == "json-file" || driver->text == "local") return;
  inside(reading, "driver")
      .error(*driver, fmt::format("logs cannot go to '{}'", driver->text),
             "write json-file or local, or remove it; `container logs` shows them");
}

void annotations(Reading& reading, const Node& node) {
  reading.service().annotations = read_labels(reading, node);
}

void restart(Reading& reading, const Node& node) {
  constexpr std::string_view on_failure = "on-failure:";
  RestartPolicy& policy = reading.service().restart;
  if (!node.text.starts_with(on_failure)) {
    policy.condition = one_of<RestartCondition>(reading, node).value_or(policy.condition);
    return;
  }
  Node count = make_scalar(node, node.text.substr(on_failure.size()));
  policy.condition = RestartCondition::OnFailure;
  if (const auto value = integer(reading, count, 0, std::numeric_limits<uint32_t>::max());
      value && *value > 0)  // 0 is "without end", as without the number
    policy.retries_max = static_cast<uint32_t>(*value);
}

void stop_signal(Reading& reading, const Node& node) {
  const auto value = text(reading, node);
  if (!value) return;
  if (is_digits(*value)) {
    if (integer(reading, node, 1, 64)) reading.service().stop_signal = *value;
    return;
  }
  std::string name = upper(*value);
  if (name.starts_with("SIG")) name.erase(0, 3);
  if (is_signal(name)) {
    reading.service().stop_signal = "SIG" + name;
    return;
  }
  const auto nearest = base::did_you_mean(name, {signal_names.begin(), signal_names.end()});
  reading.error(node, fmt::format("'{}' is not a signal", *value),
                "write a name such as SIGTERM, or a number from 1 to 64",
                nearest ? fmt::format("did you mean 'SIG{}'?", *nearest) : "");
}

void stop_grace_period(Reading& reading, const Node& node) {
  reading.service().stop_grace_period_ns = duration(reading, node);
}

void scale(Reading& reading, const Node& node) {
  if (const auto value = integer(reading, node, 0, base::limits::stack_scale_max))
    reading.draft->scale = static_cast<uint32_t>(*value);
}

void depends_on(Reading& reading, const Node& node) {
  for (const Node& child : node.children) {
    const std::string& name = node.is_list() ? child.text : child.key;
    Reading inner = inside(reading, name);
    Dependency& dependency = reading.service().depends_on[name];
    if (!node.is_list()) read_dependency(inner, child, dependency);
  }
}

void healthcheck(Reading& reading, const Node& node) {
  HealthCheck check;
  if (const Node* disable = node.find("disable")) {
    Reading inner = inside(reading, "disable");
    check.disable = boolean(inner, *disable).value_or(false);
  }
  if (const Node* test = node.find("test")) {
    Reading inner = inside(reading, "test");
    read_health_test(inner, *test, check);
  }
  read_health_duration(reading, node, "interval", check.interval_ns);
  read_health_duration(reading, node, "timeout", check.timeout_ns);
  read_health_duration(reading, node, "start_period", check.start_period_ns, false);
  read_health_duration(reading, node, "start_interval", check.start_interval_ns);
  if (const Node* retries = node.find("retries")) {
    Reading inner = inside(reading, "retries");
    const auto value = integer(inner, *retries, 0, std::numeric_limits<int32_t>::max());
    if (value && *value > 0) check.retries = static_cast<uint32_t>(*value);
  }
  if (check.start_interval_ns && !check.start_period_ns)
    inside(reading, "start_interval")
        .error(*node.find("start_interval"), "has no effect without 'start_period'",
               "add a start_period, or remove it");
  reading.service().healthcheck = std::move(check);
}

void deploy(Reading& reading, const Node& node) {
  ServiceDraft& draft = *reading.draft;
  if (const Node* mode = node.find("mode"); mode != nullptr && mode->text != "replicated")
    inside(reading, "mode")
        .error(*mode, "only 'replicated' is supported by this version",
               "remove it, and set 'replicas'");
  if (const Node* replicas = node.find("replicas")) {
    Reading inner = inside(reading, "replicas");
    if (const auto value = integer(inner, *replicas, 0, base::limits::stack_scale_max))
      draft.deploy_replicas = static_cast<uint32_t>(*value);
  }
  const Node* resources = node.find("resources");
  const Node* limits = resources == nullptr ? nullptr : resources->find("limits");
  if (limits == nullptr) return;
  // The same readers as for the service's own attributes, into a draft of their own.
  ServiceDraft limited;
  const auto read_limit = [&](std::string_view key, void (*reader)(Reading&, const Node&)) {
    const Node* member = limits->find(key);
    if (member == nullptr) return;
    Reading inner = inside(reading, fmt::format("resources.limits.{}", key));
    inner.draft = &limited;
    reader(inner, *member);
  };
  read_limit("cpus", cpus);
  read_limit("memory", mem_limit);
  read_limit("pids", pids_limit);
  draft.deploy_cpus = limited.service.cpus;
  draft.deploy_memory_bytes = limited.service.memory_bytes;
  draft.deploy_pids = limited.service.pids_limit;
}

void boot(Reading& reading, const Node& node) {
  reading.service().boot = one_of<BootMode>(reading, node).value_or(BootMode::Clone);
}

void pull_policy(Reading& reading, const Node& node) {
  constexpr std::pair<std::string_view, PullPolicy> known[] = {
      {"missing", PullPolicy::Missing}, {"if_not_present", PullPolicy::Missing},
      {"always", PullPolicy::Always},   {"never", PullPolicy::Never},
      {"build", PullPolicy::Build},
  };
  for (const auto& [name, policy] : known)
    if (node.text == name) {
      reading.draft->pull_policy = policy;
      return;
    }
  const std::string_view text = node.text;
  if (text == "refresh" || text == "daily" || text == "weekly" || text.starts_with("every_"))
    reading.error(node, fmt::format("'{}' is not supported by this version", text),
                  "nobody notes when a registry was last asked; use 'missing', and run "
                  "`container up --pull always` as often as you like");
  else
    reading.error(node, fmt::format("'{}' is not known here", text),
                  "use one of missing, always, never, build");
}

}  // namespace spec::readers
