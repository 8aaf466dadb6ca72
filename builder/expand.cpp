#include "builder/expand.h"

#include <utility>

#include "base/limits.h"
#include "base/text.h"
#include "builder/characters.h"
#include "builder/pattern.h"
#include "builder/run_mount.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;
namespace limits = base::limits;

/// A word as it grows, and the words it falls into where white space outside of quotes splits it.
class Output {
 public:
  /// Text that may be split.
  void add(std::string_view text) {
    word_ += text;
    for (size_t at = 0; at < text.size();) {
      if (const size_t space = space_bytes(text, at)) {
        end_piece();
        at += space;
        continue;
      }
      piece_ += text[at++];
    }
  }
  /// Text of quotes, or escaped: stays together.
  void add_quoted(std::string_view text) {
    word_ += text;
    piece_ += text;
  }
  void end_piece() {
    if (!piece_.empty()) pieces_.push_back(std::exchange(piece_, {}));
  }
  size_t size() const { return word_.size(); }
  std::string& word() { return word_; }
  std::vector<std::string>& pieces() { return pieces_; }

 private:
  std::string word_;
  std::string piece_;
  std::vector<std::string> pieces_;
};

struct Rules {
  char escape = '\\';
  bool quotes = true;  ///< Otherwise they are text.
};

class Run {
 public:
  Run(std::string_view text, Rules rules, const Lookup& lookup, UsedVariables* used)
      : text_(text), rules_(rules), lookup_(lookup), used_(used) {}

  Result<Output> whole() { return until('\0', false); }

 private:
  bool at_end() const { return at_ >= text_.size(); }
  char peek() const { return at_end() ? '\0' : text_[at_]; }
  std::string_view take() {
    const std::string_view character = text_.substr(at_, character_bytes(text_, at_));
    at_ += character.size();
    return character;
  }
  template <class... Args>
  tl::unexpected<base::Error> bad(fmt::format_string<Args...> format, Args&&... args) const {
    constexpr size_t shown_max = 80;
    const std::string reason = fmt::format(format, std::forward<Args>(args)...);
    return base::fail(ErrorCode::InvalidArgument, "{} in '{}{}'", reason,
                      text_.substr(0, shown_max), text_.size() > shown_max ? "…" : "");
  }

  Result<Output> until(char stop, bool keep_escapes);
  Result<std::string> single_quoted();
  Result<std::string> double_quoted(bool keep_escapes);
  Result<std::string> variable();
  Result<std::string> braced();
  Result<std::string> with_default(const std::string& name, bool empty_is_unset);
  Result<std::string> cut(const std::string& name, char kind);
  Result<std::string> replaced(const std::string& name);
  Result<std::string> part(char stop, bool keep_escapes, std::string_view missing);
  std::string name();
  std::optional<std::string> value(const std::string& name, bool may_be_unset);
  Result<ShellPattern> pattern(const std::string& text, const std::string& subject) const;

  std::string_view text_;
  size_t at_ = 0;
  Rules rules_;
  const Lookup& lookup_;
  UsedVariables* used_;
  uint32_t depth_ = 0;
};

Result<Output> Run::until(char stop, bool keep_escapes) {
  if (++depth_ > limits::expansion_depth_max)
    return bad("variables nested more than {} deep", limits::expansion_depth_max);
  Output out;
  while (!at_end()) {
    const char c = peek();
    if (stop != '\0' && c == stop) {
      ++at_;
      out.end_piece();
      --depth_;
      return out;
    }
    if (c == '$') {
      out.add(TRY(variable()));
    } else if (rules_.quotes && c == '\'') {
      out.add_quoted(TRY(single_quoted()));
    } else if (rules_.quotes && c == '"') {
      out.add_quoted(TRY(double_quoted(keep_escapes)));
    } else if (c == rules_.escape) {
      if (keep_escapes) out.add_quoted(text_.substr(at_, 1));
      ++at_;
      if (at_end()) break;
      out.add_quoted(take());
    } else {
      out.add(take());
    }
    if (out.size() > limits::expansion_bytes_max)
      return bad("more than {} KiB after variables are replaced",
                 limits::expansion_bytes_max >> 10);
  }
  if (stop != '\0') return bad("a missing '{}'", stop);
  out.end_piece();
  --depth_;
  return out;
}

Result<std::string> Run::single_quoted() {
  const size_t end = text_.find('\'', ++at_);
  if (end == std::string_view::npos) return bad("a missing closing '");
  std::string result(text_.substr(at_, end - at_));
  at_ = end + 1;
  return result;
}

