#include "spec/dotenv.h"

#include <algorithm>
#include <cctype>
#include <map>

#include <fmt/format.h>

#include "base/limits.h"
#include "base/text.h"

namespace spec {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

bool is_key_letter(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '-' ||
         c == '[' || c == ']';
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

std::string_view without_bom(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  return text;
}

/// Reads one entry after the other; a position is an offset, lines are counted as we pass them.
class DotenvParser {
 public:
  DotenvParser(std::string_view text, const VariableLookup& lookup, size_t bytes_max)
      : text_(without_bom(text)), lookup_(lookup), bytes_left_(bytes_max) {}

  Dotenv parse() {
    while (at_ < text_.size() && !is_full_) {
      parse_line();
      skip_line();
    }
    return std::move(result_);
  }

 private:
  bool at_end() const { return at_ >= text_.size(); }
  bool at_line_end() const { return at_end() || text_[at_] == '\n'; }
  char peek() const { return text_[at_]; }

  void skip_blanks() {
    while (!at_end() && is_blank(peek())) ++at_;
  }

  /// Behind the next line end.
  void skip_line() {
    const size_t end = text_.find('\n', at_);
    at_ = end == std::string_view::npos ? text_.size() : end + 1;
    ++line_;
    line_start_ = at_;
  }

  void problem(std::string text, bool is_error = true) {
    result_.problems.push_back({.line = line_,
                                .column = static_cast<uint32_t>(at_ - line_start_ + 1),
                                .is_error = is_error,
                                .text = std::move(text)});
  }

  void parse_line() {
    skip_blanks();
    if (at_line_end() || peek() == '#') return;
    if (text_.substr(at_).starts_with("export ")) {
      at_ += 7;
      skip_blanks();
    }
    const size_t start = at_;
    while (!at_end() && is_key_letter(peek())) ++at_;
    const std::string key(text_.substr(start, at_ - start));
    skip_blanks();
    const bool has_value = !at_line_end() && (peek() == '=' || peek() == ':');
    if (key.empty() || (!at_line_end() && !has_value && peek() != '#'))
      return problem(fmt::format("unexpected '{}' in a variable's name; write NAME=value",
                                 at_line_end() ? "" : base::escape_controls(text_.substr(at_, 1))));
    const uint32_t line = line_;
    std::optional<std::string> value;
    if (has_value) {
      ++at_;
      value = parse_value();
      if (!value) return;  // told already
    }
    if (value) known_[key] = *value;
    result_.entries.push_back({.key = key, .value = std::move(value), .line = line});
  }

  /// Nothing if it is broken, which has then been told.
  std::optional<std::string> parse_value() {
    const size_t before_blanks = at_;
    skip_blanks();
    if (at_line_end()) return "";
    if (peek() == '\'') return parse_single_quoted();
    if (peek() == '"') return parse_double_quoted();
    const size_t end = std::min(text_.find('\n', at_), text_.size());
    const std::string_view line = text_.substr(before_blanks, end - before_blanks);
    size_t length = line.size();
    for (size_t i = 1; i < line.size() && length == line.size(); ++i)
      if (line[i] == '#' && is_blank(line[i - 1])) length = i;
    return expand(trimmed(line.substr(0, length)));
  }

  /// Literal; only `\'` is an escape.
  std::optional<std::string> parse_single_quoted() {
    std::string value;
    if (!take_quoted('\'', value)) return std::nullopt;
    for (size_t at = value.find("\\'"); at != std::string::npos; at = value.find("\\'", at + 1))
      value.erase(at, 1);
    return finish_quoted() ? std::optional(std::move(value)) : std::nullopt;
  }

  std::optional<std::string> parse_double_quoted() {
    std::string raw;
    if (!take_quoted('"', raw) || !finish_quoted()) return std::nullopt;
    return expand(unescaped(raw));
  }

  /// The text between the quotes, which may span lines; escapes are kept.
  bool take_quoted(char quote, std::string& value) {
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) {
      problem(fmt::format("unterminated quoted value: the {} is never closed", quote));
      at_ = text_.size();
      return false;
    }
    value = text_.substr(at_ + 1, end - at_ - 1);
    for (size_t i = at_; i < end; ++i) {
      if (text_[i] != '\n') continue;
      ++line_;
      line_start_ = i + 1;
    }
    at_ = end + 1;
    return true;
  }

  /// Behind a closing quote only a comment may stand.
  bool finish_quoted() {
    skip_blanks();
    if (at_line_end() || peek() == '#') return true;
    problem("unexpected text behind the closing quote");
    return false;
  }

  /// `\$` becomes `$$`, which the interpolation then turns into a plain dollar sign.
  static std::string unescaped(std::string_view raw) {
    constexpr std::string_view letters = "nrtabfv\"\\";
    constexpr std::string_view meanings = "\n\r\t\a\b\f\v\"\\";
    std::string value;
    for (size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '\\' || i + 1 == raw.size()) {
        value += raw[i];
        continue;
      }
      const char letter = raw[++i];
      const size_t known = letters.find(letter);
      if (letter == '$') {
        value += "$$";
      } else if (letter == '0') {
        unsigned code = 0;
        for (size_t digit = 0;
             digit < 3 && i + 1 < raw.size() && raw[i + 1] >= '0' && raw[i + 1] <= '7'; ++digit)
          code = code * 8 + static_cast<unsigned>(raw[++i] - '0');
        value += static_cast<char>(code & 0xFF);
      } else if (known != std::string_view::npos) {
        value += meanings[known];
      } else {
        value += {'\\', letter};
      }
    }
    return value;
  }

