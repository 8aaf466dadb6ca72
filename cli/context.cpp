#include "cli/context.h"

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "cli/console.h"

extern char** environ;

namespace cli {

using base::ErrorCode;
using base::Result;

Result<Surroundings> our_surroundings() {
  Surroundings ours;
  std::error_code error;
  ours.working_directory = std::filesystem::current_path(error).string();
  if (error) return base::fail_errno(error.value(), "find the working folder");
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string text(*entry);
    const size_t equals = text.find('=');
    if (equals != std::string::npos)
      ours.environment[text.substr(0, equals)] = text.substr(equals + 1);
  }
  const auto home = ours.environment.find("HOME");
  if (home != ours.environment.end()) ours.home_directory = home->second;
  ours.read_file = [](const std::string& path) {
    return base::read_file(path, base::limits::stack_file_bytes_max);
  };
  return ours;
}

std::string absolute_path(const Context& context, const std::string& path) {
  const std::filesystem::path given(path);
  const std::filesystem::path folder(context.surroundings.working_directory);
  return (given.is_absolute() ? given : folder / given).lexically_normal().string();
}

Result<nlohmann::json> ask(const Context& context, const std::string& target) {
  Request request;
  request.target = target;
  return base::parse_json(TRY(context.client.call(request)));
}

Result<nlohmann::json> ask_container(const Context& context, const std::string& id) {
  Result<nlohmann::json> record = ask(context, "/v1/containers/" + percent_encode(id));
  // Asked of the system, an empty or odd name would be another route: it is no container either.
  const bool has_id =
      record && record->is_object() && base::json_string_or(*record, "id", "") == id;
  if (record && !has_id) return base::fail(ErrorCode::NotFound, "container not found: {}", id);
  if (!record && record.error().code() == ErrorCode::NotFound &&
      base::path_exists(context.paths.api_socket()))
    return base::fail(ErrorCode::NotFound, "container not found: {}", id);
  return record;
}

int wrong_usage(const Context&, const Parsed& parsed, const std::string& message) {
  tell(usage({.message = printable(message), .command = parsed.command, .path = parsed.path}));
  return exit_usage;
}

}  // namespace cli