Result<std::string> Run::double_quoted(bool keep_escapes) {
  ++at_;
  std::string result;
  while (!at_end()) {
    const char c = peek();
    if (c == '"') {
      ++at_;
      return result;
    }
    if (c == '$') {
      result += TRY(variable());
      if (result.size() > limits::expansion_bytes_max)
        return bad("more than {} KiB after variables are replaced",
                   limits::expansion_bytes_max >> 10);
      continue;
    }
    if (c == rules_.escape) {
      if (keep_escapes) result += c;
      ++at_;
      const char next = peek();
      // Other escapes stay as they are, a last one is dropped.
      if (at_end()) continue;
      if (next != '"' && next != '$' && next != rules_.escape) {
        result += c;
        continue;
      }
    }
    result += take();
  }
  return bad("a missing closing \"");
}

/// Letters, digits and `_`; or all digits; or one special parameter of the shell.
std::string Run::name() {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           static_cast<unsigned char>(c) >= 0x80;
  };
  const size_t start = at_;
  if (is_digit(peek())) {
    while (is_digit(peek())) ++at_;
  } else if (!at_end() && std::string_view("@*#?-$!").find(peek()) != std::string_view::npos) {
    ++at_;
  } else {
    while (!at_end() && (is_letter(peek()) || is_digit(peek())) && space_bytes(text_, at_) == 0)
      take();
  }
  return std::string(text_.substr(start, at_ - start));
}

std::optional<std::string> Run::value(const std::string& name, bool may_be_unset) {
  std::optional<std::string> found = lookup_(name);
  if (used_ != nullptr) {
    if (found) used_->found.insert(name);
    if (!found && !may_be_unset) used_->unset.insert(name);
  }
  return found;
}

Result<std::string> Run::variable() {
  ++at_;
  if (peek() == '{') {
    ++at_;
    return braced();
  }
  const std::string found = name();
  if (found.empty()) return std::string("$");
  return value(found, false).value_or("");
}

Result<std::string> Run::part(char stop, bool keep_escapes, std::string_view missing) {
  Result<Output> out = until(stop, keep_escapes);
  if (out) return std::move(out->word());
  if (at_end()) return bad("{}", missing);
  return tl::unexpected(out.error());
}

Result<std::string> Run::braced() {
  if (at_end()) return bad("a missing '}}' of a variable");
  const char first = peek();
  if (first == '{' || first == '}' || first == ':') return bad("a bad substitution");
  const std::string variable_name = name();
  if (at_end()) return bad("a missing '}}' of a variable");
  const char kind = peek();
  switch (kind) {
    case '}': ++at_; return value(variable_name, false).value_or("");
    case ':': ++at_; return with_default(variable_name, true);
    case '-':
    case '+':
    case '?': return with_default(variable_name, false);
    case '#':
    case '%': ++at_; return cut(variable_name, kind);
    case '/': ++at_; return replaced(variable_name);
    default: break;
  }
  return bad("an unsupported modifier '{}' of a variable", take());
}

Result<std::string> Run::with_default(const std::string& variable_name, bool empty_is_unset) {
  if (at_end()) return bad("a missing '}}' of a variable");
  const char kind = peek();
  if (kind != '-' && kind != '+' && kind != '?') {
    // `${v:#p}` is what the reference takes for `${v#p}`.
    if (kind == '#' || kind == '%') {
      ++at_;
      return cut(variable_name, kind);
    }
    return bad("an unsupported modifier ':{}' of a variable", take());
  }
  ++at_;
  const std::string word = TRY(part('}', false, "a missing '}' of a variable"));
  const std::optional<std::string> found = value(variable_name, kind != '?');
  const bool counts = found && !(empty_is_unset && found->empty());
  if (kind == '-') return counts ? *found : word;
  if (kind == '+') return counts ? word : std::string();
  if (counts) return *found;
  const std::string_view reason = !word.empty() ? std::string_view(word)
                                  : found       ? "is not allowed to be empty"
                                                : "is not allowed to be unset";
  return base::fail(ErrorCode::InvalidArgument, "{}: {}", variable_name, reason);
}

Result<ShellPattern> Run::pattern(const std::string& text, const std::string& subject) const {
  ShellPattern made = TRY(ShellPattern::create(text));
  if (made.size() + 1 > limits::expansion_steps_max / (subject.size() + 1))
    return bad("a pattern of {} characters for a value of {}: too much to match", made.size(),
               subject.size());
  return made;
}

Result<std::string> Run::cut(const std::string& variable_name, char kind) {
  std::string word = TRY(part('}', true, "a missing '}' of a variable"));
  const bool longest = !word.empty() && word[0] == kind;
  if (longest) word.erase(0, 1);
  const std::string subject = value(variable_name, false).value_or("");
  const ShellPattern made = TRY(pattern(word, subject));
  return kind == '#' ? made.without_prefix(subject, longest)
                     : made.without_suffix(subject, longest);
}