  std::optional<std::string> expand(std::string_view value) {
    const auto lookup = [&](std::string_view name) -> const std::string* {
      if (const std::string* outer = lookup_(name)) return outer;
      const auto found = known_.find(name);
      return found == known_.end() ? nullptr : &found->second;
    };
    auto expanded = interpolate(value, lookup, bytes_left_);
    if (!expanded) {
      problem(expanded.error().to_string());
      // Whoever has filled all there is would fill it again with each further line.
      is_full_ = expanded.error().code() == base::ErrorCode::NoSpace;
      return std::nullopt;
    }
    bytes_left_ -= expanded->text.size();
    for (const std::string& name : expanded->unset)
      problem(fmt::format("the variable {} is not set; it becomes blank", name), false);
    return std::move(expanded->text);
  }

  std::string_view text_;
  const VariableLookup& lookup_;
  size_t bytes_left_;
  bool is_full_ = false;
  size_t at_ = 0;
  uint32_t line_ = 1;
  size_t line_start_ = 0;
  std::map<std::string, std::string, std::less<>> known_;
  Dotenv result_;
};

}  // namespace

Dotenv parse_dotenv(std::string_view text, const VariableLookup& lookup, size_t bytes_max) {
  return DotenvParser(text, lookup, bytes_max).parse();
}

Dotenv parse_raw_env(std::string_view text) {
  Dotenv result;
  uint32_t number = 0;
  for (const std::string& line : base::split(without_bom(text), '\n')) {
    ++number;
    std::string_view rest = line;
    if (rest.ends_with('\r')) rest.remove_suffix(1);
    while (!rest.empty() && is_blank(rest.front())) rest.remove_prefix(1);
    if (rest.empty() || rest.front() == '#') continue;
    const size_t equals = rest.find('=');
    const std::string key(rest.substr(0, equals));
    if (key.empty() || std::any_of(key.begin(), key.end(), is_blank)) {
      result.problems.push_back({.line = number,
                                 .column = 1,
                                 .text = "a variable's name has no blanks; write NAME=value"});
      continue;
    }
    std::optional<std::string> value;
    if (equals != std::string_view::npos) value = rest.substr(equals + 1);
    result.entries.push_back({.key = key, .value = std::move(value), .line = number});
  }
  return result;
}

}  // namespace spec
