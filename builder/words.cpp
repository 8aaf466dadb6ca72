#include "builder/words.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "builder/characters.h"

namespace builder {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r'; }

/// One flag from the front of `text`: its words, quotes and backslashes gone.
std::string take_flag(std::string_view& text) {
  std::string flag;
  char quote = '\0';
  size_t at = 0;
  while (at < text.size()) {
    if (quote == '\0' && space_bytes(text, at) != 0) break;
    const char c = text[at];
    if (quote == '\0' && (c == '\'' || c == '"')) {
      quote = c;
    } else if (c == quote) {
      quote = '\0';
    } else if (c == '\\') {
      if (++at == text.size()) break;
      flag += text[at];
    } else {
      flag += c;
    }
    ++at;
  }
  text.remove_prefix(std::min(at, text.size()));
  return flag;
}

/// Collects the strings of one flat array; says if there was anything else.
class ArrayReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  JsonArray result;

  bool null() override { return other(); }
  bool boolean(bool) override { return other(); }
  bool number_integer(number_integer_t) override { return other(); }
  bool number_unsigned(number_unsigned_t) override { return other(); }
  bool number_float(number_float_t, const string_t&) override { return other(); }
  bool binary(binary_t&) override { return other(); }
  bool string(string_t& text) override {
    if (depth_ == 1) result.items.push_back(std::move(text));
    return true;
  }
  bool start_object(size_t) override {
    ++depth_;
    return other();
  }
  bool key(string_t&) override { return true; }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool start_array(size_t) override { return ++depth_ == 1 || other(); }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  bool other() {
    result.only_strings = false;
    return true;
  }
  int depth_ = 0;
};

/// The end of the array that `text` begins with: behind the bracket that closes the first one.
size_t array_end(std::string_view text) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string) {
      if (c == '\\') ++at;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      ++depth;
    } else if ((c == ']' || c == '}') && --depth == 0) {
      return at + 1;
    }
  }
  return std::string_view::npos;
}

/// Words at white space outside of quotes, with everything in them as it stands.
std::optional<std::vector<std::string>> shell_words(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  for (size_t at = 0; at < line.size();) {
    if (const size_t space = space_bytes(line, at)) {
      if (!word.empty()) words.push_back(std::move(word));
      word.clear();
      at += space;
      continue;
    }
    const char c = line[at];
    size_t end = at + 1;
    if (c == '\\') {
      end = std::min(at + 2, line.size());
    } else if (c == '\'') {
      end = line.find('\'', at + 1);
      if (end == std::string_view::npos) return std::nullopt;
      ++end;
    } else if (c == '"') {
      for (;; ++end) {
        if (end >= line.size()) return std::nullopt;
        if (line[end] == '"') break;
        if (line[end] == '\\') ++end;
      }
      ++end;
    }
    word += line.substr(at, end - at);
    at = end;
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

/// A delimiter without its quotes and escapes; nullopt if a quote does not close.
std::optional<std::string> unquoted(std::string_view text, bool& quoted) {
  std::string result;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '\\') {
      if (++at < text.size()) result += text[at];
    } else if (c == '\'' || c == '"') {
      quoted = true;
      for (++at; at < text.size() && text[at] != c; ++at) {
        if (c == '"' && text[at] == '\\' && at + 1 < text.size() &&
            std::string_view("\"$\\").find(text[at + 1]) != std::string_view::npos)
          ++at;
        result += text[at];
      }
      if (at >= text.size()) return std::nullopt;
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace

SplitLine split_command(std::string_view line) {
  line = trim(line);
  SplitLine split;
  const size_t end =
      static_cast<size_t>(std::find_if(line.begin(), line.end(), is_blank) - line.begin());
  split.command = line.substr(0, end);
  std::string_view rest = line.substr(end);
  for (;;) {
    rest = trim_left(rest);
    if (!rest.starts_with("--")) break;
    std::string_view ahead = rest;
    std::string flag = take_flag(ahead);
    rest = ahead;
    if (flag == "--") break;
    split.flags.push_back(std::move(flag));
  }
  split.arguments = trim(rest);
  return split;
}

std::vector<std::string> quoted_words(std::string_view text, char escape) {
  std::vector<std::string> words;
  std::string word;
  bool blank_counts = false;  // "" is a word
  char quote = '\0';
  const auto end_word = [&] {
    if (!word.empty() || blank_counts) words.push_back(std::move(word));
    word.clear();
    blank_counts = false;
  };
  for (size_t at = 0; at < text.size();) {
    const size_t space = space_bytes(text, at);
    if (space != 0 && quote == '\0') {
      end_word();
      at += space;
      continue;
    }
    const char c = text[at];
    if (c == escape && quote != '\'') {
      // Kept with what it escapes; at the very end it is dropped.
      if (at + 1 == text.size()) break;
      word += c;
      ++at;
    } else if (quote == '\0' && (c == '\'' || c == '"')) {
      quote = c;
      blank_counts = true;
    } else if (c == quote) {
      quote = '\0';
    }
    const size_t count = character_bytes(text, at);
    word += text.substr(at, count);
    at += count;
  }
  end_word();
  return words;
}

std::vector<std::string> plain_words(std::string_view text) {
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    if (is_blank(text[at])) {
      ++at;
      continue;
    }
    size_t end = at;
    while (end < text.size() && !is_blank(text[end])) ++end;
    words.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

std::optional<JsonArray> parse_json_array(std::string_view text) {
  text = trim_left(text);
  if (!text.starts_with('[')) return std::nullopt;
  const size_t end = array_end(text);
  if (end == std::string_view::npos) return std::nullopt;
  ArrayReader reader;
  const std::string_view array = text.substr(0, end);
  if (!nlohmann::json::sax_parse(array.begin(), array.end(), &reader)) return std::nullopt;
  reader.result.behind = trim(text.substr(end));
  return std::move(reader.result);
}

std::optional<HeredocMark> heredoc_mark(std::string_view word) {
  while (!word.empty() && word[0] >= '0' && word[0] <= '9') word.remove_prefix(1);
  if (!word.starts_with("<<")) return std::nullopt;
  word.remove_prefix(2);
  HeredocMark mark;
  mark.strip_tabs = word.starts_with('-');
  if (mark.strip_tabs) word.remove_prefix(1);
  if (word.empty() || word.find('<') != std::string_view::npos) return std::nullopt;
  const auto pieces = shell_words(word);
  if (!pieces || pieces->size() != 1) return std::nullopt;
  bool quoted = false;
  const std::optional<std::string> name = unquoted(word, quoted);
  if (!name || name->empty()) return std::nullopt;
  mark.name = *name;
  mark.expand = !quoted;
  return mark;
}

std::vector<HeredocMark> heredoc_marks(std::string_view line) {
  std::vector<HeredocMark> marks;
  for (const std::string& word : shell_words(line).value_or(std::vector<std::string>()))
    if (std::optional<HeredocMark> mark = heredoc_mark(word)) marks.push_back(std::move(*mark));
  return marks;
}

std::string without_leading_tabs(std::string_view text) {
  std::string result;
  bool at_start = true;
  for (const char c : text) {
    if (at_start && c == '\t') continue;
    at_start = c == '\n';
    result += c;
  }
  return result;
}

}  // namespace builder
