#include "cli/arguments.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/text.h"

namespace cli {
namespace {

using Outcome = tl::expected<Parsed, UsageError>;

const std::vector<Flag>& common_flags() {
  static const std::vector<Flag> flags = {
      {.name = "help", .short_name = 'h', .value = "", .help = "Show this help"},
      {.name = "debug", .value = "", .help = "Say more about what happens (CONTAINER_DEBUG)"},
  };
  return flags;
}

bool one_of(std::string_view word, std::string_view names, char separator = ' ') {
  while (!names.empty()) {
    const size_t end = std::min(names.find(separator), names.size());
    if (names.substr(0, end) == word) return true;
    names.remove_prefix(std::min(end + 1, names.size()));
  }
  return false;
}

/// A flag whose value is called `json|table` takes one of these words.
bool is_choice(std::string_view value) {
  return value.find('|') != std::string_view::npos &&
         value.find_first_not_of("abcdefghijklmnopqrstuvwxyz-|") == std::string_view::npos;
}

template <class Wanted>
const Flag* find_flag(const Command& command, const Wanted& wanted) {
  for (const std::vector<Flag>* flags : {&command.flags, &common_flags()})
    for (const Flag& flag : *flags)
      if (wanted(flag)) return &flag;
  return nullptr;
}

const Flag* find_long(const Command& command, std::string_view name) {
  return find_flag(command, [&](const Flag& flag) {
    return flag.name == name || one_of(name, flag.other_names);
  });
}

const Flag* find_short(const Command& command, char name) {
  return find_flag(command, [&](const Flag& flag) { return flag.short_name == name; });
}

const Command* find_child(const Command& command, std::string_view name) {
  for (const Command& child : command.commands)
    if (child.name == name || one_of(name, child.other_names)) return &child;
  return nullptr;
}

std::string nearest_flag(const Command& command, std::string_view name) {
  std::vector<std::string> candidates;
  for (const std::vector<Flag>* flags : {&command.flags, &common_flags()})
    for (const Flag& flag : *flags) candidates.emplace_back(flag.name);
  const auto nearest = base::did_you_mean(name, candidates);
  return nearest ? fmt::format("; did you mean '--{}'?", *nearest) : "";
}

std::string nearest_command(const Command& command, std::string_view name) {
  std::vector<std::string> candidates;
  for (const Command& child : command.commands) {
    candidates.emplace_back(child.name);
    for (const std::string& other : base::split(child.other_names, ' '))
      if (!other.empty()) candidates.push_back(other);
  }
  const auto nearest = base::did_you_mean(name, candidates);
  return nearest ? fmt::format("; did you mean '{}'?", *nearest) : "";
}

/// One walk along the words.
class Parser {
 public:
  Parser(const Command& root, const std::vector<std::string>& words) : words_(words) {
    parsed_.command = &root;
  }

  Outcome run() {
    while (position_ < words_.size() && !problem_) step(words_[position_++]);
    if (!problem_ && !parsed_.has("help")) check_arguments();
    if (problem_)
      return tl::unexpected<UsageError>(UsageError{*problem_, parsed_.command, parsed_.path});
    return std::move(parsed_);
  }

 private:
  void step(const std::string& word) {
    const bool is_flag = !flags_ended_ && word.size() > 1 && word[0] == '-';
    if (!is_flag) return argument(word);
    if (word == "--") {
      flags_ended_ = true;
    } else if (word[1] == '-') {
      long_flag(std::string_view(word).substr(2));
    } else {
      short_flags(std::string_view(word).substr(1));
    }
  }

  void argument(const std::string& word) {
    if (!parsed_.command->commands.empty()) return descend(word);
    parsed_.arguments.push_back(word);
    if (parsed_.command->rest_verbatim) take_rest();
  }

  /// `exec web -- ls` means `exec web ls`; any later `--` belongs to the program.
  void take_rest() {
    while (position_ < words_.size()) {
      const bool before_program = parsed_.arguments.size() < parsed_.command->arguments_min;
      const std::string& word = words_[position_++];
      if (before_program && !flags_ended_ && word == "--")
        flags_ended_ = true;
      else
        parsed_.arguments.push_back(word);
    }
  }

  void descend(const std::string& word) {
    const Command* child = find_child(*parsed_.command, word);
    if (child == nullptr) {
      problem_ =
          fmt::format("unknown command '{}{}{}'{}", parsed_.path, parsed_.path.empty() ? "" : " ",
                      base::escape_controls(word), nearest_command(*parsed_.command, word));
      return;
    }
    if (!parsed_.path.empty()) parsed_.path += ' ';
    parsed_.path += child->name;
    parsed_.command = child;
  }

  void long_flag(std::string_view text) {
    const size_t equals = text.find('=');
    const std::string_view name = text.substr(0, equals);
    const Flag* flag = find_long(*parsed_.command, name);
    if (flag == nullptr) {
      problem_ = fmt::format("unknown option '--{}'{}", base::escape_controls(name),
                             nearest_flag(*parsed_.command, name));
    } else if (flag->value.empty()) {
      if (equals == std::string_view::npos) return set(*flag, "true");
      switch_value(*flag, text.substr(equals + 1));
    } else if (equals != std::string_view::npos) {
      set(*flag, std::string(text.substr(equals + 1)));
    } else {
      take_value(*flag, fmt::format("--{}", name));
    }
  }

  /// `--detach=false` takes back what stands before it.
  void switch_value(const Flag& flag, std::string_view value) {
    if (value == "true") return set(flag, "true");
    if (value == "false") {
      parsed_.values.erase(std::string(flag.name));
      return;
    }
    problem_ = fmt::format("option '--{}' is a switch: true or false, not '{}'", flag.name,
                           base::escape_controls(value));
  }

