#include "cli/table.h"

#include <algorithm>
#include <cstddef>

#include "base/text.h"

namespace cli {
namespace {

/// Characters of UTF-8: bytes that do not continue one.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

Row escaped(const Row& row) {
  Row cells;
  for (const std::string& cell : row) cells.push_back(base::escape_controls(cell));
  return cells;
}

std::string render_row(const Row& row, const std::vector<size_t>& widths) {
  constexpr size_t gap = 2;
  std::string line;
  for (size_t i = 0; i < row.size(); ++i) {
    line += row[i];
    if (i + 1 < row.size()) line.append(widths[i] - width_of(row[i]) + gap, ' ');
  }
  return line + "\n";
}

}  // namespace

std::string render_table(const Row& header, const std::vector<Row>& rows) {
  std::vector<Row> lines = {escaped(header)};
  for (const Row& row : rows) lines.push_back(escaped(row));
  std::vector<size_t> widths(header.size(), 0);
  for (const Row& line : lines)
    for (size_t i = 0; i < line.size() && i < widths.size(); ++i)
      widths[i] = std::max(widths[i], width_of(line[i]));
  std::string text;
  for (Row& line : lines) {
    line.resize(header.size());
    text += render_row(line, widths);
  }
  return text;
}

}  // namespace cli
