#pragma once
/// How the text behind an instruction's name falls into flags, words, pairs and JSON.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace builder {

struct SplitLine {
  std::string_view command;        ///< As written.
  std::vector<std::string> flags;  ///< `--name=value`, quotes and escapes taken away.
  std::string_view arguments;      ///< What follows the flags, without white space around it.
};
SplitLine split_command(std::string_view line);

/// Words with their quotes; white space in quotes, and escaped, does not end one.
std::vector<std::string> quoted_words(std::string_view text, char escape);
/// Words at blanks, tabs and the like, whatever is quoted.
std::vector<std::string> plain_words(std::string_view text);

/// An exec form: `["a", "b"]`.
struct JsonArray {
  std::vector<std::string> items;
  bool only_strings = true;  ///< Otherwise it is an error, not a shell form.
  std::string_view behind;   ///< What follows the array; the reference passes over it.
};
/// nullopt if `text` does not begin with a well-formed array: then it is a shell form.
std::optional<JsonArray> parse_json_array(std::string_view text);

/// `<<NAME`, `<<-NAME`, `<<"NAME"`, perhaps with a number before it.
struct HeredocMark {
  std::string name;
  bool strip_tabs = false;
  bool expand = true;
};
std::optional<HeredocMark> heredoc_mark(std::string_view word);
/// All marks of a line, in order; none if its quotes do not close.
std::vector<HeredocMark> heredoc_marks(std::string_view line);

/// What `<<-` does to a text.
std::string without_leading_tabs(std::string_view text);

}  // namespace builder
