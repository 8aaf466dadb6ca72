#include "spec/load.h"

#include <algorithm>
#include <array>
#include <set>

#include <fmt/format.h>

#include "base/names.h"
#include "spec/attributes.h"
#include "spec/consistency.h"
#include "spec/decode.h"
#include "spec/dotenv.h"
#include "spec/readers.h"
#include "spec/steps.h"

namespace spec {
namespace {

using base::ErrorCode;

constexpr std::string_view project_variable = "COMPOSE_PROJECT_NAME";

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

std::string last_part(const std::string& path) {
  const size_t slash = path.find_last_not_of('/');
  const std::string trimmed = path.substr(0, slash == std::string::npos ? 0 : slash + 1);
  return trimmed.substr(trimmed.rfind('/') + 1);
}

/// One run of the pipeline; its members are what the steps hand on.
class Load {
 public:
  explicit Load(const LoadOptions& options)
      : options_(options),
        environment_(options.environment),
        project_directory_(find_project_directory(options)) {}

  Loaded run() {
    decode_files();
    read_project_environment();
    choose_name();
    merge_files();
    check_tree(root_, options_.strict, reporter_);
    read_resources();
    read_services();
    finish_services();
    ReadContext context = read_context();
    check_consistency(stack_, drafts_, context);
    return finish();
  }

  std::map<std::string, std::string> environment() {
    read_project_environment();
    return std::move(environment_);
  }

 private:
  struct File {
    uint16_t index = 0;
    std::vector<Node> documents;
  };

  static std::string find_project_directory(const LoadOptions& options) {
    if (!options.project_directory.empty()) return options.project_directory;
    for (const std::string& file : options.files)
      if (file != "-") return folder_of(file);
    return "/";
  }

  VariableLookup lookup() const {
    return [this](std::string_view name) -> const std::string* {
      const auto found = environment_.find(std::string(name));
      return found == environment_.end() ? nullptr : &found->second;
    };
  }

  ReadContext read_context() {
    return {reporter_, project_directory_, options_.home_directory, environment_, ports_left_};
  }

  // decode

  void decode_files() {
    if (options_.files.empty())
      reporter_.error({}, "", "there is no stack file",
                      "name one with -f, or make a compose.yaml in this folder");
    for (const std::string& path : options_.files) {
      File file{reporter_.add_file(path), {}};
      const auto text = read(path, file.index);
      if (!text) continue;
      if (check_bytes(*text, file.index, reporter_))
        file.documents = path.ends_with(".toml")
                             ? decode_toml(*text, file.index, budget_, reporter_)
                             : decode_yaml(*text, file.index, budget_, reporter_);
      files_.push_back(std::move(file));
    }
  }

  std::optional<std::string> read(const std::string& path, uint16_t index) {
    auto text =
        path == "-" ? base::Result<std::string>(options_.stdin_text) : options_.read_file(path);
    if (!text) {
      reporter_.error({index}, "", "cannot be read", text.error().to_string());
      return std::nullopt;
    }
    if (text->size() > base::limits::stack_file_bytes_max) {
      reporter_.error(
          {index}, "", "is too large",
          fmt::format("a stack file has at most {} bytes", base::limits::stack_file_bytes_max));
      return std::nullopt;
    }
    return std::move(*text);
  }

  // The project's variables: the caller's environment, then the env files.

  void read_project_environment() {
    std::vector<std::string> paths = options_.env_files;
    const bool is_default = paths.empty();
    if (is_default) {
      // A later file wins: so the one in the caller's own folder is the last.
      const auto off = environment_.find("COMPOSE_DISABLE_ENV_FILE");
      if (off != environment_.end() && (off->second == "1" || off->second == "true")) return;
      paths.push_back(project_directory_ + "/.env");
      const std::string& own = options_.working_directory;
      if (!own.empty() && own != project_directory_) paths.push_back(own + "/.env");
    }
    std::map<std::string, std::string> from_files;
    for (const std::string& path : paths) {
      const auto text = options_.read_file(path);
      if (!text && is_default && text.error().code() == ErrorCode::NotFound) continue;
      const uint16_t index = reporter_.add_file(path);
      if (!text) {
        reporter_.error({index}, "", "cannot be read", text.error().to_string());
        continue;
      }
      for (auto& entry : read_variables(*text, false, index, from_files))
        if (entry.value) from_files[entry.key] = *entry.value;
    }
    for (auto& [key, value] : from_files) environment_.try_emplace(key, std::move(value));
  }

