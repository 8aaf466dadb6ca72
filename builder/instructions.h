#pragma once
/// One logical line becomes one instruction.

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "builder/dockerfile.h"
#include "builder/lines.h"
#include "builder/words.h"

namespace builder {

struct RawHeredoc {
  HeredocMark mark;
  std::string content;  ///< As it stands in the file.
};

/// An instruction before its words are understood.
struct RawInstruction {
  LogicalLine line;
  SplitLine split;  ///< Views into `text`, which stays where it is.
  std::vector<RawHeredoc> heredocs;
  char escape = '\\';
};

/// True for a name that parse_dockerfile() knows, in any letter case.
bool is_instruction(std::string_view name);
/// True if the line may have here documents: RUN, COPY and ADD in shell form, also behind ONBUILD.
bool may_have_heredocs(const SplitLine& split);

/// What the line says. Problems are added; after an error the value is of no use.
std::variant<FromInstruction, Operation> read_instruction(const RawInstruction& raw,
                                                          std::vector<Problem>& problems);

}  // namespace builder
