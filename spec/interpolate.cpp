#include "spec/interpolate.h"

#include <optional>

#include "base/limits.h"
#include "base/text.h"

namespace spec {
namespace {

bool starts_name(char c) { return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

size_t name_length(std::string_view text) {
  if (text.empty() || !starts_name(text[0])) return 0;
  size_t length = 1;
  while (length < text.size() &&
         (starts_name(text[length]) || (text[length] >= '0' && text[length] <= '9')))
    ++length;
  return length;
}

/// Length of `{…}` at the front of `text` including both braces; 0 if it is never closed.
size_t braced_length(std::string_view text) {
  size_t open = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{') ++open;
    if (text[i] == '}' && --open == 0) return i + 1;
  }
  return 0;
}

enum class Operator { None, Default, Require, Replace };

/// The inside of `${…}`: a name, perhaps an operator and its word.
struct Expression {
  std::string_view name;
  Operator operation = Operator::None;
  bool empty_counts_as_unset = false;  ///< The form with a colon.
  std::string_view word;
};

std::optional<Expression> parse_expression(std::string_view inside) {
  Expression expression;
  expression.name = inside.substr(0, name_length(inside));
  if (expression.name.empty()) return std::nullopt;
  inside.remove_prefix(expression.name.size());
  if (inside.empty()) return expression;
  expression.empty_counts_as_unset = inside[0] == ':';
  if (expression.empty_counts_as_unset) inside.remove_prefix(1);
  if (inside.empty()) return std::nullopt;
  switch (inside[0]) {
    case '-': expression.operation = Operator::Default; break;
    case '?': expression.operation = Operator::Require; break;
    case '+': expression.operation = Operator::Replace; break;
    default: return std::nullopt;
  }
  expression.word = inside.substr(1);
  return expression;
}

class Interpolation {
 public:
  Interpolation(const VariableLookup& lookup, size_t bytes_max)
      : lookup_(lookup), bytes_left_(bytes_max) {}

  base::Result<std::string> expand(std::string_view text, int depth) {
    if (depth > base::limits::stack_depth_max)
      return base::fail(base::ErrorCode::InvalidArgument,
                        "variables are nested deeper than {} levels",
                        base::limits::stack_depth_max);
    std::string result;
    while (!text.empty()) {
      const size_t dollar = text.find('$');
      TRY(append(result, text.substr(0, dollar)));
      if (dollar == std::string_view::npos) break;
      text.remove_prefix(dollar);
      TRY(take_dollar(text, result, depth));
    }
    return result;
  }

  std::vector<std::string> unset;

 private:
  base::Result<> append(std::string& result, std::string_view piece) {
    if (piece.size() > bytes_left_)
      return base::fail(base::ErrorCode::NoSpace,
                        "the text becomes too long when its variables are filled in");
    bytes_left_ -= piece.size();
    result += piece;
    return {};
  }

  /// `text` begins with a dollar sign; takes what belongs to it.
  base::Result<> take_dollar(std::string_view& text, std::string& result, int depth) {
    const std::string_view rest = text.substr(1);
    if (!rest.empty() && rest[0] == '$') {
      text.remove_prefix(2);
      return append(result, "$");
    }
    if (const size_t length = name_length(rest); length > 0) {
      text.remove_prefix(1 + length);
      return append(result, value_or_blank(rest.substr(0, length)));
    }
    if (rest.empty() || rest[0] != '{') {  // a lone `$`, `$1`, `$}`: stays as it is
      text.remove_prefix(1);
      return append(result, "$");
    }
    const size_t length = braced_length(rest);
    const auto expression =
        length == 0 ? std::nullopt : parse_expression(rest.substr(1, length - 2));
    if (!expression)
      return base::fail(base::ErrorCode::InvalidArgument,
                        "invalid interpolation format '{}': write ${{NAME}}, ${{NAME:-default}} "
                        "or ${{NAME:?message}}; a plain dollar sign is written $$",
                        base::escape_controls(text.substr(0, length == 0 ? 40 : length + 1)));
    text.remove_prefix(1 + length);
    return append(result, TRY(evaluate(*expression, depth)));
  }

  base::Result<std::string> evaluate(const Expression& expression, int depth) {
    const std::string* value = lookup_(expression.name);
    const bool present = value != nullptr && !(expression.empty_counts_as_unset && value->empty());
    switch (expression.operation) {
      case Operator::None: return std::string(value_or_blank(expression.name));
      case Operator::Default: return present ? *value : expand(expression.word, depth + 1);
      case Operator::Replace: return present ? expand(expression.word, depth + 1) : std::string();
      case Operator::Require: break;
    }
    if (present) return *value;
    return base::fail(base::ErrorCode::InvalidArgument,
                      "required variable {} is missing a value: {}", expression.name,
                      TRY(expand(expression.word, depth + 1)));
  }

  std::string_view value_or_blank(std::string_view name) {
    if (const std::string* value = lookup_(name)) return *value;
    unset.emplace_back(name);
    return {};
  }

  const VariableLookup& lookup_;
  size_t bytes_left_;
};

}  // namespace

base::Result<Interpolated> interpolate(std::string_view text, const VariableLookup& lookup,
                                       size_t bytes_max) {
  Interpolation interpolation(lookup, bytes_max);
  std::string expanded = TRY(interpolation.expand(text, 0));
  return Interpolated{.text = std::move(expanded), .unset = std::move(interpolation.unset)};
}

}  // namespace spec
