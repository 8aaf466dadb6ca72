#pragma once
/// How a task that turns out to need a registry gets the access to it: it asks the command that
/// began it, in a line of its answer, and the command brings the access in a request of its own.
///
/// So credentials are read by the user's side, only those that are needed, and only when they are.
/// They are kept in memory for as long as the task runs, and written nowhere.

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "api/http_server.h"
#include "base/result.h"
#include "image/registry/access.h"
#include "image/registry/http.h"

namespace api {

/// Takes a line of the task's answer. Thread-safe.
using TellLine = std::function<void(const nlohmann::json& line)>;

/// All questions that are open. Thread-safe.
class AccessDesk {
 public:
  /// A credential helper may have to ask the user.
  static constexpr int64_t answer_timeout_ms = 180'000;

  /// POST /v1/registries/access.
  Route route();
  /// Asks by `tell` and waits for the answer. Timeout if none comes, Cancelled by `cancel`.
  base::Result<image::registry::Access> ask(const std::string& reference, const TellLine& tell,
                                            image::registry::Cancel& cancel,
                                            int64_t timeout_ms = answer_timeout_ms);

 private:
  struct Question {
    std::optional<base::Result<image::registry::Access>> answer;
    bool given_up = false;
  };
  base::Result<HttpReply> answer(const HttpRequest& request);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::shared_ptr<Question>> open_;  ///< By id; guarded by mutex_.
};

/// The access of one task: what its request brought, or what it asks for. Thread-safe.
class TaskAccess {
 public:
  /// `given` is the request's "access" (api/wire.h): an object, "ask", or null for none.
  static base::Result<std::unique_ptr<TaskAccess>> create(AccessDesk& desk,
                                                          const nlohmann::json& given,
                                                          TellLine tell,
                                                          image::registry::Cancel& cancel);
  /// Asked once for each registry.
  base::Result<image::registry::Access> for_image(const std::string& reference);

 private:
  TaskAccess(AccessDesk& desk, TellLine tell, image::registry::Cancel& cancel)
      : desk_(desk), tell_(std::move(tell)), cancel_(cancel) {}

  AccessDesk& desk_;
  const TellLine tell_;
  image::registry::Cancel& cancel_;
  std::optional<image::registry::Access> given_;
  std::mutex mutex_;
  std::map<std::string, image::registry::Access> known_;  ///< By registry; guarded by mutex_.
};

}  // namespace api
