#pragma once
/// Tables as every `ls` prints them: each column as wide as its widest cell and two spaces, the
/// last one not padded, no colour, nothing cut.

#include <string>
#include <vector>

namespace cli {

using Row = std::vector<std::string>;

/// Header and rows, a line each. Widths count characters, not bytes; control bytes are escaped.
std::string render_table(const Row& header, const std::vector<Row>& rows);

}  // namespace cli