  /// `-it`, `-eA=1`, `-e=A=1` and `-e A=1`.
  void short_flags(std::string_view letters) {
    while (!letters.empty() && !problem_) {
      const Flag* flag = find_short(*parsed_.command, letters[0]);
      if (flag == nullptr) {
        problem_ = fmt::format("unknown option '-{}'", base::escape_controls(letters.substr(0, 1)));
        return;
      }
      const char letter = letters[0];
      letters.remove_prefix(1);
      if (flag->value.empty()) {
        set(*flag, "true");
        continue;
      }
      if (letters.empty()) return take_value(*flag, fmt::format("-{}", letter));
      if (letters[0] == '=') letters.remove_prefix(1);
      return set(*flag, std::string(letters));
    }
  }

  void take_value(const Flag& flag, const std::string& written) {
    if (position_ == words_.size()) {
      problem_ = fmt::format("option '{}' needs a value: {}", written, flag.value);
      return;
    }
    set(flag, words_[position_++]);
  }

  void set(const Flag& flag, std::string value) {
    if (is_choice(flag.value) && !one_of(value, flag.value, '|')) {
      problem_ = fmt::format("option '--{}' is one of {}, not '{}'", flag.name, flag.value,
                             base::escape_controls(value));
      return;
    }
    parsed_.values[std::string(flag.name)].push_back(std::move(value));
  }

  void check_arguments() {
    const Command& command = *parsed_.command;
    const size_t count = parsed_.arguments.size();
    if (count < command.arguments_min) {
      problem_ = fmt::format("missing argument: {}", command.arguments);
    } else if (count > command.arguments_max) {
      problem_ = fmt::format("unexpected argument '{}'",
                             base::escape_controls(parsed_.arguments[command.arguments_max]));
    }
  }

  const std::vector<std::string>& words_;
  Parsed parsed_;
  size_t position_ = 0;
  bool flags_ended_ = false;
  std::optional<std::string> problem_;
};

std::string usage_line(const Command& command, std::string_view path) {
  std::string line = "container";
  if (!path.empty()) line += fmt::format(" {}", path);
  if (!command.commands.empty()) return line + " COMMAND";
  if (!command.flags.empty()) line += " [OPTION…]";
  if (!command.arguments.empty()) line += fmt::format(" {}", command.arguments);
  return line;
}

struct HelpRow {
  std::string left;
  std::string_view right;
};

std::string aligned(const std::vector<HelpRow>& rows) {
  constexpr size_t left_max = 32;
  size_t width = 0;
  for (const HelpRow& row : rows)
    if (row.left.size() <= left_max) width = std::max(width, row.left.size());
  std::string text;
  for (const HelpRow& row : rows) {
    text += fmt::format("  {}", row.left);
    if (row.left.size() > width) {
      text.append("\n").append(width + 4, ' ');
    } else {
      text.append(width - row.left.size() + 2, ' ');
    }
    text += fmt::format("{}\n", row.right);
  }
  return text;
}

std::string flag_forms(const Flag& flag) {
  std::string forms = flag.short_name != '\0' ? fmt::format("-{}, ", flag.short_name) : "    ";
  forms += fmt::format("--{}", flag.name);
  for (const std::string& other : base::split(flag.other_names, ' '))
    if (!other.empty()) forms += fmt::format(", --{}", other);
  if (!flag.value.empty()) forms += fmt::format(" {}", flag.value);
  return forms;
}

std::string help_of_commands(const Command& command) {
  std::vector<std::string_view> groups;
  for (const Command& child : command.commands)
    if (std::find(groups.begin(), groups.end(), child.group) == groups.end())
      groups.push_back(child.group);
  std::string text;
  for (const std::string_view group : groups) {
    std::vector<HelpRow> rows;
    for (const Command& child : command.commands) {
      if (child.group != group) continue;
      std::string names(child.name);
      for (const std::string& other : base::split(child.other_names, ' '))
        if (!other.empty()) names += fmt::format(", {}", other);
      rows.push_back({std::move(names), child.summary});
    }
    text += fmt::format("\n{}:\n{}", group.empty() ? "Commands" : group, aligned(rows));
  }
  return text;
}

}  // namespace

std::optional<std::string> Parsed::value(std::string_view flag) const {
  const auto found = values.find(flag);
  if (found == values.end()) return std::nullopt;
  return found->second.back();
}

const std::vector<std::string>& Parsed::all(std::string_view flag) const {
  static const std::vector<std::string> none;
  const auto found = values.find(flag);
  return found == values.end() ? none : found->second;
}

Outcome parse(const Command& root, const std::vector<std::string>& words) {
  return Parser(root, words).run();
}

Outcome find_command(const Command& root, const std::vector<std::string>& names) {
  std::vector<std::string> words = names;
  words.emplace_back("--help");
  return parse(root, words);
}

std::string help(const Command& command, std::string_view path) {
  std::string text = fmt::format("{}\n\nUsage: {}\n", command.summary, usage_line(command, path));
  if (!command.commands.empty()) text += help_of_commands(command);
  std::vector<HelpRow> rows;
  for (const std::vector<Flag>* flags : {&command.flags, &common_flags()})
    for (const Flag& flag : *flags) rows.push_back({flag_forms(flag), flag.help});
  return text + "\nOptions:\n" + aligned(rows);
}

std::string usage(const UsageError& error) {
  return fmt::format("Error: {}\nUsage: {}\n  See 'container{}{} --help' for more information.\n",
                     error.message, usage_line(*error.command, error.path),
                     error.path.empty() ? "" : " ", error.path);
}

}  // namespace cli
