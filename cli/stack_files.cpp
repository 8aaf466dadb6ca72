#include "cli/stack_files.h"

#include <unistd.h>
#include <map>
#include <memory>

#include <fmt/format.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/names.h"
#include "base/text.h"
#include "cli/console.h"
#include "cli/registry_settings.h"
#include "spec/load.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;

std::string variable(const Context& context, const char* name) {
  const auto found = context.surroundings.environment.find(name);
  return found == context.surroundings.environment.end() ? std::string() : found->second;
}

/// `-` is stdin, anything else a path.
std::vector<std::string> absolute_paths(const Context& context,
                                        const std::vector<std::string>& given) {
  std::vector<std::string> paths;
  for (const std::string& path : given)
    paths.push_back(path == "-" ? path : absolute_path(context, path));
  return paths;
}

std::vector<std::string> listed(const std::string& text, char separator) {
  return text.empty() ? std::vector<std::string>() : base::split(text, separator);
}

std::string in(const std::map<std::string, std::string>& variables, const std::string& name) {
  const auto found = variables.find(name);
  return found == variables.end() ? std::string() : found->second;
}

/// What is known before the stack's files are; enough to read its variables.
spec::LoadOptions options_of(const Context& context, const Parsed& parsed) {
  spec::LoadOptions options;
  options.project_name = parsed.value("project-name");
  if (const auto folder = parsed.value("project-directory"))
    options.project_directory = absolute_path(context, *folder);
  options.working_directory = context.surroundings.working_directory;
  options.home_directory = context.surroundings.home_directory;
  options.environment = context.surroundings.environment;
  std::vector<std::string> env_files = parsed.all("env-file");
  if (env_files.empty()) env_files = listed(variable(context, "COMPOSE_ENV_FILES"), ',');
  options.env_files = absolute_paths(context, env_files);
  options.strict = parsed.has("strict");
  options.read_file = context.surroundings.read_file;
  return options;
}

/// What COMPOSE_FILE names, in the caller's environment or in an env file; paths in it start from
/// the caller's folder.
Result<std::vector<std::string>> files_of_variable(const Context& context,
                                                   spec::LoadOptions options) {
  if (options.project_directory.empty()) options.project_directory = options.working_directory;
  const auto variables = spec::project_environment(options);
  const std::string separator = in(variables, "COMPOSE_PATH_SEPARATOR");
  const std::vector<std::string> files = absolute_paths(
      context, listed(in(variables, "COMPOSE_FILE"), separator.size() == 1 ? separator[0] : ':'));
  for (const std::string& file : files)
    if (file != "-" && !base::path_exists(file))
      return base::fail(ErrorCode::NotFound,
                        "the stack file '{}' does not exist; COMPOSE_FILE{} names it", file,
                        variable(context, "COMPOSE_FILE").empty() ? " in an env file" : "");
  return files;
}

std::vector<std::string> quoted(const std::vector<std::string>& paths) {
  std::vector<std::string> texts;
  for (const std::string& path : paths) texts.push_back(fmt::format("'{}'", path));
  return texts;
}

Result<std::vector<std::string>> find_files(const Context& context, const Parsed& parsed,
                                            const spec::LoadOptions& options) {
  const std::vector<std::string> given = parsed.all("file");
  if (!given.empty()) return absolute_paths(context, given);
  std::vector<std::string> found = TRY(files_of_variable(context, options));
  if (!found.empty()) return found;
  const std::string& folder =
      options.project_directory.empty() ? options.working_directory : options.project_directory;
  found = spec::discover(folder, base::path_exists);
  if (found.empty())
    return base::fail(ErrorCode::NotFound,
                      "no stack file (compose.yaml, stack.yaml, stack.toml, …) in '{}' or above; "
                      "name one with --file",
                      folder);
  const std::vector<std::string> others = spec::passed_over(found, base::path_exists);
  if (!others.empty())
    tell_warning(
        fmt::format("several stack files: {} is used, not {}; name what you mean with "
                    "--file",
                    base::join(quoted(found), " with "), base::join(quoted(others), ", ")));
  return found;
}

Result<std::string> read_stdin() {
  std::string text;
  std::string buffer(64 * 1024, '\0');
  while (const size_t count = TRY(base::read_some(STDIN_FILENO, buffer))) {
    text.append(buffer, 0, count);
    if (text.size() > base::limits::stack_file_bytes_max)
      return base::fail(ErrorCode::InvalidArgument, "the stack at stdin is larger than {} bytes",
                        base::limits::stack_file_bytes_max);
  }
  return text;
}

