#include "builder/pattern.h"

#include "builder/characters.h"

namespace builder {

using base::ErrorCode;
using base::Result;

Result<ShellPattern> ShellPattern::create(std::string_view text) {
  ShellPattern made;
  for (size_t at = 0; at < text.size();) {
    size_t count = character_bytes(text, at);
    std::string_view character = text.substr(at, count);
    at += count;
    if (character == "*") {
      // Two stars in a row mean one.
      if (made.items_.empty() || made.items_.back().kind != Item::Kind::Star)
        made.items_.push_back({Item::Kind::Star, ""});
      continue;
    }
    if (character == "?") {
      made.items_.push_back({Item::Kind::Any, ""});
      continue;
    }
    if (character == "\\") {
      // `}` and `/` end parts of the `${…}` around the pattern; their escape is not the pattern's.
      const std::string_view next =
          at < text.size() ? text.substr(at, character_bytes(text, at)) : std::string_view();
      if (next == "}" || next == "/") continue;
      if (next != "*" && next != "?" && next != "\\")
        return base::fail(ErrorCode::InvalidArgument,
                          "invalid escape '\\{}' in the pattern '{}': only \\*, \\? and \\\\ are "
                          "escapes",
                          next, text);
      character = next;
      at += next.size();
    }
    made.items_.push_back({Item::Kind::Character, std::string(character)});
  }
  return made;
}

ShellPattern ShellPattern::reversed() const {
  ShellPattern made;
  made.items_.assign(items_.rbegin(), items_.rend());
  return made;
}

ShellPattern::Reached ShellPattern::begin() const {
  Reached reached(items_.size() + 1);
  reached[0] = true;
  if (!items_.empty() && items_[0].kind == Item::Kind::Star) reached[1] = true;
  return reached;
}

bool ShellPattern::step(Reached& reached, std::string_view character) const {
  Reached next(items_.size() + 1);
  bool alive = false;
  for (size_t i = 0; i < items_.size(); ++i) {
    const Item& item = items_[i];
    const bool is_star = item.kind == Item::Kind::Star;
    if (reached[i]) {
      // As in the reference, a wildcard does not match the end of a line.
      const bool fits =
          item.kind == Item::Kind::Character ? item.character == character : character != "\n";
      if (fits) next[is_star ? i : i + 1] = alive = true;
    }
    if (is_star && next[i]) next[i + 1] = true;  // a star may match nothing
  }
  reached = std::move(next);
  return alive;
}

std::optional<size_t> ShellPattern::match_at(const Characters& text, size_t from,
                                             bool longest) const {
  Reached reached = begin();
  std::optional<size_t> end;
  if (reached.back()) end = from;
  for (size_t at = from; at < text.size() && (longest || !end); ++at) {
    if (!step(reached, text[at])) break;
    if (reached.back()) end = at + 1;
  }
  return end;
}

/// Read backwards, with a match that may begin anywhere: where it ends, one begins in the text.
std::vector<bool> ShellPattern::match_starts(const Characters& text) const {
  const ShellPattern backwards = reversed();
  const Reached fresh = backwards.begin();
  std::vector<bool> starts(text.size() + 1);
  Reached reached = fresh;
  starts[text.size()] = reached.back();
  for (size_t at = text.size(); at-- > 0;) {
    backwards.step(reached, text[at]);
    for (size_t i = 0; i < fresh.size(); ++i)
      if (fresh[i]) reached[i] = true;
    starts[at] = reached.back();
  }
  return starts;
}

namespace {

std::vector<std::string_view> characters_of(std::string_view text) {
  std::vector<std::string_view> characters;
  for (size_t at = 0; at < text.size();) {
    characters.push_back(text.substr(at, character_bytes(text, at)));
    at += characters.back().size();
  }
  return characters;
}

std::string joined(const std::vector<std::string_view>& characters, size_t from, size_t to) {
  std::string text;
  for (size_t i = from; i < to; ++i) text += characters[i];
  return text;
}

}  // namespace

std::string ShellPattern::without_prefix(std::string_view text, bool longest) const {
  const Characters characters = characters_of(text);
  return joined(characters, match_at(characters, 0, longest).value_or(0), characters.size());
}

std::string ShellPattern::without_suffix(std::string_view text, bool longest) const {
  const Characters characters = characters_of(text);
  const Characters backwards(characters.rbegin(), characters.rend());
  const size_t cut = reversed().match_at(backwards, 0, longest).value_or(0);
  return joined(characters, 0, characters.size() - cut);
}

std::string ShellPattern::replace(std::string_view text, std::string_view with, bool all) const {
  const Characters characters = characters_of(text);
  const std::vector<bool> starts = match_starts(characters);
  std::string result;
  bool after_match = false;  // an empty match right behind a match does not count
  for (size_t at = 0; at <= characters.size();) {
    if (starts[at]) {
      const size_t end = match_at(characters, at, true).value_or(at);
      if (end > at || !after_match) {
        result += with;
        if (!all) return result + joined(characters, end, characters.size());
        after_match = true;
        if (end > at) {
          at = end;
          continue;
        }
      }
    }
    if (at < characters.size()) result += characters[at];
    ++at;
    after_match = false;
  }
  return result;
}

}  // namespace builder
