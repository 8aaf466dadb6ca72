/// image load, list, inspect, delete.

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/context.h"
#include "cli/views.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

std::vector<std::string> texts(const json& object, const char* key) {
  std::vector<std::string> found;
  const auto list = object.find(key);
  if (list == object.end() || !list->is_array()) return found;
  for (const json& item : *list)
    if (item.is_string()) found.push_back(item.get<std::string>());
  return found;
}

Result<int> load(Context& context, const Parsed& parsed) {
  base::UniqueFd file;
  Request request;
  request.method = "POST";
  request.target = "/v1/images/load";
  request.body_fd = STDIN_FILENO;
  // Unpacking a large layer takes a while, and says nothing meanwhile.
  request.silence_ms_max = static_cast<int>(base::limits::api_upload_timeout_s) * 1000;
  if (const auto input = parsed.value("input"); input && *input != "-") {
    file = TRY(base::open_file(absolute_path(context, *input), O_RDONLY));
    request.body_fd = file.get();
  } else if (::isatty(STDIN_FILENO) == 1) {
    return wrong_usage(context, parsed, "name the archive with --input, or pipe it in");
  }
  const json answer = TRY(base::parse_json(TRY(context.client.call(request))));
  for (const std::string& note : texts(answer, "notes")) tell(printable(note) + "\n");
  for (const std::string& reference : texts(answer, "loaded"))
    TRY(print(base::escape_controls(reference) + "\n"));
  return 0;
}

Result<int> list(Context& context, const Parsed& parsed) {
  const json images = TRY(ask(context, "/v1/images"));
  const bool verbose = parsed.has("verbose");
  json shapes = json::array();
  std::vector<Row> rows;
  std::string names;
  for (const json& image : images) {
    rows.push_back(image_row(image, verbose));
    shapes.push_back(image_json(image));
    names += base::escape_controls(base::json_string_or(image, "reference", "")) + "\n";
  }
  if (parsed.value("format") == "json")
    TRY(print(base::dump_json(shapes) + "\n"));
  else if (parsed.has("quiet"))
    TRY(print(names));
  else
    TRY(print(render_table(image_header(verbose), rows)));
  return 0;
}

Result<int> inspect(Context& context, const Parsed& parsed) {
  json details = json::array();
  bool complete = true;
  for (const std::string& reference : parsed.arguments) {
    const Result<json> image =
        ask(context, "/v1/images/inspect?reference=" + percent_encode(reference));
    if (image) {
      details.push_back(image_details_json(*image));
    } else {
      tell_error(image.error());
      complete = false;
    }
  }
  if (!complete) return 1;
  TRY(print(base::dump_json_pretty(details) + "\n"));
  return 0;
}

Result<std::vector<std::string>> all_references(Context& context) {
  std::vector<std::string> references;
  const json images = TRY(ask(context, "/v1/images"));
  for (const json& image : images)
    references.push_back(base::json_string_or(image, "reference", ""));
  return references;
}

Result<int> remove(Context& context, const Parsed& parsed) {
  if (parsed.arguments.empty() && !parsed.has("all"))
    return wrong_usage(context, parsed, "no images specified and --all not supplied");
  if (!parsed.arguments.empty() && parsed.has("all"))
    return wrong_usage(context, parsed, "explicitly supplied images conflict with the --all flag");
  const std::vector<std::string> references =
      parsed.has("all") ? TRY(all_references(context)) : parsed.arguments;
  bool complete = true;
  int64_t reclaimed = 0;
  for (const std::string& reference : references) {
    Request request;
    request.method = "DELETE";
    request.target = fmt::format("/v1/images?reference={}{}", percent_encode(reference),
                                 parsed.has("force") ? "&force=1" : "");
    Result<std::string> answer = context.client.call(request);
    if (!answer && answer.error().code() == ErrorCode::NotFound && parsed.has("force") &&
        base::path_exists(context.paths.api_socket()))
      continue;
    if (!answer) {
      tell_error(answer.error());
      complete = false;
      continue;
    }
    const json removed = TRY(base::parse_json(*answer));
    for (const std::string& name : texts(removed, "deleted"))
      TRY(print(base::escape_controls(name) + "\n"));
    reclaimed += base::json_int_or(removed, "reclaimed_bytes", 0);
  }
  if (complete) tell(fmt::format("Reclaimed {} KB in disk space\n", reclaimed / 1024));
  return complete ? 0 : 1;
}

}  // namespace

std::vector<Command> image_commands() {
  const Flag format{.name = "format", .value = "json|table", .help = "How to print it"};
  return {{.name = "image",
           .other_names = "images i",
           .group = "Images",
           .summary = "Load, list and remove images",
           .commands = {
               {.name = "load",
                .summary = "Bring in the images of an archive (OCI layout or docker save)",
                .flags = {{.name = "input",
                           .short_name = 'i',
                           .value = "FILE",
                           .help = "The archive; otherwise stdin"}},
                .handler = load},
               {.name = "list",
                .other_names = "ls",
                .summary = "List images",
                .flags = {format,
                          {.name = "quiet", .short_name = 'q', .help = "References only"},
                          {.name = "verbose", .short_name = 'v', .help = "More columns"}},
                .handler = list},
               {.name = "inspect",
                .summary = "Show all about images, as JSON",
                .arguments = "IMAGE…",
                .arguments_min = 1,
                .arguments_max = any_number,
                .handler = inspect},
               {.name = "delete",
                .other_names = "rm",
                .summary = "Remove images",
                .arguments = "[IMAGE…]",
                .arguments_max = any_number,
                .flags = {{.name = "all", .short_name = 'a', .help = "Every image"},
                          {.name = "force",
                           .short_name = 'f',
                           .help = "Also what is in use; missing ones are no error"}},
                .handler = remove},
           }}};
}

}  // namespace cli
