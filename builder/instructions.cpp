#include "builder/instructions.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include "base/text.h"
#include "base/units.h"
#include "builder/characters.h"
#include "builder/instruction_reader.h"

namespace builder {
namespace {

using Value = std::variant<FromInstruction, Operation>;
using Read = Value (*)(InstructionReader&);

bool is_duration(std::string_view text) {
  const base::Result<int64_t> duration = base::parse_duration_ns(text);
  constexpr int64_t shortest_ns = 1'000'000;  // the reference's: 1ms
  return duration && (*duration == 0 || *duration >= shortest_ns);
}

/// The one text behind the name, quotes and all.
std::string one_text(InstructionReader& reader) {
  reader.read_flags({});
  reader.need_argument();
  return std::string(reader.arguments());
}

ArgInstruction read_arg(InstructionReader& reader) {
  ArgInstruction arg;
  reader.read_flags({});
  if (!reader.need_argument()) return arg;
  for (const std::string& word : quoted_words(reader.arguments(), reader.raw().escape)) {
    const size_t equals = word.find('=');
    if (equals == 0) reader.error("a name of ARG is empty", word);
    if (equals == std::string::npos)
      arg.names.emplace_back(word, std::nullopt);
    else
      arg.names.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return arg;
}

ExposeInstruction read_expose(InstructionReader& reader) {
  reader.read_flags({});
  reader.need_argument();
  return {plain_words(reader.arguments())};
}

VolumeInstruction read_volume(InstructionReader& reader) {
  reader.read_flags({});
  VolumeInstruction volume;
  if (!reader.need_argument()) return volume;
  for (const std::string& path : reader.list()) {
    volume.paths.emplace_back(trim(path));
    if (volume.paths.back().empty()) reader.error("a path of VOLUME is empty");
  }
  if (volume.paths.empty()) reader.error("VOLUME needs an argument; the array is empty");
  return volume;
}

ShellInstruction read_shell(InstructionReader& reader) {
  reader.read_flags({});
  if (!reader.need_argument()) return {};
  CommandLine line = reader.command(reader.arguments());
  if (line.shell_form)
    reader.error(fmt::format("SHELL needs the JSON form, [\"program\", \"argument\"], not '{}'",
                             reader.arguments()),
                 reader.arguments());
  else if (line.words.empty())
    reader.error("SHELL needs a program; the array is empty");
  return {std::move(line.words)};
}

template <class T>
Value as(T instruction) {
  return Operation(std::move(instruction));
}

CommandLine plain_command(InstructionReader& reader) {
  reader.read_flags({});
  return reader.command(reader.arguments());
}

const std::map<std::string, Read, std::less<>>& table() {
  static const std::map<std::string, Read, std::less<>> readers = {
      {"ADD", [](InstructionReader& r) { return as(read_copy(r)); }},
      {"ARG", [](InstructionReader& r) { return as(read_arg(r)); }},
      {"CMD", [](InstructionReader& r) { return as(CmdInstruction{plain_command(r)}); }},
      {"COPY", [](InstructionReader& r) { return as(read_copy(r)); }},
      {"ENTRYPOINT",
       [](InstructionReader& r) { return as(EntrypointInstruction{plain_command(r)}); }},
      {"ENV",
       [](InstructionReader& r) {
         r.read_flags({});
         return as(EnvInstruction{r.pairs()});
       }},
      {"EXPOSE", [](InstructionReader& r) { return as(read_expose(r)); }},
      {"FROM", [](InstructionReader& r) { return Value(read_from(r)); }},
      {"HEALTHCHECK", [](InstructionReader& r) { return as(read_healthcheck(r)); }},
      {"LABEL",
       [](InstructionReader& r) {
         r.read_flags({});
         return as(LabelInstruction{r.pairs()});
       }},
      {"MAINTAINER", [](InstructionReader& r) { return as(MaintainerInstruction{one_text(r)}); }},
      {"ONBUILD", [](InstructionReader& r) { return as(read_onbuild(r)); }},
      {"RUN", [](InstructionReader& r) { return as(read_run(r)); }},
      {"SHELL", [](InstructionReader& r) { return as(read_shell(r)); }},
      {"STOPSIGNAL", [](InstructionReader& r) { return as(StopSignalInstruction{one_text(r)}); }},
      {"USER", [](InstructionReader& r) { return as(UserInstruction{one_text(r)}); }},
      {"VOLUME", [](InstructionReader& r) { return as(read_volume(r)); }},
      {"WORKDIR", [](InstructionReader& r) { return as(WorkdirInstruction{one_text(r)}); }},
  };
  return readers;
}

bool takes_heredocs(std::string_view command) {
  return equal_fold(command, "RUN") || equal_fold(command, "COPY") || equal_fold(command, "ADD");
}

}  // namespace

HealthcheckInstruction read_healthcheck(InstructionReader& reader) {
  HealthcheckInstruction check;
  const auto duration = [&](std::string& place, const char* flag) {
    return [&place, &reader, flag](const std::string& value) {
      place = value;
      if (!is_duration(value))
        reader.error(fmt::format("--{} is a duration of at least 1ms, as 30s or 1m30s, not '{}'",
                                 flag, value),
                     fmt::format("--{}", flag));
    };
  };
  const auto retries = [&](const std::string& value) {
    check.retries = value;
    int32_t count = 0;
    const auto [end, failed] = std::from_chars(value.data(), value.data() + value.size(), count);
    if (failed != std::errc() || end != value.data() + value.size() || count < 0)
      reader.error(fmt::format("--retries is a number from 0, not '{}'", value), "--retries");
  };
  const std::string_view text = reader.arguments();
  size_t end = 0;
  while (end < text.size() && space_bytes(text, end) == 0) ++end;
  const std::string kind = to_upper(text.substr(0, end));
  check.none = kind == "NONE";
  if (check.none)
    reader.read_flags({});
  else
    reader.read_flags(
        {{"interval", FlagKind::Text, duration(check.interval, "interval")},
         {"timeout", FlagKind::Text, duration(check.timeout, "timeout")},
         {"start-period", FlagKind::Text, duration(check.start_period, "start-period")},
         {"start-interval", FlagKind::Text, duration(check.start_interval, "start-interval")},
         {"retries", FlagKind::Text, retries}});
  if (!reader.need_argument()) return check;
  const std::string_view rest = trim_left(text.substr(end));
  if (check.none) {
    if (!rest.empty()) reader.error("HEALTHCHECK NONE has no arguments", rest);
    return check;
  }
  if (kind != "CMD") {
    reader.error(fmt::format("HEALTHCHECK is followed by CMD or NONE, not '{}'", kind),
                 text.substr(0, end));
    return check;
  }
  check.command = reader.command(rest);
  if (check.command.words.empty()) reader.error("HEALTHCHECK CMD needs a command");
  return check;
}

OnbuildInstruction read_onbuild(InstructionReader& reader) {
  OnbuildInstruction onbuild;
  reader.read_flags({});
  if (!reader.need_argument()) return onbuild;
  onbuild.text = reader.arguments();
  for (const RawHeredoc& heredoc : reader.raw().heredocs)
    onbuild.text += "\n" + heredoc.content + heredoc.mark.name;
  RawInstruction inner{.line = reader.raw().line,
                       .split = split_command(reader.arguments()),
                       .heredocs = reader.raw().heredocs,
                       .escape = reader.raw().escape};
  const std::string trigger = to_upper(inner.split.command);
  if (trigger == "ONBUILD") {
    reader.error("an ONBUILD of ONBUILD is not allowed", inner.split.command);
    return onbuild;
  }
  if (trigger == "FROM" || trigger == "MAINTAINER") {
    reader.error(fmt::format("{} cannot be triggered by ONBUILD", trigger), inner.split.command);
    return onbuild;
  }
  // Its faults break the builds that are based on this image, not this one.
  std::vector<Problem> later;
  read_instruction(inner, later);
  for (const Problem& problem : later)
    reader.warning(problem.rule, "in a later build: " + problem.message, inner.split.command);
  return onbuild;
}

bool is_instruction(std::string_view name) { return table().count(to_upper(name)) != 0; }

bool may_have_heredocs(const SplitLine& split) {
  if (!equal_fold(split.command, "ONBUILD"))
    return takes_heredocs(split.command) && !parse_json_array(split.arguments);
  const SplitLine inner = split_command(split.arguments);
  return takes_heredocs(inner.command) && !parse_json_array(inner.arguments);
}

Value read_instruction(const RawInstruction& raw, std::vector<Problem>& problems) {
  InstructionReader reader(raw, problems);
  const auto found = table().find(reader.name());
  if (found != table().end()) return found->second(reader);
  std::vector<std::string> names;
  for (const auto& entry : table()) names.push_back(entry.first);
  const std::optional<std::string> near = base::did_you_mean(reader.name(), names);
  reader.error(
      near ? fmt::format("unknown instruction '{}'; did you mean {}?", raw.split.command, *near)
           : fmt::format("unknown instruction '{}'", raw.split.command),
      raw.split.command);
  return Operation(MaintainerInstruction{});
}

}  // namespace builder
