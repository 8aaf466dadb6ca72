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

Result<json> converse(const Context& context, const Parsed& parsed, const Request& request,
                      TransferView& view) {
  const Drawing drawing(view);
  std::optional<json> result;
  LineSplitter splitter;
  const Result<> heard = context.client.stream(request, [&](std::string_view bytes) {
    return splitter.feed(bytes, [&](const std::string& line) -> Result<> {
      json message = TRY_DURING(base::parse_json(line), "understand the daemon");
      const std::string type = base::json_string_or(message, "type", "");
      if (type == "progress") view.take(message);
      if (type == "access") return answer_access(context, parsed, message);
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
                           const std::string& what, json body, json access,
                           const std::string& usual_progress = "auto") {
  body["access"] = std::move(access);
  Request request;
  request.method = "POST";
  request.target = target;
  request.body = base::dump_json(body);
  request.silence_ms_max = -1;  // the daemon has deadlines of its own for every wait
  const ProgressStyle terminal = progress_style();
  TransferView view(
      transfer_style(parsed.value("progress").value_or(usual_progress), terminal.live), what,
      terminal.width, now_ms());
  return converse(context, parsed, request, view);
}

/// Image and platform.
using ImageKey = std::pair<std::string, std::string>;

/// How often a registry is asked: of two services with one image the more often counts.
int eagerness(spec::PullPolicy policy) {
  if (policy == spec::PullPolicy::Always) return 2;
  return policy == spec::PullPolicy::Missing ? 1 : 0;
}

/// Of each service, once; what the stack builds itself comes from no registry.
std::map<ImageKey, spec::PullPolicy> images_of(const spec::Stack& stack,
                                               const PullPolicies& policies = {}) {
  std::map<ImageKey, spec::PullPolicy> images;
  for (const auto& [name, service] : stack.services) {
    if (service.image.empty() || stack.builds.contains(name)) continue;
    const auto said = policies.find(name);
    const auto policy = said == policies.end() ? spec::PullPolicy::Missing : said->second;
    const auto [known, is_new] =
        images.try_emplace({service.image, service.platform.value_or("")}, policy);
    if (!is_new && eagerness(policy) > eagerness(known->second)) known->second = policy;
  }
  return images;
}

std::string word_of(spec::PullPolicy policy) {
  if (policy == spec::PullPolicy::Always) return "always";
  return policy == spec::PullPolicy::Missing ? "missing" : "never";
}

Result<bool> is_present(const Context& context, const json& body) {
  Request question;
  question.method = "POST";
  question.target = "/v1/images/present";
  question.body = base::dump_json(body);
  const json answer = TRY(base::parse_json(TRY(context.client.call(question))));
  return base::json_bool_or(answer, "present", false);
}

/// One image, as `--pull` says, else as `usual` does.
Result<> bring(const Context& context, const Parsed& parsed, json body,
               const std::string& usual = "missing") {
  const std::string policy = parsed.value("pull").value_or(usual);
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

Result<json> long_task(const Context& context, const Parsed& parsed, const std::string& target,
                       const std::string& what) {
  // Without a terminal there is nothing to count, and so nothing to tell.
  return transfer_with(context, parsed, target, what, json::object(), "ask",
                       progress_style().live ? "auto" : "none");
}

Result<> answer_access(const Context& context, const Parsed& parsed, const json& question) {
  const auto find = [&]() -> Result<json> {
    const RegistryConfig config = TRY(read_registry_config(context.surroundings));
    return registry_access(context.surroundings, config, parsed,
                           {base::json_string_or(question, "reference", "")});
  };
  json body = {{"question", base::json_string_or(question, "question", "")}};
  Result<json> access = find();
  if (access)
    body["access"] = std::move(*access);
  else
    body["problem"] = access.error().to_string();
  Request request;
  request.method = "POST";
  request.target = "/v1/registries/access";
  request.body = base::dump_json(body);
  const auto heard = context.client.call(request);
  // Whoever asked may have ended meanwhile, and says itself why.
  if (!heard && heard.error().code() != ErrorCode::NotFound)
    return tl::unexpected<base::Error>(heard.error());
  return {};
}

Result<json> access_for(const Context& context, const Parsed& parsed, const spec::Stack& stack) {
  const RegistryConfig config = TRY(read_registry_config(context.surroundings));
  std::vector<std::string> references;
  for (const auto& [image, policy] : images_of(stack)) references.push_back(image.first);
  return registry_access(context.surroundings, config, parsed, references);
}

Result<> bring_images(const Context& context, const Parsed& parsed, const spec::Stack& stack,
                      const PullPolicies& policies) {
  for (const auto& [image, policy] : images_of(stack, policies))
    TRY(bring(context, parsed,
              {{"reference", image.first}, {"platform", image.second}, {"own_platform", true}},
              word_of(policy)));
  return {};
}

std::vector<std::string> images_not_pulled(const Parsed& parsed, const spec::Stack& stack,
                                           const PullPolicies& policies) {
  std::vector<std::string> left;
  for (const auto& [image, policy] : images_of(stack, policies))
    if (parsed.value("pull").value_or(word_of(policy)) == "never") left.push_back(image.first);
  return left;
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
