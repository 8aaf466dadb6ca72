/// build, and builder start, status, stop, delete, prune.

#include <charconv>
#include <csignal>
#include <filesystem>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/json.h"
#include "base/process.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/build_client.h"
#include "cli/build_options.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/table.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

// ---- where results go --------------------------------------------------------------------------

/// Takes the tar of the image's files to where it was asked for.
class FileTarget {
 public:
  static Result<FileTarget> open(const Context& context, const OutputPlace& place) {
    FileTarget target;
    if (place.kind == OutputKind::Local)
      TRY(target.start_unpacking(context, place.destination));
    else if (place.destination.empty() || place.destination == "-")
      target.fd_ = STDOUT_FILENO;
    else
      TRY(target.open_file(absolute_path(context, place.destination)));
    return target;
  }

  Result<> write(std::string_view bytes) {
    if (unpacker_ && !base::write_all(fd_, bytes)) return finish();
    if (unpacker_) return {};
    return base::write_all(fd_, bytes);
  }

  bool is_stdout() const { return fd_ == STDOUT_FILENO; }

  /// After the last byte.
  Result<> finish() {
    owned_.reset();
    if (!path_.empty()) {
      if (::rename((path_ + ".partial").c_str(), path_.c_str()) != 0)
        return base::fail_errno(errno, fmt::format("rename to '{}'", path_));
      path_.clear();
    }
    if (!unpacker_) return {};
    const base::UniqueFd process = TRY(base::open_process(*unpacker_));
    const auto status =
        TRY(base::await_process(process.get(), unpacker_->pid, base::Deadline::never()));
    unpacker_.reset();
    if (status && *status == 0) return {};
    return base::fail(ErrorCode::Io, "tar could not write all files; see its messages above");
  }

  /// A build that failed: what was begun is given up.
  ~FileTarget() {
    if (!path_.empty()) ::unlink((path_ + ".partial").c_str());
    if (!unpacker_) return;
    const auto process = base::open_process(*unpacker_);
    if (!process) return;
    (void)base::signal_process(process->get(), SIGKILL);
    (void)base::await_process(process->get(), unpacker_->pid, base::Deadline::never());
  }
  FileTarget(FileTarget&& other) noexcept
      : owned_(std::move(other.owned_)),
        fd_(other.fd_),
        path_(std::exchange(other.path_, {})),
        unpacker_(std::exchange(other.unpacker_, std::nullopt)) {}
  FileTarget& operator=(FileTarget&&) = delete;

 private:
  FileTarget() = default;

  Result<> open_file(const std::string& path) {
    owned_ = TRY(base::open_file(path + ".partial", O_WRONLY | O_CREAT | O_TRUNC, 0644));
    fd_ = owned_.get();
    path_ = path;
    return {};
  }

  /// GNU tar keeps every member and link inside the folder.
  Result<> start_unpacking(const Context& context, const std::string& destination) {
    const std::string folder = absolute_path(context, destination);
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) return base::fail_errno(error.value(), fmt::format("make '{}'", folder));
    base::Pipe pipe = TRY(base::make_pipe());
    base::SpawnOptions options;
    options.arguments = {"/usr/bin/tar",      "--extract",
                         "--file=-",          "--directory=" + folder,
                         "--no-same-owner",   "--delay-directory-restore",
                         "--anchored",        "--exclude=dev/*",
                         "--xattrs-exclude=*"};
    options.environment = {"LC_ALL=C", "PATH=/usr/bin:/bin"};
    options.descriptors = {{pipe.reader.get(), 0}, {STDERR_FILENO, 2}};
    options.new_session = false;
    unpacker_ = TRY_DURING(base::spawn(options), "start tar");
    owned_ = std::move(pipe.writer);
    fd_ = owned_.get();
    return {};
  }

  base::UniqueFd owned_;
  int fd_ = -1;
  std::string path_;  ///< Of a file that gets its name once it is whole.
  std::optional<base::ProcessIdentity> unpacker_;
};

