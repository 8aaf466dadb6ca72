#include "cli/transfer.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "base/deadline.h"
#include "base/json.h"
#include "base/text.h"
#include "cli/console.h"
#include "cli/line_stream.h"
#include "cli/registry_settings.h"
#include "cli/transfer_view.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

int64_t now_ms() { return base::boottime_ns() / 1'000'000; }

/// Draws while the answer is read on another thread.
class Drawing {
 public:
  explicit Drawing(TransferView& view) : view_(view), thread_([this] { run(); }) {}
  ~Drawing() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    thread_.join();
    tell(view_.finish());
  }

 private:
  static constexpr std::chrono::milliseconds frame{40};
  void run() {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, frame, [&] { return ended_; })) tell(view_.draw(now_ms()));
  }

  TransferView& view_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  std::thread thread_;
};

Result<json> converse(const Context& context, const Request& request, TransferView& view) {
  const Drawing drawing(view);
  std::optional<json> result;
  LineSplitter splitter;
  const Result<> heard = context.client.stream(request, [&](std::string_view bytes) {
    return splitter.feed(bytes, [&](const std::string& line) -> Result<> {
      json message = TRY_DURING(base::parse_json(line), "understand the daemon");
      const std::string type = base::json_string_or(message, "type", "");
      if (type == "progress") view.take(message);
      if (type == "result") result = std::move(message);
      return {};
    });
  });
  if (!heard && heard.error().code() != ErrorCode::Io)
    return tl::unexpected<base::Error>(heard.error());
  if (!result)
    return base::fail(ErrorCode::Io,
                      "the daemon went away before it was done; when it runs again, the same "
                      "command goes on where this one stopped");
  if (!base::json_bool_or(*result, "success", false))
    return tl::unexpected<base::Error>(
        base::Error(base::error_code_from_name(base::json_string_or(*result, "code", "")),
                    base::json_string_or(*result, "message", "it failed")));
  return std::move(*result);
}

Result<json> transfer_with(const Context& context, const Parsed& parsed, const std::string& target,
                           const std::string& what, json body, json access) {
  body["access"] = std::move(access);
  Request request;
  request.method = "POST";
  request.target = target;
  request.body = base::dump_json(body);
  request.silence_ms_max = -1;  // the daemon has deadlines of its own for every wait
  const ProgressStyle terminal = progress_style();
  TransferView view(transfer_style(parsed.value("progress").value_or("auto"), terminal.live), what,
                    terminal.width, now_ms());
  return converse(context, request, view);
}

/// Image and platform of each service, once; what the stack builds itself comes from no registry.
std::set<std::pair<std::string, std::string>> images_of(const spec::Stack& stack) {
  std::set<std::pair<std::string, std::string>> images;
  for (const auto& [name, service] : stack.services)
    if (!service.image.empty() && !stack.builds.contains(name))
      images.emplace(service.image, service.platform.value_or(""));
  return images;
}

Result<bool> is_present(const Context& context, const json& body) {
  Request question;
  question.method = "POST";
  question.target = "/v1/images/present";
  question.body = base::dump_json(body);
  const json answer = TRY(base::parse_json(TRY(context.client.call(question))));
  return base::json_bool_or(answer, "present", false);
}

/// One image, as `--pull` says.
Result<> bring(const Context& context, const Parsed& parsed, json body) {
  const std::string policy = parsed.value("pull").value_or("missing");
  if (policy == "never") return {};
  // Asked without credentials: helpers are slow, and mostly the image is here.
  if (policy == "missing" && TRY(is_present(context, body))) return {};
  const std::string reference = base::json_string_or(body, "reference", "");
  const RegistryConfig config = TRY(read_registry_config(context.surroundings));
  json access = TRY(registry_access(context.surroundings, config, parsed, {reference}));
  (void)TRY_DURING(transfer_with(context, parsed, "/v1/images/pull",
                                 "Fetching image " + base::escape_controls(reference),
                                 std::move(body), std::move(access)),
                   "pull '{}'", reference);
  return {};
}

}  // namespace

std::optional<std::string> wanted_platform(const Context& context, const Parsed& parsed) {
  if (const auto platform = parsed.value("platform")) return platform;
  if (parsed.has("arch") || parsed.has("os"))
    return fmt::format("{}/{}", parsed.value("os").value_or("linux"),
                       parsed.value("arch").value_or("amd64"));
  const auto& environment = context.surroundings.environment;
  const auto found = environment.find("CONTAINER_DEFAULT_PLATFORM");
  if (found == environment.end() || found->second.empty()) return std::nullopt;
  tell_warning(fmt::format("using the platform of CONTAINER_DEFAULT_PLATFORM, {}", found->second));
  return found->second;
}

Result<json> transfer(const Context& context, const Parsed& parsed, const std::string& target,
                      const std::string& what, json body) {
  const RegistryConfig config = TRY(read_registry_config(context.surroundings));
  const std::string reference = with_registry(base::json_string_or(body, "reference", ""), config);
  body["reference"] = reference;
  json access = TRY(registry_access(context.surroundings, config, parsed, {reference}));
  return transfer_with(context, parsed, target, what, std::move(body), std::move(access));
}

Result<json> access_for(const Context& context, const Parsed& parsed, const spec::Stack& stack) {
  const RegistryConfig config = TRY(read_registry_config(context.surroundings));
  std::vector<std::string> references;
  for (const auto& [reference, platform] : images_of(stack)) references.push_back(reference);
  return registry_access(context.surroundings, config, parsed, references);
}

Result<> bring_images(const Context& context, const Parsed& parsed, const spec::Stack& stack) {
  for (const auto& [reference, platform] : images_of(stack))
    TRY(bring(context, parsed,
              {{"reference", reference}, {"platform", platform}, {"own_platform", true}}));
  return {};
}

Result<> bring_planned_images(const Context& context, const Parsed& parsed,
                              const planner::Plan& plan) {
  std::set<std::string> seen;
  for (const planner::Step& step : plan.steps) {
    const auto* create = std::get_if<planner::CreateContainer>(&step.operation);
    if (create == nullptr || create->record.image_digest.empty()) continue;
    if (!seen.insert(create->record.image_digest).second) continue;
    TRY(bring(context, parsed,
              {{"reference", create->record.applied.image},
               {"digest", create->record.image_digest},
               {"platform", create->record.applied.platform.value_or("")},
               {"own_platform", true}}));
  }
  return {};
}

std::vector<Flag> pull_flags() {
  std::vector<Flag> flags = registry_flags();
  flags.push_back(downloads_flag());
  flags.push_back({"pull", '\0', "always|missing|never", "When to pull images; otherwise missing"});
  return flags;
}

}  // namespace cli
