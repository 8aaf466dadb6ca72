/// image load, save, list, inspect, tag, delete, fsck, prune.

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <sys/stat.h>
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
#include "cli/output_format.h"
#include "cli/registry_settings.h"
#include "cli/transfer.h"
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
  request.target = parsed.has("force") ? "/v1/images/load?force=1" : "/v1/images/load";
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

// ---- saving ------------------------------------------------------------------------------------

/// `os/architecture[/variant]` from the flags; empty if none was given.
std::string platform_of(const Parsed& parsed) {
  if (const auto platform = parsed.value("platform")) return *platform;
  if (!parsed.has("arch") && !parsed.has("os")) return "";
  return fmt::format("{}/{}", parsed.value("os").value_or("linux"),
                     parsed.value("arch").value_or("amd64"));
}

/// A file that is there under its name only when it is whole. A pipe or a device is written as is.
class OutputFile {
 public:
  static Result<OutputFile> create(const std::string& path) {
    struct stat info {};
    const bool in_place = ::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode);
    OutputFile file;
    file.path_ = path;
    file.partial_ = in_place ? "" : fmt::format("{}.{}.partial", path, base::random_hex(4));
    file.fd_ = in_place ? TRY(base::open_file(path, O_WRONLY))
                        : TRY(base::open_file(file.partial_, O_WRONLY | O_CREAT | O_EXCL, 0666));
    return file;
  }
  OutputFile(OutputFile&& other) noexcept = default;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile() {
    if (fd_ && !partial_.empty()) ::unlink(partial_.c_str());
  }
  Result<> write(std::string_view bytes) {
    TRY_DURING(base::write_all(fd_.get(), bytes), "write '{}'", path_);
    return {};
  }
  Result<> finish() {
    if (!partial_.empty() && ::rename(partial_.c_str(), path_.c_str()) != 0)
      return base::fail_errno(errno, fmt::format("write '{}'", path_));
    fd_.reset();
    return {};
  }

 private:
  OutputFile() = default;
  std::string path_;
  std::string partial_;
  base::UniqueFd fd_;
};

/// The names a command is given, each in full where a default registry is set.
Result<std::vector<std::string>> names_of(const Context& context, const Parsed& parsed) {
  const RegistryConfig config = TRY(read_registry_config(context.surroundings));
  std::vector<std::string> names;
  for (const std::string& one : parsed.arguments) names.push_back(name_here(one, config));
  return names;
}

Result<int> save(Context& context, const Parsed& parsed) {
  Request request;
  request.method = "POST";
  request.target = "/v1/images/save";
  const std::vector<std::string> names = TRY(names_of(context, parsed));
  request.body = base::dump_json({{"references", names}, {"platform", platform_of(parsed)}});
  std::string references;
  for (const std::string& reference : parsed.arguments)
    references += base::escape_controls(reference) + "\n";
  const auto output = parsed.value("output");
  if (!output || *output == "-") {
    if (::isatty(STDOUT_FILENO) == 1)
      return wrong_usage(context, parsed, "name the archive with --output, or pipe it on");
    TRY(context.client.stream(request, [](std::string_view bytes) { return print(bytes); }));
    tell(references);
    return 0;
  }
  OutputFile file = TRY(OutputFile::create(absolute_path(context, *output)));
  TRY(context.client.stream(request, [&](std::string_view bytes) { return file.write(bytes); }));
  TRY(file.finish());
  TRY(print(references));
  return 0;
}

// ---- looking -----------------------------------------------------------------------------------

Result<int> list(Context& context, const Parsed& parsed) {
  const bool verbose = parsed.has("verbose");
  const json images = TRY(ask(context, verbose ? "/v1/images?verbose=1" : "/v1/images"));
  json shapes = json::array();
  std::vector<Row> rows;
  std::string names;
  for (const json& image : images) {
    if (verbose)
      std::ranges::move(variant_rows(image), std::back_inserter(rows));
    else
      rows.push_back(image_row(image));
    shapes.push_back(verbose ? image_details_json(image) : image_json(image));
    names += base::escape_controls(base::json_string_or(image, "reference", "")) + "\n";
  }
  if (const auto format = document_format(parsed))
    TRY(print(render_document(shapes, *format)));
  else if (parsed.has("quiet"))
    TRY(print(names));
  else
    TRY(print(render_table(verbose ? variant_header() : image_header(), rows)));
  return 0;
}

