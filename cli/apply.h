#pragma once
/// Commands that change something: POST /v1/apply, its lines, and what they mean.

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "cli/context.h"
#include "cli/line_stream.h"
#include "cli/progress.h"
#include "planner/plan.h"

namespace cli {

/// How a plan went.
struct Applied {
  planner::Plan plan;
  std::set<uint32_t> done;  ///< Ids of the steps that succeeded.
  std::vector<std::string> ids;
  std::vector<std::string> names;      ///< Networks and volumes that were made or removed.
  int64_t reclaimed_bytes = 0;         ///< Of a prune of volumes.
  std::optional<base::Error> problem;  ///< Absent: everything succeeded.
};

enum class Show {
  Nothing,
  Steps,
  StepsAndNotes,  ///< Also what the plan warns of.
  All,            ///< Also that there is nothing to do.
};

/// Takes the lines of /v1/apply one by one and tells on stderr what `Show` asks for.
class ApplyReader {
 public:
  explicit ApplyReader(Show show);
  /// InvalidState for a line that makes no sense.
  base::Result<> take(std::string_view line);
  /// The terminal has another size.
  void resize();
  /// Before and after something else is written to the terminal.
  void hide();
  void show();
  /// After the last line. Io if the answer broke off before its result.
  base::Result<Applied> finish();

 private:
  base::Result<> take_plan(const nlohmann::json& line);
  base::Result<> take_progress(const nlohmann::json& line);

  Show show_;
  ProgressView view_;
  Applied applied_;
  bool has_result_ = false;
};

/// The request that makes the daemon carry out `command` (api/wire.h).
Request apply_request(const nlohmann::json& command);

/// Carries out `command` to its end. An error is one of the road to the daemon; a plan that failed
/// is `Applied::problem`.
base::Result<Applied> apply(const Context& context, const nlohmann::json& command, Show show);

/// As `apply`, but a plan that failed is an error, too.
base::Result<Applied> apply_all(const Context& context, const nlohmann::json& command, Show show);

/// For `owner`: `up of 'shop' by pid 42`.
std::string owner_text(std::string_view command, std::string_view what);

}  // namespace cli
