#pragma once
/// Shell patterns of variable modifiers (`*` and `?`, no brackets), and where they match in a text.
///
/// Characters are Unicode code points. Every operation takes at most a few steps per character of
/// the text and item of the pattern; callers bound that product (limits::expansion_steps_max).

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace builder {

class ShellPattern {
 public:
  /// InvalidArgument for an escape of something that has no meaning to take away.
  static base::Result<ShellPattern> create(std::string_view text);

  /// Items of the pattern: characters and wildcards.
  size_t size() const { return items_.size(); }
  /// `${v#p}`, `${v##p}`
  std::string without_prefix(std::string_view text, bool longest) const;
  /// `${v%p}`, `${v%%p}`
  std::string without_suffix(std::string_view text, bool longest) const;
  /// `${v/p/r}`, `${v//p/r}`
  std::string replace(std::string_view text, std::string_view with, bool all) const;

 private:
  struct Item {
    enum class Kind { Character, Any, Star } kind = Kind::Character;
    std::string character;  ///< Its bytes.
  };
  using Characters = std::vector<std::string_view>;
  /// Which numbers of items can have matched so far.
  using Reached = std::vector<bool>;
  Reached begin() const;
  /// False if nothing can match any more.
  bool step(Reached& reached, std::string_view character) const;
  /// End of the shortest or longest match that begins at character `from`.
  std::optional<size_t> match_at(const Characters& text, size_t from, bool longest) const;
  std::vector<bool> match_starts(const Characters& text) const;
  ShellPattern reversed() const;
  std::vector<Item> items_;
};

}  // namespace builder
