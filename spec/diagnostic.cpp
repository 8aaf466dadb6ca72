#include "spec/diagnostic.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"

namespace spec {
namespace {

constexpr size_t shown_columns_max = 160;

std::string_view severity_name(Severity severity) {
  switch (severity) {
    case Severity::Error: return "error";
    case Severity::Warning: return "warning";
    case Severity::Note: return "note";
  }
  return "error";
}

/// The line with its tabs as one blank each, so that the caret stands where the reader looks.
std::string shown_line(std::string_view line) {
  std::string text(line.substr(0, shown_columns_max));
  std::replace(text.begin(), text.end(), '\t', ' ');
  while (!text.empty() && (text.back() == '\r' || text.back() == '\n')) text.pop_back();
  return text;
}

/// Columns count characters: bytes in the middle of one do not move the caret, and what is shown
/// escaped moves it by all it takes.
std::string caret_line(std::string_view line, uint32_t column) {
  size_t at = 0;
  for (uint32_t passed = 1; passed < column && at < line.size(); ++passed) {
    ++at;
    while (at < line.size() && (static_cast<uint8_t>(line[at]) & 0xC0) == 0x80) ++at;
  }
  const std::string before = base::escape_controls(line.substr(0, at));
  const auto width = std::count_if(before.begin(), before.end(),
                                   [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
  return std::string(static_cast<size_t>(width), ' ') + "^";
}

std::string indented(std::string_view text) {
  std::string result;
  for (const std::string& line : base::split(text, '\n'))
    result += "  " + base::escape_controls(line) + "\n";
  return result;
}

}  // namespace

std::string render(
    const Diagnostic& diagnostic,
    const std::function<std::string(const std::string& file, uint32_t line)>& source_line) {
  const Position& position = diagnostic.position;
  std::string text = base::escape_controls(position.file);
  if (position.line != 0) text += fmt::format(":{}:{}", position.line, position.column);
  if (!text.empty()) text += ": ";
  text += fmt::format("{}: ", severity_name(diagnostic.severity));
  if (!diagnostic.address.empty())
    text += fmt::format("{}: ", base::escape_controls(diagnostic.address));
  text += base::escape_controls(diagnostic.summary) + "\n";
  const std::string line = position.line == 0 || !source_line
                               ? std::string()
                               : shown_line(source_line(position.file, position.line));
  if (!line.empty()) {
    text += fmt::format("  | {}\n", base::escape_controls(line));
    if (position.column != 0 && position.column <= shown_columns_max)
      text += fmt::format("  | {}\n", caret_line(line, position.column));
  }
  if (!diagnostic.suggestion.empty()) text += indented(diagnostic.suggestion);
  if (!diagnostic.detail.empty()) text += indented(diagnostic.detail);
  return text;
}

bool has_errors(const std::vector<Diagnostic>& diagnostics) {
  return std::any_of(diagnostics.begin(), diagnostics.end(), [](const Diagnostic& diagnostic) {
    return diagnostic.severity == Severity::Error;
  });
}

}  // namespace spec