  /// `earlier`: variables of the files before, which this one may use.
  std::vector<DotenvEntry> read_variables(const std::string& text, bool raw, uint16_t index,
                                          const std::map<std::string, std::string>& earlier) {
    if (text.size() > env_bytes_left_) {
      env_bytes_left_ = 0;
      reporter_.error({index}, "", "the files of variables are too large",
                      fmt::format("all services together read at most {} bytes of them",
                                  base::limits::stack_env_bytes_max));
      return {};
    }
    env_bytes_left_ -= text.size();
    const auto look_up = [&](std::string_view name) -> const std::string* {
      const std::string key(name);
      const auto own = environment_.find(key);
      if (own != environment_.end()) return &own->second;
      const auto found = earlier.find(key);
      return found == earlier.end() ? nullptr : &found->second;
    };
    Dotenv parsed = raw ? parse_raw_env(text) : parse_dotenv(text, look_up, env_bytes_left_);
    for (const DotenvEntry& entry : parsed.entries)
      env_bytes_left_ -= std::min(env_bytes_left_, entry.value ? entry.value->size() : 0);
    for (DotenvProblem& problem : parsed.problems) {
      const Place place{index, problem.line, problem.column};
      if (problem.is_error)
        reporter_.error(place, "", std::move(problem.text));
      else
        reporter_.warning(place, "", std::move(problem.text));
    }
    return std::move(parsed.entries);
  }

  // The project's name, which texts may use: so it comes before all other variables are filled in.

  void choose_name() {
    const auto variable = environment_.find(std::string(project_variable));
    const Node* written = written_name();
    if (options_.project_name) {
      take_name(*options_.project_name, {}, "-p");
    } else if (variable != environment_.end() && !variable->second.empty()) {
      take_name(variable->second, {}, std::string(project_variable));
    } else if (written != nullptr) {
      size_t room = base::limits::stack_file_bytes_max;
      const auto filled = interpolate(written->text, lookup(), room);
      name_is_valid_ = filled.has_value();  // if not, that is told where all texts are filled in
      if (filled) take_name(filled->text, written->place, "name");
    } else if (!options_.files.empty()) {
      const std::string name = base::normalized_project_name(last_part(project_directory_));
      if (!name.empty())
        take_name(name, {}, "name");
      else
        reporter_.error({}, "name", "the project has no name",
                        "write name: at the top of the file, or give one with -p");
    }
    environment_[std::string(project_variable)] = stack_.name;
  }

  const Node* written_name() const {
    const Node* found = nullptr;
    for (const File& file : files_)
      for (const Node& document : file.documents)
        if (const Node* name = document.find("name"); name != nullptr && name->is_scalar())
          found = name;
    return found;
  }

  void take_name(const std::string& name, const Place& place, const std::string& origin) {
    const auto valid = base::check_project_name(name);
    name_is_valid_ = valid.has_value();
    if (!valid)
      reporter_.error(place, origin, "is no project name", valid.error().to_string(),
                      fmt::format("'{}' would do", base::normalized_project_name(name)));
    stack_.name = name;
  }

  // interpolate, merge

  void merge_files() {
    root_.kind = NodeKind::Map;
    for (File& file : files_) {
      stack_.files.push_back(reporter_.file(file.index));
      for (Node& document : file.documents) {
        if (!document.is_map()) {
          reporter_.error(document.place, "", "must be a map",
                          "a stack file begins with 'services:'");
          continue;
        }
        fill_in_variables(document);
        merge_tree(root_, std::move(document), reporter_);
      }
    }
    with_image_.merge(with_image(root_));
  }

  /// Services that name an image, or say how it is built.
  static std::set<std::string> with_image(const Node& document) {
    std::set<std::string> names;
    const Node* services = document.find("services");
    if (services == nullptr || !services->is_map()) return names;
    for (const Node& service : services->children)
      if (service.find("image") != nullptr || service.find("build") != nullptr)
        names.insert(service.key);
    return names;
  }

