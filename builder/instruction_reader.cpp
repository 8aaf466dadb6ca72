#include "builder/instruction_reader.h"

#include <algorithm>

#include "base/text.h"
#include "builder/characters.h"

namespace builder {
namespace {

std::string suggestion(std::string_view word, const std::vector<std::string>& candidates) {
  const std::optional<std::string> near = base::did_you_mean(word, candidates);
  return near ? fmt::format("; did you mean --{}?", *near) : std::string();
}

}  // namespace

std::string InstructionReader::name() const { return to_upper(raw_.split.command); }

void InstructionReader::error(std::string message, std::string_view at) {
  const size_t found = at.empty() ? std::string::npos : raw_.line.text.find(at);
  problems_.push_back(
      {raw_.line.location(found == std::string::npos ? 0 : found), std::move(message)});
}

void InstructionReader::warning(std::string rule, std::string message, std::string_view at) {
  error(std::move(message), at);
  problems_.back().warning = true;
  problems_.back().rule = std::move(rule);
}

void InstructionReader::read_flag(const std::string& text, const std::vector<Flag>& flags,
                                  std::vector<std::string>& seen) {
  const size_t equals = text.find('=');
  const std::string key = text.substr(2, equals == std::string::npos ? equals : equals - 2);
  const std::string place = "--" + key;
  const auto flag =
      std::find_if(flags.begin(), flags.end(), [&](const Flag& one) { return one.name == key; });
  if (flag == flags.end()) {
    std::vector<std::string> names;
    for (const Flag& one : flags) names.push_back(one.name);
    error(flags.empty() ? fmt::format("{} has no flags, but here is --{}", name(), key)
                        : fmt::format("{} has no flag --{}{}", name(), key, suggestion(key, names)),
          place);
    return;
  }
  const bool again = std::find(seen.begin(), seen.end(), key) != seen.end();
  seen.push_back(key);
  if (again && flag->kind != FlagKind::Texts) {
    error(fmt::format("--{} stands here a second time; remove it", key), place);
    return;
  }
  const std::string value = equals == std::string::npos ? "" : text.substr(equals + 1);
  if (flag->kind != FlagKind::Boolean) {
    if (equals == std::string::npos)
      error(fmt::format("--{} needs a value: --{}=…", key, key), place);
    else
      flag->set(value);
    return;
  }
  const std::string lower = to_lower(value);
  if ((equals != std::string::npos && value.empty()) ||
      (!lower.empty() && lower != "true" && lower != "false")) {
    error(fmt::format("--{} is true or false, not '{}'", key, value), place);
    return;
  }
  flag->set(lower == "false" ? "false" : "true");
}

void InstructionReader::read_flags(const std::vector<Flag>& flags) {
  std::vector<std::string> seen;
  for (const std::string& text : raw_.split.flags) read_flag(text, flags, seen);
}

bool InstructionReader::need_argument() {
  if (!arguments().empty()) return true;
  error(fmt::format("{} needs an argument", name()));
  return false;
}

CommandLine InstructionReader::command(std::string_view text) {
  if (std::optional<JsonArray> array = parse_json_array(text)) {
    if (!array->only_strings)
      error(fmt::format("a {} in JSON form is an array of strings only", name()), "[");
    else if (!array->behind.empty())
      warning("", fmt::format("what follows the JSON array of {} has no effect", name()),
              array->behind);
    return {.shell_form = false, .words = std::move(array->items)};
  }
  CommandLine line{.shell_form = true, .words = {}};
  if (!text.empty()) line.words.emplace_back(text);
  return line;
}

std::vector<std::string> InstructionReader::list() {
  if (std::optional<JsonArray> array = parse_json_array(arguments())) {
    if (!array->only_strings)
      error(fmt::format("a {} in JSON form is an array of strings only", name()), "[");
    return std::move(array->items);
  }
  return plain_words(arguments());
}

Pairs InstructionReader::pairs() {
  Pairs pairs;
  if (!need_argument()) return pairs;
  const std::vector<std::string> words = quoted_words(arguments(), raw_.escape);
  if (words.empty()) {
    error(fmt::format("{} needs an argument", name()));
    return pairs;
  }
  if (words[0].find('=') == std::string::npos) {
    // The old form: a name, and the rest of the line is its value.
    const std::string_view text = arguments();
    const size_t end = text.find_first_of("\t\v\f\r ");
    if (end == std::string_view::npos) {
      error(fmt::format("'{}' has no value; write {} {}=value", text, name(), text), text);
      return pairs;
    }
    const size_t value = text.find_first_not_of("\t\v\f\r ", end);
    pairs.emplace_back(text.substr(0, end), text.substr(value));
    warning("LegacyKeyValueFormat",
            fmt::format("\"{} key=value\" should be used instead of legacy \"{} key value\" format",
                        name(), name()));
    return pairs;
  }
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) {
      error(fmt::format("'{}' has no '='; it must be name=value, with quotes around a value that "
                        "holds blanks",
                        word),
            word);
      continue;
    }
    if (equals == 0) error(fmt::format("a name of {} is empty", name()), word);
    pairs.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return pairs;
}

}  // namespace builder