Result<int> inspect(Context& context, const Parsed& parsed) {
  json details = json::array();
  bool complete = true;
  for (const std::string& reference : TRY(names_of(context, parsed))) {
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

// ---- names, and an end to them -----------------------------------------------------------------

Result<int> tag(Context& context, const Parsed& parsed) {
  const std::vector<std::string> names = TRY(names_of(context, parsed));
  Request request;
  request.method = "POST";
  request.target = "/v1/images/tag";
  request.body = base::dump_json({{"source", names.at(0)}, {"target", names.at(1)}});
  const json answer = TRY(base::parse_json(TRY(context.client.call(request))));
  TRY(print(base::escape_controls(base::json_string_or(answer, "reference", "")) + "\n"));
  return 0;
}

Result<int> prune(Context& context, const Parsed& parsed) {
  Request request;
  request.method = "POST";
  request.target = "/v1/images/prune";
  request.body = base::dump_json({{"all", parsed.has("all")}});
  const json answer = TRY(base::parse_json(TRY(context.client.call(request))));
  for (const std::string& reference : texts(answer, "deleted"))
    TRY(print(base::escape_controls(reference) + "\n"));
  tell(reclaimed_text(base::json_int_or(answer, "reclaimed_bytes", 0)));
  return 0;
}

/// 1 if something is wrong that could not be repaired.
Result<int> check(Context& context, const Parsed& parsed) {
  const json report =
      TRY(long_task(context, parsed, "/v1/images/check", "Checking what images are made of"));
  for (const std::string& text : texts(report, "repaired")) TRY(print(printable(text) + "\n"));
  const std::vector<std::string> problems = texts(report, "problems");
  for (const std::string& text : problems) TRY(print(printable(text) + "\n"));
  tell(fmt::format("{} blobs and {} disks checked: {}\n", base::json_int_or(report, "blobs", 0),
                   base::json_int_or(report, "disks", 0),
                   problems.empty() ? "all is well" : "images lack content"));
  return problems.empty() ? 0 : 1;
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
      parsed.has("all") ? TRY(all_references(context)) : TRY(names_of(context, parsed));
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
  if (complete) tell(reclaimed_text(reclaimed));
  return complete ? 0 : 1;
}

}  // namespace

namespace {

Command save_command() {
  return {.name = "save",
          .summary = "Write images to an archive (OCI layout, docker load reads it too)",
          .arguments = "IMAGE…",
          .arguments_min = 1,
          .arguments_max = any_number,
          .flags = {{.name = "output",
                     .short_name = 'o',
                     .value = "FILE",
                     .help = "The archive; otherwise stdout"},
                    {.name = "arch",
                     .short_name = 'a',
                     .value = "ARCH",
                     .help = "Only the image for this processor"},
                    {.name = "os", .value = "OS", .help = "Only the image for this system"},
                    {.name = "platform",
                     .value = "OS/ARCH",
                     .help = "Only the image for this platform; wins over --os and --arch"}},
          .handler = save};
}

Command load_command() {
  return {.name = "load",
          .summary = "Bring in the images of an archive (OCI layout or docker save)",
          .flags = {{.name = "input",
                     .short_name = 'i',
                     .value = "FILE",
                     .help = "The archive; otherwise stdin"},
                    {.name = "force",
                     .short_name = 'f',
                     .help = "Leave out members with invalid paths instead of refusing all"}},
          .handler = load};
}

Command list_command() {
  return {.name = "list",
          .other_names = "ls",
          .summary = "List images",
          .flags = {{.name = "format", .value = format_values, .help = "How to print it"},
                    {.name = "quiet", .short_name = 'q', .help = "References only"},
                    {.name = "verbose",
                     .short_name = 'v',
                     .help = "Every platform, with sizes and digests"}},
          .handler = list};
}

Command delete_command() {
  return {.name = "delete",
          .other_names = "rm",
          .summary = "Remove images",
          .arguments = "[IMAGE…]",
          .arguments_max = any_number,
          .flags = {{.name = "all", .short_name = 'a', .help = "Every image"},
                    {.name = "force",
                     .short_name = 'f',
                     .help = "Also what is in use; missing ones are no error"}},
          .handler = remove};
}

}  // namespace

std::vector<Command> image_commands() {
  std::vector<Command> all = {
      {.name = "image",
       .other_names = "images i",
       .group = "Images",
       .summary = "Load, save, list, name and remove images",
       .commands = {
           load_command(),
           save_command(),
           list_command(),
           {.name = "inspect",
            .summary = "Show all about images, as JSON",
            .arguments = "IMAGE…",
            .arguments_min = 1,
            .arguments_max = any_number,
            .handler = inspect},
           {.name = "tag",
            .summary = "Give an image one more name",
            .arguments = "IMAGE NAME",
            .arguments_min = 2,
            .arguments_max = 2,
            .handler = tag},
           delete_command(),
           {.name = "fsck",
            .summary = "Read all images' content, and fetch again what is damaged",
            .flags = registry_flags(),
            .handler = check},
           {.name = "prune",
            .summary = "Remove images without a name",
            .flags = {{.name = "all", .short_name = 'a', .help = "All that no container uses"}},
            .handler = prune},
       }}};
  for (Command& one : image_transfer_commands()) all.front().commands.push_back(std::move(one));
  return all;
}

}  // namespace cli