  /// What cannot be filled in is taken out, but an image that is wrong is not missing as well.
  void fill_in_variables(Node& document) {
    std::set<std::string> written = with_image(document);
    interpolate_tree(document, lookup(), budget_.bytes_left, reporter_);
    for (const std::string& kept : with_image(document)) written.erase(kept);
    with_image_.merge(written);
  }

  // canonical forms

  static const AttributeBranch* branch_of(std::string_view section) {
    const AttributeBranch* top = attribute_tree().member(section);
    return top == nullptr ? nullptr : top->any.get();
  }

  void read_members(Reading& reading, const Node& node, const AttributeBranch& branch) {
    for (const Node& member : node.children) {
      const AttributeBranch* found = branch.member(member.key);
      if (found == nullptr || found->row == nullptr || found->row->reader == nullptr) continue;
      Reading inner = readers::inside(reading, member.key);
      found->row->reader(inner, member);
    }
  }

  void read_resources() {
    ReadContext context = read_context();
    if (const Node* secrets = root_.find("secrets")) secrets_ = readers::secrets(context, *secrets);
    if (const Node* networks = root_.find("networks"))
      for (const Node& node : networks->children) {
        Network& network = stack_.networks[node.key];
        Reading reading{context, fmt::format("networks.{}", node.key), nullptr, &network, nullptr};
        read_members(reading, node, *branch_of("networks"));
        name_resource(network.name, network.external, node.key);
        check_resource(reading.address, node, network.external,
                       base::check_name("network", network.name));
      }
    if (const Node* volumes = root_.find("volumes"))
      for (const Node& node : volumes->children) {
        Volume& volume = stack_.volumes[node.key];
        Reading reading{context, fmt::format("volumes.{}", node.key), nullptr, nullptr, &volume};
        read_members(reading, node, *branch_of("volumes"));
        name_resource(volume.name, volume.external, node.key);
        check_resource(reading.address, node, volume.external,
                       base::check_volume_name(volume.name));
      }
  }

  void name_resource(std::string& name, bool external, const std::string& key) const {
    if (name.empty()) name = external ? key : fmt::format("{}_{}", stack_.name, key);
  }

  /// Somebody else made what is external, and said how.
  void check_resource(const std::string& address, const Node& node, bool external,
                      const base::Result<>& name) {
    if (!name && name_is_valid_)
      reporter_.error(node.key_place, address, "its full name is not a valid name",
                      name.error().to_string(), "choose another with 'name'");
    for (const Node& member : node.children)
      if (external && member.key != "name" && member.key != "external")
        reporter_.error(member.key_place, join_address(address, member.key),
                        "has no meaning for what is external", "remove it, or 'external'");
  }

  void read_services() {
    const Node* services = root_.find("services");
    if (services == nullptr || services->children.empty()) {
      if (reporter_.errors() == 0)
        reporter_.error(files_.empty() ? Place{} : Place{files_.front().index}, "services",
                        "there are no services", "declare at least one under 'services:'");
      return;
    }
    ReadContext context = read_context();
    for (const Node& node : services->children) {
      ServiceDraft& draft = drafts_.emplace_back();
      draft.name = node.key;
      draft.node = &node;
      draft.has_image = with_image_.contains(node.key);
      if (const auto valid = base::check_name("service", node.key); !valid)
        reporter_.error(node.key_place, fmt::format("services.{}", node.key), "is no service name",
                        valid.error().to_string());
      Reading reading{context, fmt::format("services.{}", node.key), &draft};
      read_members(reading, node, *branch_of("services"));
    }
    ports_left_ = context.ports_left;
  }

  // defaults, names, env files

  void finish_services() {
    for (ServiceDraft& draft : drafts_) {
      agree_with_deploy(draft);
      add_default_network(draft);
      read_env_files(draft);
      if (draft.build && draft.service.image.empty())
        draft.service.image = fmt::format("{}-{}", stack_.name, draft.name);
      check_pull_policy(draft);
      check_build_platform(draft);
      take_build_secrets(draft);
      if (draft.build) stack_.builds[draft.name] = std::move(*draft.build);
      stack_.services[draft.name] = draft.service;
    }
  }

