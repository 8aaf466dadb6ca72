#include "builder/ignore.h"

#include <algorithm>

#include "base/limits.h"
#include "base/text.h"
#include "builder/characters.h"

namespace builder {

using base::ErrorCode;
using base::Result;
namespace limits = base::limits;

/// A pattern is a row of items that a path walks through; several places in the row may be reached
/// at once, which is all that is kept while the path goes by.
struct PathPattern::Compiled {
  enum class Kind {
    Character,   ///< This one.
    NoSlash,     ///< `?`
    Star,        ///< `*`: any number of characters, no slash.
    Class,       ///< `[a-z]`
    Everything,  ///< `**` at the end, or at the beginning of a name: any number of characters.
    Folders,     ///< `**/`: nothing, or characters that end with a slash.
    FoldersIn,   ///< Between the two.
  };
  struct Item {
    Kind kind = Kind::Character;
    std::string character;
    bool negated = false;
    std::vector<std::pair<std::string, std::string>> ranges;
  };
  using Reached = std::vector<uint8_t>;

  std::vector<Item> items;
  std::string prefix;  ///< Every match begins so.
  std::string suffix;  ///< Every match ends so.

  /// `**/` may be nothing, stars too.
  void spread(Reached& reached) const {
    for (size_t i = 0; i < items.size(); ++i) {
      if (reached[i] == 0) continue;
      const Kind kind = items[i].kind;
      if (kind == Kind::Star || kind == Kind::Everything) reached[i + 1] = 1;
      if (kind == Kind::Folders) reached[i + 1] = reached[i + 2] = 1;
    }
  }
  static bool in_class(const Item& item, std::string_view character) {
    // Bytes of UTF-8 sort as their characters do.
    const bool found = std::any_of(item.ranges.begin(), item.ranges.end(), [&](const auto& range) {
      return range.first <= character && character <= range.second;
    });
    return found != item.negated;
  }
  /// False if no place is left.
  bool step(Reached& reached, Reached& next, std::string_view character) const {
    std::fill(next.begin(), next.end(), uint8_t{0});
    const bool slash = character == "/";
    bool alive = false;
    const auto reach = [&](size_t place) { next[place] = 1, alive = true; };
    for (size_t i = 0; i < items.size(); ++i) {
      if (reached[i] == 0) continue;
      const Item& item = items[i];
      switch (item.kind) {
        case Kind::Character:
          if (item.character == character) reach(i + 1);
          break;
        case Kind::NoSlash:
          if (!slash) reach(i + 1);
          break;
        case Kind::Star:
          if (!slash) reach(i);
          break;
        case Kind::Class:
          if (in_class(item, character)) reach(i + 1);
          break;
        case Kind::Everything: reach(i); break;
        case Kind::Folders: break;  // FoldersIn is reached whenever this is
        case Kind::FoldersIn:
          reach(i);
          if (slash) reach(i + 1);
          break;
      }
    }
    spread(next);
    reached.swap(next);
    return alive;
  }
  /// The places reached after all of `path`; empty if there are none.
  Reached walk(std::string_view path) const {
    Reached reached(items.size() + 1);
    Reached next(items.size() + 1);
    reached[0] = 1;
    spread(reached);
    for (size_t at = 0; at < path.size();) {
      const std::string_view character = path.substr(at, character_bytes(path, at));
      at += character.size();
      if (!step(reached, next, character)) return {};
    }
    return reached;
  }
};

namespace {

Result<std::string> class_character(std::string_view pattern, size_t& at) {
  if (at < pattern.size() && pattern[at] == '\\') ++at;
  if (at >= pattern.size())
    return base::fail(ErrorCode::InvalidArgument, "the pattern '{}' has a '[' without its ']'",
                      pattern);
  const size_t count = character_bytes(pattern, at);
  std::string character(pattern.substr(at, count));
  at += count;
  return character;
}

/// Behind the `[`, up to behind its `]`.
template <class Item>
Result<> read_class(std::string_view pattern, size_t& at, Item& item) {
  item.negated = at < pattern.size() && pattern[at] == '^';
  if (item.negated) ++at;
  while (at >= pattern.size() || pattern[at] != ']' || item.ranges.empty()) {
    if (at < pattern.size() && (pattern[at] == ']' || pattern[at] == '-'))
      return base::fail(ErrorCode::InvalidArgument,
                        "the pattern '{}' has a '{}' in brackets where a character must stand; "
                        "write \\{} for it",
                        pattern, pattern[at], pattern[at]);
    std::string low = TRY(class_character(pattern, at));
    std::string high = low;
    if (at < pattern.size() && pattern[at] == '-') {
      ++at;
      high = TRY(class_character(pattern, at));
    }
    item.ranges.emplace_back(std::move(low), std::move(high));
  }
  ++at;
  return {};
}

}  // namespace

Result<PathPattern> PathPattern::create(std::string_view pattern, Stars stars) {
  using Kind = Compiled::Kind;
  auto made = std::make_shared<Compiled>();
  for (size_t at = 0; at < pattern.size();) {
    const size_t start = at;
    const char c = pattern[at];
    Compiled::Item item;
    if (c == '*' && pattern.substr(at, 2) == "**" && stars == Stars::Deep) {
      at += 2;
      const bool before_slash = at < pattern.size() && pattern[at] == '/';
      if (before_slash) ++at;
      // As in the reference, `**name` at the very beginning is a suffix of any path.
      if (at == pattern.size() || (start == 0 && !before_slash)) {
        item.kind = Kind::Everything;
      } else {
        item.kind = Kind::Folders;
        made->items.push_back(item);
        item.kind = Kind::FoldersIn;
      }
    } else if (c == '*') {
      ++at;
      item.kind = Kind::Star;
    } else if (c == '?') {
      ++at;
      item.kind = Kind::NoSlash;
    } else if (c == '[') {
      item.kind = Kind::Class;
      TRY(read_class(pattern, ++at, item));
    } else {
      if (c == '\\' && ++at == pattern.size())
        return base::fail(ErrorCode::InvalidArgument, "the pattern '{}' ends with a '\\'", pattern);
      item.character = pattern.substr(at, character_bytes(pattern, at));
      at += item.character.size();
    }
    made->items.push_back(std::move(item));
  }
  const auto is_character = [](const Compiled::Item& item) { return item.kind == Kind::Character; };
  const auto& items = made->items;
  const auto first = std::find_if_not(items.begin(), items.end(), is_character);
  for (auto item = items.begin(); item != first; ++item) made->prefix += item->character;
  const auto last = std::find_if_not(items.rbegin(), items.rend(), is_character);
  for (auto item = last.base(); item != items.end(); ++item) made->suffix += item->character;
  return PathPattern(std::move(made));
}

bool PathPattern::matches(std::string_view path) const {
  const Compiled& pattern = *compiled_;
  if (!path.starts_with(pattern.prefix) || !path.ends_with(pattern.suffix)) return false;
  if (pattern.prefix.size() == path.size() && pattern.suffix.size() == path.size() &&
      std::all_of(pattern.items.begin(), pattern.items.end(), [](const Compiled::Item& item) {
        return item.kind == Compiled::Kind::Character;
      }))
    return true;
  const Compiled::Reached reached = pattern.walk(path);
  return !reached.empty() && reached.back() != 0;
}

bool PathPattern::matches_or_parent(std::string_view path) const {
  for (size_t slash = path.find('/'); slash != std::string_view::npos;
       slash = path.find('/', slash + 1))
    if (matches(path.substr(0, slash))) return true;
  return matches(path);
}

bool PathPattern::may_match_below(std::string_view folder) const {
  if (folder.empty()) return true;
  const std::string above = std::string(folder) + "/";
  const std::string_view prefix = compiled_->prefix;
  const size_t common = std::min(prefix.size(), above.size());
  if (prefix.substr(0, common) != std::string_view(above).substr(0, common)) return false;
  const Compiled::Reached reached = compiled_->walk(above);
  // A place in front of an item: something more can come.
  return std::any_of(reached.begin(), reached.end() - (reached.empty() ? 0 : 1),
                     [](uint8_t place) { return place != 0; });
}

bool PathPattern::has_wildcard(std::string_view pattern) {
  for (size_t at = 0; at < pattern.size(); ++at) {
    if (pattern[at] == '\\')
      ++at;
    else if (std::string_view("*?[").find(pattern[at]) != std::string_view::npos)
      return true;
  }
  return false;
}

namespace {

/// Without `.`, empty pieces and leading slashes; `..` takes the piece before it.
std::string clean(std::string_view pattern) {
  std::vector<std::string> pieces;
  for (std::string& piece : base::split(pattern, '/')) {
    if (piece.empty() || piece == ".") continue;
    if (piece != "..")
      pieces.push_back(std::move(piece));
    else if (!pieces.empty() && pieces.back() != "..")
      pieces.pop_back();
    else if (!pattern.starts_with('/'))
      pieces.push_back(std::move(piece));
  }
  return base::join(pieces, "/");
}

}  // namespace

Result<> Ignore::add(std::string_view text) {
  if (rules_.size() == limits::ignore_patterns_max)
    return base::fail(ErrorCode::InvalidArgument, "more than {} patterns",
                      limits::ignore_patterns_max);
  std::string_view pattern = trim(text);
  const bool exception = pattern.starts_with('!');
  if (exception) pattern = trim(pattern.substr(1));
  if (pattern.empty())
    return exception ? base::fail(ErrorCode::InvalidArgument, "a '!' without a pattern")
                     : Result<>();
  const std::string cleaned = clean(pattern);
  // `.` and `/` are the context itself, which is always there.
  if (cleaned.empty()) return {};
  rules_.push_back({TRY(PathPattern::create(cleaned)), exception});
  return {};
}

Result<Ignore> Ignore::parse(std::string_view text) {
  if (text.size() > limits::ignore_file_bytes_max)
    return base::fail(ErrorCode::InvalidArgument, "the file has more than {} KiB",
                      limits::ignore_file_bytes_max >> 10);
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
  Ignore ignore;
  uint32_t number = 0;
  for (const std::string& line : base::split(text, '\n')) {
    ++number;
    if (line.starts_with('#')) continue;
    TRY_DURING(ignore.add(line), "line {}", number);
  }
  return ignore;
}

Result<Ignore> Ignore::from_patterns(const std::vector<std::string>& patterns) {
  Ignore ignore;
  for (const std::string& pattern : patterns) TRY(ignore.add(pattern));
  return ignore;
}

Ignore::State Ignore::state(const State& parent, std::string_view path) const {
  State state = parent;
  state.excluded = false;
  for (size_t i = 0; i < rules_.size(); ++i) {
    if (!state.matched[i]) state.matched[i] = rules_[i].pattern.matches(path);
    if (state.matched[i]) state.excluded = !rules_[i].exception;
  }
  return state;
}

bool Ignore::excludes(std::string_view path) const {
  // The last rule that matches decides.
  for (auto rule = rules_.rbegin(); rule != rules_.rend(); ++rule)
    if (rule->pattern.matches_or_parent(path)) return !rule->exception;
  return false;
}

bool Ignore::may_include_below(std::string_view folder) const {
  return std::any_of(rules_.begin(), rules_.end(), [&](const Rule& rule) {
    return rule.exception && rule.pattern.may_match_below(folder);
  });
}

}  // namespace builder
