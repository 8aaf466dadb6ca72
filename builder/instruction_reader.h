#pragma once
/// What the readers of single instructions share: the line, its flags, and where problems go.

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "builder/instructions.h"

namespace builder {

enum class FlagKind { Boolean, Text, Texts };

/// A flag an instruction knows, and where its value goes.
struct Flag {
  std::string name;
  FlagKind kind = FlagKind::Text;
  std::function<void(const std::string& value)> set;
};

class InstructionReader {
 public:
  InstructionReader(const RawInstruction& raw, std::vector<Problem>& problems)
      : raw_(raw), problems_(problems) {}

  const RawInstruction& raw() const { return raw_; }
  std::string_view arguments() const { return raw_.split.arguments; }
  /// The instruction's name in capitals.
  std::string name() const;

  /// At `at` in the line if it is there, else at its beginning.
  void error(std::string message, std::string_view at = "");
  void warning(std::string rule, std::string message, std::string_view at = "");

  /// Every flag of the line must be one of `flags`, once unless it is of kind Texts.
  void read_flags(const std::vector<Flag>& flags);
  /// False, and an error, without anything behind the name.
  bool need_argument();
  /// Exec or shell form of the arguments.
  CommandLine command(std::string_view text);
  /// A list, as JSON or as words.
  std::vector<std::string> list();
  Pairs pairs();

 private:
  void read_flag(const std::string& text, const std::vector<Flag>& flags,
                 std::vector<std::string>& seen);

  const RawInstruction& raw_;
  std::vector<Problem>& problems_;
};

FromInstruction read_from(InstructionReader& reader);
RunInstruction read_run(InstructionReader& reader);
CopyInstruction read_copy(InstructionReader& reader);
HealthcheckInstruction read_healthcheck(InstructionReader& reader);
OnbuildInstruction read_onbuild(InstructionReader& reader);

}  // namespace builder