  void check_build_platform(const ServiceDraft& draft) {
    if (!draft.build || draft.build->platforms.empty() || !draft.service.platform) return;
    const std::vector<std::string>& built = draft.build->platforms;
    if (std::find(built.begin(), built.end(), *draft.service.platform) != built.end()) return;
    reporter_.error(draft.node->find("platform")->place,
                    fmt::format("services.{}.platform", draft.name),
                    fmt::format("'{}' is not built", *draft.service.platform),
                    "add it to 'build.platforms', or remove it here");
  }

  /// Each use gets the place its source names.
  void take_build_secrets(ServiceDraft& draft) {
    std::map<std::string, BuildSecret> by_id;
    for (BuildSecretUse& use : draft.build_secrets) {
      const auto source = secrets_.find(use.source);
      if (source == secrets_.end()) {
        std::vector<std::string> names;
        for (const auto& [name, secret] : secrets_) names.push_back(name);
        reporter_.error(
            use.place, use.address, fmt::format("refers to undefined secret {}", use.source),
            "declare it under the top-level 'secrets'", reporter_.suggest(use.source, names));
        continue;
      }
      use.secret.file = source->second.file;
      use.secret.variable = source->second.variable;
      use.secret.value = source->second.value;
      by_id[use.secret.id] = std::move(use.secret);
    }
    for (auto& [id, secret] : by_id) build_secrets_[draft.name].push_back(std::move(secret));
  }

  void check_pull_policy(const ServiceDraft& draft) {
    if (!draft.pull_policy) return;
    pull_policies_[draft.name] = *draft.pull_policy;
    const Node* node = draft.node->find("pull_policy");
    const Place place = node == nullptr ? draft.node->key_place : node->place;
    const std::string address = fmt::format("services.{}.pull_policy", draft.name);
    if (*draft.pull_policy == PullPolicy::Build && !draft.build)
      reporter_.error(place, address, "there is nothing to build",
                      "add a 'build' section, or use 'missing'");
    if (*draft.pull_policy == PullPolicy::Always && draft.build)
      reporter_.error(place, address, "an image that is built here is looked for in no registry",
                      "use 'build', or remove one of both");
  }

  /// `deploy` is an older way to say the same; two different answers are a mistake.
  template <class Value>
  void agree(const ServiceDraft& draft, std::string_view attribute, std::optional<Value>& own,
             const std::optional<Value>& deployed, std::string_view deploy_attribute) {
    if (!deployed) return;
    if (own && *own != *deployed) {
      const Node* node = draft.node->find(attribute);
      reporter_.error(node == nullptr ? draft.node->key_place : node->key_place,
                      fmt::format("services.{}.{}", draft.name, attribute),
                      fmt::format("differs from deploy.{}", deploy_attribute),
                      "give both the same value, or remove one");
    }
    own = deployed;
  }

  void agree_with_deploy(ServiceDraft& draft) {
    Service& service = draft.service;
    agree(draft, "cpus", service.cpus, draft.deploy_cpus, "resources.limits.cpus");
    agree(draft, "mem_limit", service.memory_bytes, draft.deploy_memory_bytes,
          "resources.limits.memory");
    agree(draft, "pids_limit", service.pids_limit, draft.deploy_pids, "resources.limits.pids");
    agree(draft, "scale", draft.scale, draft.deploy_replicas, "replicas");
    service.scale = draft.scale.value_or(1);
  }

  void add_default_network(ServiceDraft& draft) {
    Service& service = draft.service;
    if (service.network_mode == "none") return;
    if (service.networks.empty()) service.networks["default"] = {};
    if (service.networks.contains("default") && !stack_.networks.contains("default"))
      stack_.networks["default"].name = stack_.name + "_default";
    if (draft.mac_address && service.networks.size() == 1)
      service.networks.begin()->second.mac_address = draft.mac_address;
  }

