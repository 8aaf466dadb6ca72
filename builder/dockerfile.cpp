#include "builder/dockerfile.h"

#include <algorithm>

#include "base/limits.h"
#include "base/text.h"
#include "builder/characters.h"
#include "builder/checks.h"
#include "builder/instructions.h"
#include "builder/lines.h"

namespace builder {
namespace {

namespace limits = base::limits;

class Parser {
 public:
  Parser(std::string_view text, char escape) : lines_(text, escape) {}

  Parsed file() {
    uint32_t instructions = 0;
    while (std::optional<LogicalLine> line = lines_.next()) {
      ++instructions;
      if (!one(std::move(*line), true)) break;
    }
    if (parsed_.file.stages.empty() && parsed_.problems.empty())
      error({.line = std::max(lines_.line_number(), 1u)},
            instructions == 0 ? "the file has no instructions; it begins with FROM"
                              : "the file has no FROM, so there is nothing to build");
    finish();
    return std::move(parsed_);
  }

  Parsed single() {
    std::optional<LogicalLine> line = lines_.next();
    if (!line) {
      error({.line = 1}, "there is no instruction");
    } else {
      parsed_.file.stages.emplace_back();
      if (one(std::move(*line), false) && lines_.next())
        error({.line = lines_.line_number()}, "there is more than one instruction");
    }
    finish();
    return std::move(parsed_);
  }

 private:
  void error(Location location, std::string message) {
    parsed_.problems.push_back({location, std::move(message)});
  }

  /// False if nothing behind it can be understood.
  bool one(LogicalLine line, bool whole_file);
  bool take_heredocs(RawInstruction& raw);
  void place(std::variant<FromInstruction, Operation> value, const RawInstruction& raw,
             bool whole_file);
  void finish();

  LineReader lines_;
  Parsed parsed_;
};

bool Parser::take_heredocs(RawInstruction& raw) {
  if (!may_have_heredocs(raw.split)) return true;
  for (HeredocMark& mark : heredoc_marks(raw.line.text)) {
    std::optional<std::string> content = lines_.here_document(mark.name, mark.strip_tabs);
    if (!content) {
      const size_t place = raw.line.text.find("<<");
      error(raw.line.location(place),
            fmt::format("the here document is not finished: there is no line '{}'", mark.name));
      return false;
    }
    raw.heredocs.push_back({std::move(mark), std::move(*content)});
  }
  raw.line.last_line = lines_.line_number();
  return true;
}

bool Parser::one(LogicalLine line, bool whole_file) {
  RawInstruction raw;
  raw.line = std::move(line);
  raw.split = split_command(raw.line.text);
  raw.escape = lines_.escape();
  if (raw.line.empty_continuation != 0)
    parsed_.problems.push_back({{.line = raw.line.empty_continuation,
                                 .column = 1,
                                 .last_line = raw.line.empty_continuation},
                                "Empty continuation line",
                                true,
                                "NoEmptyContinuation"});
  if (!take_heredocs(raw)) return false;
  if (!is_instruction(raw.split.command) &&
      parsed_.problems.size() > limits::dockerfile_problems_max)
    return false;  // this is no Dockerfile at all
  auto value = read_instruction(raw, parsed_.problems);
  if (is_instruction(raw.split.command)) place(std::move(value), raw, whole_file);
  return true;
}

void Parser::place(std::variant<FromInstruction, Operation> value, const RawInstruction& raw,
                   bool whole_file) {
  const Location location = raw.line.location(0);
  const std::string text(trim(raw.line.text));
  std::vector<Stage>& stages = parsed_.file.stages;
  if (auto* from = std::get_if<FromInstruction>(&value)) {
    if (!whole_file) return error(location, "FROM cannot be triggered by ONBUILD");
    stages.push_back({std::move(*from), {}, text, location});
    return;
  }
  Instruction instruction{std::move(std::get<Operation>(value)), text, location};
  if (!stages.empty())
    stages.back().instructions.push_back(std::move(instruction));
  else if (std::holds_alternative<ArgInstruction>(instruction.operation))
    parsed_.file.global_arguments.push_back(std::move(instruction));
  else
    error(location, fmt::format("{} before the first FROM; only ARG may stand there",
                                to_upper(raw.split.command)));
}

void Parser::finish() {
  std::vector<Problem>& problems = parsed_.problems;
  std::move(lines_.problems().begin(), lines_.problems().end(), std::back_inserter(problems));
  parsed_.file.escape = lines_.escape();
  for (const Directive& directive : lines_.directives()) {
    if (directive.name == "syntax") parsed_.file.syntax = directive.value;
    if (directive.name == "check")
      take_check_directive(directive.value, directive.location, parsed_.file, problems);
  }
  if (parsed_.ok()) check_file(parsed_.file, problems);
  settle_problems(parsed_.file, problems);
  if (problems.size() <= limits::dockerfile_problems_max) return;
  const size_t more = problems.size() - limits::dockerfile_problems_max;
  problems.resize(limits::dockerfile_problems_max);
  problems.push_back({problems.back().location, fmt::format("and {} problems more", more)});
}

/// The `number`th line, from 1, without its end.
std::string_view line_of(std::string_view text, uint32_t number) {
  for (uint32_t passed = 1; passed < number; ++passed) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return "";
    text.remove_prefix(end + 1);
  }
  text = text.substr(0, text.find('\n'));
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

/// Characters, with what is shown escaped counted as it is shown.
size_t shown_width(std::string_view text) {
  const std::string shown = base::escape_controls(text);
  return static_cast<size_t>(std::count_if(shown.begin(), shown.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

}  // namespace

bool Parsed::ok() const {
  return std::all_of(problems.begin(), problems.end(), [](const Problem& p) { return p.warning; });
}

Parsed parse_dockerfile(std::string_view text) {
  if (text.size() <= limits::dockerfile_bytes_max) return Parser(text, '\\').file();
  Parsed refused;
  refused.problems.push_back(
      {{.line = 1},
       fmt::format("the file has {} bytes, more than {} MiB; is it a Dockerfile?", text.size(),
                   limits::dockerfile_bytes_max >> 20)});
  return refused;
}

Parsed parse_instruction(std::string_view text, char escape) {
  return Parser(text, escape).single();
}

std::string render(const Problem& problem, std::string_view file_name, std::string_view text) {
  constexpr size_t shown_columns_max = 160;
  const Location& at = problem.location;
  std::string result =
      fmt::format("{}:{}:{}: {}: {}", base::escape_controls(file_name), at.line, at.column,
                  problem.warning ? "warning" : "error", base::escape_controls(problem.message));
  if (!problem.rule.empty()) result += fmt::format(" [{}]", problem.rule);
  result += "\n";
  std::string line(line_of(text, at.line));
  std::replace(line.begin(), line.end(), '\t', ' ');
  if (line.empty()) return result;
  size_t bytes = 0;
  size_t shown = line.size();
  for (size_t byte = 0, column = 1; byte < line.size(); ++column) {
    if (column == at.column) bytes = byte;
    if (column > shown_columns_max) {
      shown = byte;
      break;
    }
    byte += character_bytes(line, byte);
  }
  result += fmt::format("  | {}\n", base::escape_controls(line.substr(0, shown)));
  if (at.column <= shown_columns_max)
    result += fmt::format("  | {}^\n", std::string(shown_width(line.substr(0, bytes)), ' '));
  return result;
}

}  // namespace builder