BuildProgress progress_of(const Parsed& parsed) {
  if (parsed.has("quiet")) return BuildProgress::Quiet;
  const std::string text = parsed.value("progress").value_or("auto");
  if (text == "plain") return BuildProgress::Plain;
  if (text == "tty") return BuildProgress::Tty;
  return text == "json" ? BuildProgress::Json : BuildProgress::Auto;
}

Result<> save_archive(const Context& context, const BuildOptions& options) {
  const std::string path = absolute_path(context, options.output.destination);
  const base::UniqueFd file =
      TRY(base::open_file(path + ".partial", O_WRONLY | O_CREAT | O_TRUNC, 0644));
  Request request;
  request.method = "POST";
  request.target = "/v1/images/save";
  request.body = base::dump_json({{"references", options.request.at("tags")}});
  request.silence_ms_max = -1;
  const Result<> saved = context.client.stream(
      request, [&](std::string_view bytes) { return base::write_all(file.get(), bytes); });
  if (!saved || ::rename((path + ".partial").c_str(), path.c_str()) != 0) {
    const int problem = errno;
    ::unlink((path + ".partial").c_str());
    TRY(saved);
    return base::fail_errno(problem, fmt::format("rename to '{}'", path));
  }
  return {};
}

Result<int> build(Context& context, const Parsed& parsed) {
  const Result<BuildOptions> read = read_build_options(context, parsed);
  if (!read && read.error().code() == ErrorCode::InvalidArgument)
    return wrong_usage(context, parsed, read.error().to_string());
  const BuildOptions options = TRY(Result<BuildOptions>(read));
  if (options.context_from_stdin && ::isatty(STDIN_FILENO) == 1)
    return wrong_usage(context, parsed, "pipe the context in: tar -c . | container build -");
  std::optional<FileTarget> target;
  const OutputKind kind = options.output.kind;
  const bool checks_only = parsed.has("check");
  if (!checks_only && (kind == OutputKind::Tar || kind == OutputKind::Local))
    target.emplace(TRY(FileTarget::open(context, options.output)));
  BuildCall call{.parsed = parsed, .line = {}, .files = {}};
  call.line = base::dump_json(options.request);
  call.tar_fd = options.context_from_stdin ? STDIN_FILENO : -1;
  call.progress = progress_of(parsed);
  call.files = [&](std::string_view bytes) { return target->write(bytes); };
  const json result = TRY(run_build(context, call));
  if (checks_only) {
    const int64_t warnings = base::json_int_or(result, "warnings", 0);
    tell(warnings == 0 ? "Nothing to remark.\n" : fmt::format("{} remark(s).\n", warnings));
    return warnings == 0 ? 0 : 1;
  }
  if (target) TRY(target->finish());
  if (kind == OutputKind::Oci) TRY(save_archive(context, options));
  if (target && target->is_stdout()) return 0;
  if (parsed.has("quiet")) {
    TRY(print(base::json_string_or(result, "digest", "") + "\n"));
    return 0;
  }
  if (kind == OutputKind::Tar || kind == OutputKind::Local) return 0;
  for (const std::string& tag : options.tags) TRY(print(base::escape_controls(tag) + "\n"));
  return 0;
}

// ---- builder -----------------------------------------------------------------------------------

Result<json> post(const Context& context, const std::string& target, const json& body) {
  Request request;
  request.method = "POST";
  request.target = target;
  request.body = base::dump_json(body);
  request.silence_ms_max = -1;
  return base::parse_json(TRY(context.client.call(request)));
}

Result<int> builder_start(Context& context, const Parsed& parsed) {
  json settings = json::object();
  if (const auto text = parsed.value("cpus")) {
    uint32_t cpus = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), cpus);
    if (error != std::errc() || end != text->data() + text->size() || cpus == 0)
      return wrong_usage(context, parsed, "--cpus is a whole number above 0");
    settings["cpus"] = cpus;
  }
  if (const auto text = parsed.value("memory")) {
    const auto bytes = base::parse_bytes(*text);
    if (!bytes) return wrong_usage(context, parsed, "--memory: " + bytes.error().to_string());
    settings["memory_bytes"] = *bytes;
  }
  if (parsed.has("dns")) settings["dns"] = parsed.all("dns");
  TRY(post(context, "/v1/builder", {{"start", settings}}));
  return 0;
}