Result<std::string> Run::replaced(const std::string& variable_name) {
  const bool all = peek() == '/';
  if (all) ++at_;
  const std::string word = TRY(part('/', true, "a missing '/' of a replacement"));
  const std::string with = TRY(part('}', true, "a missing '}' of a variable"));
  const std::string subject = value(variable_name, false).value_or("");
  const ShellPattern made = TRY(pattern(word, subject));
  if (all && with.size() > limits::expansion_bytes_max / (subject.size() + 1))
    return bad("a replacement of {} bytes in a value of {}: too long", with.size(), subject.size());
  return made.replace(subject, with, all);
}

}  // namespace

Result<std::string> Expander::word(std::string_view text) const {
  return std::move(TRY(Run(text, {.escape = escape_}, lookup_, used_).whole()).word());
}

Result<std::vector<std::string>> Expander::words(std::string_view text) const {
  return std::move(TRY(Run(text, {.escape = escape_}, lookup_, used_).whole()).pieces());
}

Result<std::string> Expander::raw(std::string_view text) const {
  // Here documents know one escape only, whatever the file's is.
  const Rules rules{.escape = '\\', .quotes = false};
  return std::move(TRY(Run(text, rules, lookup_, used_).whole()).word());
}

namespace {

Result<> expand_in_place(std::string& text, const Expander& expander) {
  text = TRY(expander.word(text));
  return {};
}

Result<> expand_in_place(std::vector<std::string>& texts, const Expander& expander) {
  for (std::string& text : texts) TRY(expand_in_place(text, expander));
  return {};
}

Result<> expand_in_place(Pairs& pairs, const Expander& expander) {
  for (auto& [key, value] : pairs) {
    TRY(expand_in_place(key, expander));
    TRY(expand_in_place(value, expander));
  }
  return {};
}

/// Those whose words are the shell's, or nobody's.
template <class T>
Result<> expand_one(T&, const Expander&) {
  return {};
}

Result<> expand_one(ArgInstruction& arg, const Expander& expander) {
  for (auto& [name, value] : arg.names) {
    TRY(expand_in_place(name, expander));
    if (value) TRY(expand_in_place(*value, expander));
  }
  return {};
}

Result<> expand_one(EnvInstruction& env, const Expander& expander) {
  return expand_in_place(env.pairs, expander);
}

Result<> expand_one(LabelInstruction& label, const Expander& expander) {
  return expand_in_place(label.pairs, expander);
}

Result<> expand_one(CopyInstruction& copy, const Expander& expander) {
  for (std::string* text : {&copy.target, &copy.chown, &copy.chmod, &copy.checksum})
    TRY(expand_in_place(*text, expander));
  TRY(expand_in_place(copy.sources, expander));
  TRY(expand_in_place(copy.exclude, expander));
  for (Heredoc& heredoc : copy.heredocs)
    if (heredoc.expand) heredoc.content = TRY(expander.raw(heredoc.content));
  return {};
}

Result<> expand_one(RunInstruction& run, const Expander& expander) {
  const auto value_of = [&](std::string_view text) { return expander.word(text); };
  for (RunMount& mount : run.mounts) mount = TRY(parse_run_mount(mount.text, value_of));
  return {};
}

Result<> expand_one(WorkdirInstruction& workdir, const Expander& expander) {
  return expand_in_place(workdir.path, expander);
}

Result<> expand_one(UserInstruction& user, const Expander& expander) {
  return expand_in_place(user.user, expander);
}

Result<> expand_one(VolumeInstruction& volume, const Expander& expander) {
  return expand_in_place(volume.paths, expander);
}

Result<> expand_one(StopSignalInstruction& stop, const Expander& expander) {
  return expand_in_place(stop.signal, expander);
}

Result<> expand_one(ExposeInstruction& expose, const Expander& expander) {
  std::vector<std::string> ports;
  for (const std::string& text : expose.ports)
    for (std::string& port : TRY(expander.words(text))) ports.push_back(std::move(port));
  expose.ports = std::move(ports);
  return {};
}

}  // namespace

Result<Operation> expand(const Operation& operation, const Expander& expander) {
  Operation result = operation;
  TRY(std::visit([&](auto& one) { return expand_one(one, expander); }, result));
  return result;
}

Result<FromInstruction> expand(const FromInstruction& from, const Expander& expander) {
  FromInstruction result = from;
  TRY(expand_in_place(result.image, expander));
  TRY(expand_in_place(result.platform, expander));
  return result;
}

}  // namespace builder
