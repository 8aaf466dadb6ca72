#pragma once
/// A `.dockerignore` file: which paths of a context do not exist for its build.
///
/// One pattern a line, `#` comments, `!` for exceptions; the last pattern that matches a path or
/// one of its parents decides. `*` and `?` stop at `/`, `**` does not, `[a-z]` and `\` as in Go's
/// filepath.Match. A leading `/` and redundant `.` and `..` mean nothing.
///
/// Pure. Which file is read (`<Dockerfile>.dockerignore` before `.dockerignore`) is the caller's.

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace builder {

/// One compiled pattern, also of COPY's `--exclude` and sources.
class PathPattern {
 public:
  /// `**`: whether two stars may stand for several folders; otherwise they are one star.
  enum class Stars { Deep, OneFolder };
  /// InvalidArgument for a pattern that can mean nothing: an unclosed `[`, a trailing `\`.
  static base::Result<PathPattern> create(std::string_view pattern, Stars stars = Stars::Deep);
  /// The whole path. At most length of path × length of pattern steps, whatever the pattern.
  bool matches(std::string_view path) const;
  /// The whole path, or one of its parents.
  bool matches_or_parent(std::string_view path) const;
  /// False only if nothing below `folder` can match.
  bool may_match_below(std::string_view folder) const;

  /// `*`, `?` or `[` that no `\` takes the meaning from.
  static bool has_wildcard(std::string_view pattern);

 private:
  struct Compiled;
  explicit PathPattern(std::shared_ptr<const Compiled> compiled) : compiled_(std::move(compiled)) {}
  std::shared_ptr<const Compiled> compiled_;
};

class Ignore {
 public:
  /// InvalidArgument names the line and what is wrong with its pattern.
  static base::Result<Ignore> parse(std::string_view text);
  /// From patterns, as `--exclude` gives them.
  static base::Result<Ignore> from_patterns(const std::vector<std::string>& patterns);

  bool empty() const { return rules_.empty(); }
  /// True if `path` (relative, as builder::Tree has it) is left out.
  bool excludes(std::string_view path) const;
  /// True if something below the excluded `folder` may be let in again by an exception.
  bool may_include_below(std::string_view folder) const;

  /// What is known of a folder, so that its children need not look at its parents again.
  struct State {
    std::vector<bool> matched;  ///< By rule: it matches the folder or one of its parents.
    bool excluded = false;
  };
  State state(const State& parent, std::string_view path) const;
  State root() const { return {std::vector<bool>(rules_.size()), false}; }

 private:
  struct Rule {
    PathPattern pattern;
    bool exception = false;
  };
  base::Result<> add(std::string_view pattern);
  std::vector<Rule> rules_;
};

}  // namespace builder