Result<int> builder_status(Context& context, const Parsed& parsed) {
  const json state = TRY(ask(context, "/v1/builder"));
  const int64_t builds = base::json_int_or(state, "builds", 0);
  const bool running = base::json_bool_or(state, "started", false) || builds > 0;
  if (parsed.value("format") == "json") {
    json shape = state;
    shape["status"] = running ? "running" : "stopped";
    TRY(print(base::dump_json(running ? json::array({shape}) : json::array()) + "\n"));
    return 0;
  }
  if (!running) {
    if (!parsed.has("quiet")) TRY(print("builder is not running\n"));
    return 0;
  }
  if (parsed.has("quiet")) {
    TRY(print("builder\n"));
    return 0;
  }
  const auto memory = static_cast<uint64_t>(base::json_int_or(state, "memory_bytes", 0));
  const double cpus = state.value("cpus", 0.0);
  TRY(print(render_table({"ID", "IMAGE", "STATE", "IP", "CPUS", "MEMORY"},
                         {{"builder", "-", "running", "-", fmt::format("{}", cpus),
                           fmt::format("{} MB", memory >> 20)}})));
  return 0;
}

Result<int> builder_stop(Context& context, const Parsed&) {
  TRY(post(context, "/v1/builder", {{"stop", true}}));
  return 0;
}

Result<int> builder_delete(Context& context, const Parsed& parsed) {
  TRY(post(context, "/v1/builder", {{"delete", true}, {"force", parsed.has("force")}}));
  return 0;
}

Result<int> builder_prune(Context& context, const Parsed& parsed) {
  json body = {{"all", parsed.has("all")}};
  if (const auto text = parsed.value("keep-storage")) {
    const auto bytes = base::parse_bytes(*text);
    if (!bytes) return wrong_usage(context, parsed, "--keep-storage: " + bytes.error().to_string());
    body["keep_bytes"] = *bytes;
  }
  const json pruned = TRY(post(context, "/v1/builder/prune", body));
  tell(fmt::format("Forgot {} steps, reclaimed {} KB in disk space\n",
                   base::json_int_or(pruned, "entries", 0),
                   base::json_int_or(pruned, "reclaimed_bytes", 0) / 1024));
  return 0;
}

}  // namespace

std::vector<Command> build_commands() {
  const std::vector<Flag> shape = {
      {"cpus", 'c', "NUMBER", "Processors of each build's machine (2)"},
      {"memory", 'm', "SIZE", "Memory of each build's machine (2048M)"},
      {"dns", '\0', "IP", "Name server"}};
  return {{.name = "build",
           .group = "Images",
           .summary = "Build an image from a Dockerfile",
           .arguments = "[CONTEXT]",
           .arguments_max = 1,
           .flags = build_flags(),
           .handler = build},
          {.name = "builder",
           .group = "Images",
           .summary = "Settings and cache of builds",
           .commands = {
               {.name = "start",
                .summary = "Say how large the machines of builds are",
                .flags = shape,
                .handler = builder_start},
               {.name = "status",
                .summary = "Show the builder",
                .flags = {{.name = "format", .value = "json|table", .help = "How to print it"},
                          {.name = "quiet", .short_name = 'q', .help = "The id only"}},
                .handler = builder_status},
               {.name = "stop",
                .summary = "End what is being built, and forget the sizes",
                .handler = builder_stop},
               {.name = "delete",
                .other_names = "rm",
                .summary = "The same, and delete the cache",
                .flags = {{.name = "force",
                           .short_name = 'f',
                           .help = "Also while something is being built"}},
                .handler = builder_delete},
               {.name = "prune",
                .summary = "Delete the cache of build steps",
                .flags = {{.name = "all", .short_name = 'a', .help = "Cache mounts, too"},
                          {.name = "keep-storage",
                           .value = "SIZE",
                           .help = "Only what is over this, least used first"}},
                .handler = builder_prune},
           }}};
}

}  // namespace cli
