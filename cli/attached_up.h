#pragma once
/// `up` that stays: shows what the services write until they end or somebody presses Ctrl-C.
///
/// Makes the containers first, attaches to them, starts them then: not a line is missed. Ctrl-C
/// stops them by a plan; a second one kills them past that plan, over the attached connections,
/// because a plan in the making holds the lock that another one would wait for.

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "cli/context.h"

namespace cli {

/// What to carry out, and whose output to show.
struct Round {
  std::vector<nlohmann::json> commands;  ///< For /v1/apply, one after the other.
  std::set<std::string> services;        ///< Shown; empty: all of the project.
};

struct AttachedOptions {
  std::string project;
  Round first;
  std::optional<int64_t> stop_grace_ms;
  /// Files to watch; empty: none. `again` reads them anew and says what to do; nullopt (and it has
  /// told why) leaves everything as it runs.
  std::set<std::string> watched;
  std::function<std::optional<Round>(std::set<std::string>& watched)> again;
};

/// The exit code. An error if the first round fails.
base::Result<int> show_attached(const Context& context, AttachedOptions options);

/// Lines of one container with its name before each: `web-1  | hello`.
class PrefixedLines {
 public:
  /// `colour`: an escape sequence, or empty.
  PrefixedLines(std::string name, std::string colour, bool terminal);
  /// What to print for these bytes: whole lines, and pieces of lines that are too long.
  std::string feed(std::string_view bytes, size_t name_width);
  /// A last line without an end.
  std::string finish(size_t name_width);

 private:
  std::string line(std::string_view text, size_t name_width) const;
  std::string name_;
  std::string colour_;
  bool terminal_ = false;
  std::string partial_;
};

}  // namespace cli
