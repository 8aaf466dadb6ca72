#include "builder/lines.h"

#include <algorithm>

#include "base/text.h"
#include "builder/characters.h"

namespace builder {
namespace {

std::string_view without_line_end(std::string_view line) {
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
  return line;
}

bool is_comment(std::string_view line) { return trim_left(line).starts_with('#'); }

bool is_name(std::string_view text) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  return !text.empty() && is_letter(text[0]) && std::all_of(text.begin(), text.end(), [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9');
  });
}

/// Columns count characters, from 1.
uint32_t column_of(std::string_view line, size_t bytes) {
  uint32_t column = 1;
  for (size_t at = 0; at < std::min(bytes, line.size()); at += character_bytes(line, at)) ++column;
  return column;
}

}  // namespace

Location LogicalLine::location(size_t offset) const {
  Location location{.line = first_line, .column = 1, .last_line = last_line};
  const Segment* found = nullptr;
  for (const Segment& segment : segments)
    if (segment.offset <= offset) found = &segment;
  if (found == nullptr) return location;
  location.line = found->line;
  const std::string_view before =
      std::string_view(text).substr(found->offset, offset - found->offset);
  location.column = found->column + column_of(before, before.size()) - 1;
  return location;
}

LineReader::LineReader(std::string_view text, char escape) : rest_(text), escape_(escape) {
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  if (rest_.starts_with(byte_order_mark)) rest_.remove_prefix(byte_order_mark.size());
}

std::optional<std::string_view> LineReader::raw_line() {
  if (rest_.empty()) return std::nullopt;
  const size_t end = rest_.find('\n');
  const std::string_view line = rest_.substr(0, end == std::string_view::npos ? end : end + 1);
  rest_.remove_prefix(line.size());
  ++line_;
  return line;
}

/// Directives stand before everything else, comments and empty lines too.
void LineReader::look_for_directive(std::string_view line) {
  if (directives_done_) return;
  directives_done_ = true;
  if (!line.starts_with('#')) return;
  line.remove_prefix(1);
  const size_t equals = line.find('=');
  if (equals == std::string_view::npos) return;
  const std::string_view name = trim(line.substr(0, equals));
  const std::string_view value = trim(line.substr(equals + 1));
  const std::string key = to_lower(name);
  if (!is_name(name) || value.empty()) return;
  if (key != "syntax" && key != "escape" && key != "check") return;
  directives_done_ = false;
  const Location location{.line = line_, .column = 1, .last_line = line_};
  const bool seen = std::any_of(directives_.begin(), directives_.end(),
                                [&](const Directive& one) { return one.name == key; });
  if (seen) {
    problems_.push_back(
        {location, fmt::format("the directive '{}' stands here a second time; remove it", key)});
    return;
  }
  directives_.push_back({key, std::string(value), location});
  if (key != "escape") return;
  if (value == "\\" || value == "`") {
    escape_ = value[0];
    return;
  }
  problems_.push_back({location, fmt::format("the escape character is \\ or `, not '{}'", value)});
}

/// True, and the escape gone, if the line goes on in the next one.
bool LineReader::continues(std::string_view& line) const {
  std::string_view cut = line;
  while (!cut.empty() && (cut.back() == ' ' || cut.back() == '\t')) cut.remove_suffix(1);
  if (cut.empty() || cut.back() != escape_) return false;
  cut.remove_suffix(1);
  // An escaped escape character ends the line, as in the reference.
  if (!cut.empty() && cut.back() == escape_) return false;
  line = cut;
  return true;
}

std::optional<LogicalLine> LineReader::next() {
  while (const std::optional<std::string_view> raw = raw_line()) {
    const std::string_view whole = without_line_end(*raw);
    std::string_view line = trim_left(whole);
    look_for_directive(line);
    if (line.starts_with('#')) continue;
    const uint32_t column = column_of(whole, whole.size() - line.size());
    bool more = continues(line);
    if (!more && line.empty()) continue;
    LogicalLine logical{.text = std::string(line), .first_line = line_, .last_line = line_};
    logical.segments.push_back({0, line_, column});
    while (more) {
      const std::optional<std::string_view> following = raw_line();
      if (!following) break;
      std::string_view part = without_line_end(*following);
      if (is_comment(part)) continue;
      if (trim_left(part).empty()) {
        if (logical.empty_continuation == 0) logical.empty_continuation = line_;
        continue;
      }
      more = continues(part);
      logical.segments.push_back({logical.text.size(), line_, 1});
      logical.text += part;
    }
    logical.last_line = line_;
    return logical;
  }
  return std::nullopt;
}

std::optional<std::string> LineReader::here_document(std::string_view terminator, bool strip_tabs) {
  std::string content;
  while (const std::optional<std::string_view> raw = raw_line()) {
    std::string_view candidate = without_line_end(*raw);
    if (strip_tabs)
      while (candidate.starts_with('\t')) candidate.remove_prefix(1);
    if (candidate == terminator) return content;
    content += *raw;
  }
  return std::nullopt;
}

}  // namespace builder
