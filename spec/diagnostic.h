#pragma once
/// A problem in a stack file, told so that the reader can mend it.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace spec {

enum class Severity { Error, Warning, Note };

/// Line and column count from 1; 0 means the whole file.
struct Position {
  std::string file;
  uint32_t line = 0;
  uint32_t column = 0;
};

struct Diagnostic {
  Severity severity = Severity::Error;
  Position position;
  std::string address;     ///< `services.db.mem_limit`
  std::string summary;     ///< Fixed text per kind of problem.
  std::string detail;      ///< What to do next.
  std::string suggestion;  ///< "did you mean 'image'?"; may be empty.
};

/// `file:line:col: error: services.db.mem_limit: summary`, the source line, a caret below it, the
/// detail. `source_line` gives the text of a line, or "" if it is not known. Control bytes escaped.
std::string render(
    const Diagnostic& diagnostic,
    const std::function<std::string(const std::string& file, uint32_t line)>& source_line);

bool has_errors(const std::vector<Diagnostic>& diagnostics);

}  // namespace spec
