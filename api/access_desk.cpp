#include "api/access_desk.h"

#include <chrono>
#include <utility>

#include "base/json.h"
#include "base/text.h"
#include "image/reference.h"

namespace api {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;
namespace registry = image::registry;

Route AccessDesk::route() {
  return {.method = "POST",
          .pattern = "/v1/registries/access",
          .handler = [this](const HttpRequest& request) { return answer(request); },
          .upload = {}};
}

Result<registry::Access> AccessDesk::ask(const std::string& reference, const TellLine& tell,
                                         registry::Cancel& cancel, int64_t timeout_ms) {
  const std::string id = base::random_hex(16);
  const auto question = std::make_shared<Question>();
  {
    const std::lock_guard lock(mutex_);
    open_.emplace(id, question);
  }
  const uint64_t token = cancel.on_cancel([this, question] {
    const std::lock_guard lock(mutex_);
    question->given_up = true;
    changed_.notify_all();
  });
  tell({{"type", "access"}, {"question", id}, {"reference", reference}});
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                    [&] { return question->answer || question->given_up; });
  open_.erase(id);
  lock.unlock();
  cancel.forget(token);
  if (question->answer) return std::move(*question->answer);
  if (question->given_up) return fail(ErrorCode::Cancelled, "given up by whoever asked for it");
  return fail(ErrorCode::Timeout, "the command did not say within {} s how '{}' is reached",
              timeout_ms / 1000, base::escape_controls(reference));
}

/// {"question", "access"}, or {"question", "problem": why there is none}.
Result<HttpReply> AccessDesk::answer(const HttpRequest& request) {
  const json body = TRY(base::parse_json(request.body));
  const std::string id = TRY(base::json_string(body, "question"));
  const std::string problem = base::json_string_or(body, "problem", "");
  const auto access = body.find("access");
  if (problem.empty() && access == body.end())
    return fail(ErrorCode::InvalidArgument, "'access' is missing");
  Result<registry::Access> told = problem.empty() ? registry::access_from_json(*access)
                                                  : fail(ErrorCode::Denied, "{}", problem);
  const std::lock_guard lock(mutex_);
  const auto found = open_.find(id);
  if (found == open_.end())
    return fail(ErrorCode::NotFound, "nobody waits for the answer to this question");
  found->second->answer = std::move(told);
  changed_.notify_all();
  return json_reply(json::object());
}

Result<std::unique_ptr<TaskAccess>> TaskAccess::create(AccessDesk& desk, const json& given,
                                                       TellLine tell, registry::Cancel& cancel) {
  std::unique_ptr<TaskAccess> access(new TaskAccess(desk, std::move(tell), cancel));
  if (given.is_null())
    access->given_ = registry::Access();
  else if (given != "ask")
    access->given_ = TRY(registry::access_from_json(given));
  return access;
}

Result<registry::Access> TaskAccess::for_image(const std::string& reference) {
  if (given_) return *given_;
  const std::string domain = TRY(image::parse_reference(reference)).domain;
  const std::lock_guard lock(mutex_);
  if (const auto known = known_.find(domain); known != known_.end()) return known->second;
  registry::Access access =
      TRY_DURING(desk_.ask(reference, tell_, cancel_), "access to '{}'", domain);
  return known_.emplace(domain, std::move(access)).first->second;
}

}  // namespace api