  /// Later files win over earlier ones, and `environment` over all of them.
  void read_env_files(ServiceDraft& draft) {
    Environment collected;
    std::map<std::string, std::string> earlier;
    for (const EnvFile& file : draft.env_files) {
      if (env_bytes_left_ == 0) return;  // told already
      const auto text = options_.read_file(file.path);
      if (!text && !file.required && text.error().code() == ErrorCode::NotFound) continue;
      if (!text) {
        reporter_.error(file.place, fmt::format("services.{}.env_file", draft.name),
                        "cannot be read", text.error().to_string());
        continue;
      }
      const uint16_t index = reporter_.add_file(file.path);
      for (DotenvEntry& entry : read_variables(*text, file.raw, index, earlier)) {
        if (!entry.value) {
          const auto inherited = environment_.find(entry.key);
          if (inherited == environment_.end()) continue;
          entry.value = inherited->second;
        }
        earlier[entry.key] = *entry.value;
        collected[entry.key] = std::move(entry.value);
      }
    }
    draft.service.environment.merge(collected);
  }

  Loaded finish() {
    const bool failed = reporter_.errors() > 0;
    stack_.working_dir = project_directory_;
    Loaded loaded;
    loaded.diagnostics = reporter_.take();
    if (!failed) {
      for (ServiceDraft& draft : drafts_) stack_.services[draft.name] = std::move(draft.service);
      loaded.stack = std::move(stack_);
      loaded.pull_policies = std::move(pull_policies_);
      loaded.build_secrets = std::move(build_secrets_);
    }
    return loaded;
  }

  const LoadOptions& options_;
  std::map<std::string, std::string> environment_;
  std::string project_directory_;
  Reporter reporter_;
  Budget budget_;
  size_t ports_left_ = base::limits::stack_ports_max;
  size_t env_bytes_left_ = base::limits::stack_env_bytes_max;
  std::vector<File> files_;
  Node root_;
  Stack stack_;
  bool name_is_valid_ = true;
  std::set<std::string> with_image_;  ///< Services that have written one, be it wrong.
  std::vector<ServiceDraft> drafts_;
  std::map<std::string, PullPolicy> pull_policies_;
  std::map<std::string, BuildSecret> secrets_;  ///< The top-level ones, by key.
  std::map<std::string, std::vector<BuildSecret>> build_secrets_;
};

constexpr std::array<std::string_view, 7> file_names = {
    "compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml",
    "stack.yaml",   "stack.toml",  "compose.toml"};

std::vector<std::string> candidates(const std::string& folder) {
  std::vector<std::string> paths;
  for (const std::string_view name : file_names)
    paths.push_back(fmt::format("{}{}", folder.ends_with('/') ? folder : folder + "/", name));
  return paths;
}

std::vector<std::string> overrides_of(const std::string& path) {
  const std::string stem = path.substr(0, path.rfind('.'));
  return {stem + ".override.yaml", stem + ".override.yml", stem + ".override.toml"};
}

}  // namespace

Loaded load(const LoadOptions& options) { return Load(options).run(); }

std::map<std::string, std::string> project_environment(const LoadOptions& options) {
  return Load(options).environment();
}

std::vector<std::string> discover(const std::string& folder,
                                  const std::function<bool(const std::string&)>& exists) {
  std::string place = folder;
  for (;;) {
    for (const std::string& path : candidates(place)) {
      if (!exists(path)) continue;
      std::vector<std::string> found = {path};
      for (const std::string& beside : overrides_of(path)) {
        if (!exists(beside)) continue;
        found.push_back(beside);
        break;
      }
      return found;
    }
    if (place.empty() || place == "/") return {};
    place = folder_of(place);
  }
}

std::vector<std::string> passed_over(const std::vector<std::string>& found,
                                     const std::function<bool(const std::string&)>& exists) {
  std::vector<std::string> others;
  if (found.empty()) return others;
  const auto add = [&](const std::string& path) {
    if (std::find(found.begin(), found.end(), path) == found.end() && exists(path))
      others.push_back(path);
  };
  for (const std::string& path : candidates(folder_of(found.front()))) add(path);
  for (const std::string& path : overrides_of(found.front())) add(path);
  return others;
}

}  // namespace spec
