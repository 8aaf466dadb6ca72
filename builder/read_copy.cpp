/// FROM, RUN, COPY and ADD: the instructions with flags and here documents.

#include <algorithm>

#include "base/text.h"
#include "builder/characters.h"
#include "builder/instruction_reader.h"
#include "builder/run_mount.h"

namespace builder {
namespace {

bool is_stage_name(std::string_view name) {
  const auto is_letter = [](char c) { return c >= 'a' && c <= 'z'; };
  return !name.empty() && is_letter(name[0]) && std::all_of(name.begin(), name.end(), [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  });
}

/// The old form of a script: all here documents back in the text, for the shell to read.
std::string with_heredocs(std::string_view text, const std::vector<RawHeredoc>& heredocs) {
  std::string whole(text);
  for (const RawHeredoc& heredoc : heredocs) whole += "\n" + heredoc.content + heredoc.mark.name;
  return whole;
}

std::string content_of(const RawHeredoc& heredoc) {
  return heredoc.mark.strip_tabs ? without_leading_tabs(heredoc.content) : heredoc.content;
}

void take_network(InstructionReader& reader, RunInstruction& run, const std::string& value) {
  if (value == "default")
    run.network = RunNetwork::Default;
  else if (value == "none")
    run.network = RunNetwork::None;
  else if (value == "host")
    run.network = RunNetwork::Host;
  else
    reader.error(fmt::format("--network is default, none or host, not '{}'", value), "--network");
}

void take_security(InstructionReader& reader, RunInstruction& run, const std::string& value) {
  run.insecure = value == "insecure";
  if (value != "insecure" && value != "sandbox")
    reader.error(fmt::format("--security is sandbox or insecure, not '{}'", value), "--security");
}

/// Sources and target; a source that names a here document becomes one.
void take_paths(InstructionReader& reader, CopyInstruction& copy) {
  std::vector<std::string> words = reader.list();
  if (words.size() < 2) {
    reader.error(fmt::format("{} needs a source and a target", reader.name()));
    return;
  }
  copy.target = std::move(words.back());
  words.pop_back();
  const std::vector<RawHeredoc>& heredocs = reader.raw().heredocs;
  if (!heredocs.empty() && heredoc_mark(copy.target)) {
    reader.error(fmt::format("the target of {} cannot be a here document", reader.name()),
                 copy.target);
    return;
  }
  size_t next = 0;
  for (std::string& word : words) {
    if (next >= heredocs.size() || !heredoc_mark(word)) {
      copy.sources.push_back(std::move(word));
      continue;
    }
    const RawHeredoc& heredoc = heredocs[next++];
    copy.heredocs.push_back(
        {.name = heredoc.mark.name, .content = content_of(heredoc), .expand = heredoc.mark.expand});
  }
}

}  // namespace

FromInstruction read_from(InstructionReader& reader) {
  FromInstruction from;
  reader.read_flags({{"platform", FlagKind::Text, [&](const auto& v) { from.platform = v; }}});
  const std::vector<std::string> words = plain_words(reader.arguments());
  if (words.size() != 1 && (words.size() != 3 || !equal_fold(words[1], "as"))) {
    reader.error("FROM needs an image, or an image and a name: FROM image AS name");
    return from;
  }
  from.image = words[0];
  if (words.size() == 1) return from;
  from.name = to_lower(words[2]);
  if (!is_stage_name(from.name))
    reader.error(fmt::format("'{}' is no name for a stage: it begins with a letter, and has only "
                             "letters, digits, '-', '_' and '.'",
                             words[2]),
                 words[2]);
  if (from.name != words[2])
    reader.warning("StageNameCasing", fmt::format("Stage name '{}' should be lowercase", words[2]),
                   words[2]);
  const std::string_view keyword = reader.raw().split.command;
  const bool from_is_lower = to_lower(keyword) == keyword;
  const bool from_is_upper = to_upper(keyword) == keyword;
  if ((from_is_lower && words[1] != "as") || (from_is_upper && words[1] != "AS"))
    reader.warning("FromAsCasing",
                   fmt::format("'{}' and '{}' keywords' casing do not match", words[1], keyword),
                   " " + words[1] + " ");
  return from;
}

RunInstruction read_run(InstructionReader& reader) {
  RunInstruction run;
  const auto add_mount = [&](const std::string& value) {
    base::Result<RunMount> mount = parse_run_mount(value, nullptr);
    if (mount)
      run.mounts.push_back(std::move(*mount));
    else
      reader.error("--mount: " + mount.error().to_string(), "--mount");
  };
  reader.read_flags(
      {{"mount", FlagKind::Texts, add_mount},
       {"network", FlagKind::Text, [&](const auto& value) { take_network(reader, run, value); }},
       {"security", FlagKind::Text,
        [&](const auto& value) { take_security(reader, run, value); }}});
  if (!reader.need_argument()) return run;
  const std::vector<RawHeredoc>& heredocs = reader.raw().heredocs;
  if (heredocs.empty()) {
    run.command = reader.command(reader.arguments());
    if (!run.command.shell_form && run.command.words.empty())
      reader.error("RUN needs a command; the array is empty");
    return run;
  }
  run.command.shell_form = true;
  if (heredocs.size() == 1 && heredoc_mark(reader.arguments())) {
    run.heredocs.push_back({.name = heredocs[0].mark.name,
                            .content = content_of(heredocs[0]),
                            .expand = heredocs[0].mark.expand});
    run.command.words = {run.heredocs[0].content};
    return run;
  }
  run.command.words = {with_heredocs(reader.arguments(), heredocs)};
  return run;
}

CopyInstruction read_copy(InstructionReader& reader) {
  CopyInstruction copy;
  copy.add = reader.name() == "ADD";
  const auto text = [](std::string& place) {
    return [&place](const std::string& value) { place = value; };
  };
  const auto flag = [](bool& place) {
    return [&place](const std::string& value) { place = value == "true"; };
  };
  std::vector<Flag> flags = {
      {"chown", FlagKind::Text, text(copy.chown)},
      {"chmod", FlagKind::Text, text(copy.chmod)},
      {"link", FlagKind::Boolean, flag(copy.link)},
      {"exclude", FlagKind::Texts, [&](const auto& value) { copy.exclude.push_back(value); }}};
  if (copy.add) {
    flags.push_back({"keep-git-dir", FlagKind::Boolean, flag(copy.keep_git_dir)});
    flags.push_back({"checksum", FlagKind::Text, text(copy.checksum)});
    flags.push_back(
        {"unpack", FlagKind::Boolean, [&](const auto& value) { copy.unpack = value == "true"; }});
  } else {
    flags.push_back({"from", FlagKind::Text, text(copy.from)});
    flags.push_back({"parents", FlagKind::Boolean, flag(copy.parents)});
  }
  reader.read_flags(flags);
  if (copy.from.find('$') != std::string::npos)
    reader.error(fmt::format("--from cannot hold a variable; give the image a stage of its own, "
                             "`FROM {} AS name`, and use its name",
                             copy.from),
                 "--from");
  take_paths(reader, copy);
  return copy;
}

}  // namespace builder