/// Texts of files by line, for the carets of diagnostics.
class Sources {
 public:
  void add(const std::string& path, std::string text) { texts_[path] = std::move(text); }
  std::string line(const std::string& path, uint32_t number) const {
    const auto found = texts_.find(path);
    if (found == texts_.end() || number == 0) return "";
    std::string_view rest = found->second;
    for (uint32_t i = 1; i < number; ++i) {
      const size_t end = rest.find('\n');
      if (end == std::string_view::npos) return "";
      rest.remove_prefix(end + 1);
    }
    return std::string(rest.substr(0, rest.find('\n')));
  }

 private:
  std::map<std::string, std::string> texts_;
};

std::string counted(size_t errors) {
  return errors == 1 ? "1 error" : fmt::format("{} errors", errors);
}

Result<StackFiles> read_files(const Context& context, const Parsed& parsed) {
  StackFiles result;
  Sources sources;
  spec::LoadOptions options = options_of(context, parsed);
  options.files = TRY(find_files(context, parsed, options));
  for (const std::string& file : options.files)
    if (file == "-") {
      options.stdin_text = TRY(read_stdin());
      sources.add(file, options.stdin_text);
    }
  if (options.project_directory.empty() && options.files.front() == "-")
    options.project_directory = context.surroundings.working_directory;
  options.read_file = [&](const std::string& path) -> Result<std::string> {
    result.read.insert(path);
    std::string text = TRY(context.surroundings.read_file(path));
    sources.add(path, text);
    return text;
  };
  spec::Loaded loaded = spec::load(options);
  for (const spec::Diagnostic& diagnostic : loaded.diagnostics) {
    if (diagnostic.severity == spec::Severity::Error) ++result.errors;
    tell(spec::render(diagnostic, [&](const std::string& file, uint32_t line) {
      return sources.line(file, line);
    }));
  }
  result.stack = std::move(loaded.stack);
  result.pull_policies = std::move(loaded.pull_policies);
  result.build_secrets = std::move(loaded.build_secrets);
  return result;
}

Result<StackFiles> valid(StackFiles files) {
  if (files.stack) return files;
  return base::fail(ErrorCode::InvalidArgument, "the stack has {}; nothing was changed",
                    counted(files.errors));
}

}  // namespace

std::vector<Flag> stack_file_flags() {
  return {
      {.name = "file",
       .short_name = 'f',
       .value = "FILE",
       .help = "Stack file; several are merged; -: stdin"},
      {.name = "project-name", .short_name = 'p', .value = "NAME", .help = "Name of the project"},
      {.name = "project-directory", .value = "FOLDER", .help = "What relative paths start from"},
      {.name = "env-file", .value = "FILE", .help = "Variables for the stack, instead of .env"},
      {.name = "strict", .help = "What has no effect here is an error"},
  };
}

Result<StackFiles> load_stack(const Context& context, const Parsed& parsed) {
  StackFiles result = TRY(read_files(context, parsed));
  if (!result.stack) return result;
  // What names no registry is of the default one, whether it is pulled or built.
  const RegistryConfig config = TRY(read_registry_config(context.surroundings));
  for (auto& [name, service] : result.stack->services)
    service.image = with_registry(service.image, config);
  return result;
}

Result<StackFiles> load_valid_files(const Context& context, const Parsed& parsed) {
  return valid(TRY(load_stack(context, parsed)));
}

Result<spec::Stack> load_valid_stack(const Context& context, const Parsed& parsed) {
  return std::move(*TRY(load_valid_files(context, parsed)).stack);
}

namespace {

Result<std::string> name_in_files(const Context& context, const Parsed& parsed) {
  return TRY(valid(TRY(read_files(context, parsed)))).stack->name;
}

}  // namespace

Result<std::string> project_of(const Context& context, const Parsed& parsed) {
  std::string name = parsed.value("project-name").value_or("");
  if (name.empty()) name = variable(context, "COMPOSE_PROJECT_NAME");
  if (name.empty()) {
    Result<std::string> found = name_in_files(context, parsed);
    if (found) return found;
    return base::fail(found.error().code(), "{} (--project-name NAME needs no file)",
                      found.error().to_string());
  }
  TRY_DURING(base::check_project_name(name), "--project-name");
  return name;
}

}  // namespace cli
