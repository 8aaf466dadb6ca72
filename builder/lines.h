#pragma once
/// A Dockerfile's logical lines: instructions with their continuations joined, comments and empty
/// lines gone, parser directives read, here documents attached by whoever knows the instruction.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "builder/dockerfile.h"

namespace builder {

struct LogicalLine {
  std::string text;
  uint32_t first_line = 0;
  uint32_t last_line = 0;
  /// Line of the first empty line among the continuations, or 0.
  uint32_t empty_continuation = 0;

  /// Where the character at `offset` of `text` stands in the file.
  Location location(size_t offset) const;

  struct Segment {
    size_t offset = 0;  ///< In `text`.
    uint32_t line = 0;
    uint32_t column = 1;
  };
  std::vector<Segment> segments;
};

struct Directive {
  std::string name;  ///< `syntax`, `escape`, `check`.
  std::string value;
  Location location;
};

class LineReader {
 public:
  explicit LineReader(std::string_view text, char escape = '\\');

  /// nullopt at the end.
  std::optional<LogicalLine> next();
  /// Raw lines, with their ends, up to the one that is `terminator` (after leading tabs, with
  /// `strip_tabs`). nullopt if the file ends before.
  std::optional<std::string> here_document(std::string_view terminator, bool strip_tabs);

  char escape() const { return escape_; }
  uint32_t line_number() const { return line_; }
  /// Those met so far.
  const std::vector<Directive>& directives() const { return directives_; }
  std::vector<Problem>& problems() { return problems_; }

 private:
  std::optional<std::string_view> raw_line();
  void look_for_directive(std::string_view line);
  bool continues(std::string_view& line) const;

  std::string_view rest_;
  char escape_;
  uint32_t line_ = 0;
  bool directives_done_ = false;
  std::vector<Directive> directives_;
  std::vector<Problem> problems_;
};

}  // namespace builder
