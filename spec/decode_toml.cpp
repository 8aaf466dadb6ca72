/// TOML by toml++. Its parser recurses for nested values and dotted keys, so the nesting is
/// measured on the bare text before it gets to see it.

#include <algorithm>
#include <string>

#include <fmt/format.h>

namespace spec {
namespace {

/// The parser asserts where it should complain, and the text of a stranger must not end us.
struct Assertion {};
[[noreturn]] void fail_assertion() { throw Assertion{}; }

}  // namespace
}  // namespace spec

#undef NDEBUG  // or the assertion would be taken for a promise
#define TOML_ASSERT(condition) (static_cast<bool>(condition) ? void() : spec::fail_assertion())
#include <toml++/toml.h>

#include "spec/decode.h"

namespace spec {
namespace {

/// Walks the text once, strings and comments left out, and measures brackets and dotted keys.
class NestingScan {
 public:
  explicit NestingScan(std::string_view text) : text_(text) {}

  /// The line of the first place that is nested too deeply; 0 if there is none.
  uint32_t too_deep_line() {
    while (at_ < text_.size()) {
      step();
      if (open_ + dots_ > base::limits::stack_toml_depth_max) return line_;
    }
    return 0;
  }

 private:
  void step() {
    const char c = text_[at_];
    if (c == '"' || c == '\'') return skip_string(c);
    if (c == '#') {
      at_ = std::min(text_.find('\n', at_), text_.size());
      return;
    }
    if (c == '\n') ++line_;
    if (c == '[' || c == '{') ++open_;
    if (c == ']' || c == '}') open_ = std::max(0, open_ - 1);
    if (c == '.') ++dots_;
    if (c == '\n' || c == '=' || c == ',' || c == '{') dots_ = 0;
    ++at_;
  }

  void skip_string(char quote) {
    const std::string triple(3, quote);
    const bool is_long = text_.substr(at_).starts_with(triple);
    const std::string_view end = is_long ? std::string_view(triple) : text_.substr(at_, 1);
    at_ += end.size();
    while (at_ < text_.size() && !text_.substr(at_).starts_with(end)) {
      if (!is_long && text_[at_] == '\n') return;  // not closed: the parser will say so
      if (text_[at_] == '\n') ++line_;
      at_ += quote == '"' && text_[at_] == '\\' ? 2 : 1;
    }
    at_ = std::min(at_ + end.size(), text_.size());
  }

  std::string_view text_;
  size_t at_ = 0;
  uint32_t line_ = 1;
  int open_ = 0;
  int dots_ = 0;
};

struct TooLarge {
  Place place;
};

class Converter {
 public:
  Converter(uint16_t file, Budget& budget, Reporter& reporter)
      : file_(file), budget_(budget), reporter_(reporter) {}

  Node convert(const toml::node& from) {
    Node node;
    node.place = place(from.source());
    spend(1, 0, node.place);
    if (const toml::table* table = from.as_table()) {
      convert_table(*table, node);
    } else if (const toml::array* array = from.as_array()) {
      node.kind = NodeKind::List;
      for (const toml::node& item : *array) node.children.push_back(convert(item));
    } else {
      node.kind = NodeKind::Scalar;
      convert_scalar(from, node);
      spend(0, node.text.size(), node.place);
    }
    return node;
  }

 private:
  Place place(const toml::source_region& region) const {
    return {.file = file_, .line = region.begin.line, .column = region.begin.column};
  }

  void spend(size_t nodes, size_t bytes, const Place& where) {
    if (nodes > budget_.nodes_left || bytes > budget_.bytes_left) throw TooLarge{where};
    budget_.nodes_left -= nodes;
    budget_.bytes_left -= bytes;
  }

  /// toml++ keeps keys sorted; the order of the file is put back, for messages and lists.
  void convert_table(const toml::table& table, Node& node) {
    node.kind = NodeKind::Map;
    for (const auto& [key, value] : table) {
      Node child = convert(value);
      child.key = std::string(key.str());
      child.key_place = place(key.source());
      if (child.key_place.line == 0) child.key_place = child.place;
      spend(0, child.key.size(), child.key_place);
      if (!check_key(child, reporter_)) continue;
      take_key_tag(child);
      node.children.push_back(std::move(child));
    }
    std::stable_sort(node.children.begin(), node.children.end(), [](const Node& a, const Node& b) {
      return std::pair(a.key_place.line, a.key_place.column) <
             std::pair(b.key_place.line, b.key_place.column);
    });
  }

  static void convert_scalar(const toml::node& from, Node& node) {
    if (const auto* text = from.as_string()) {
      node.text = text->get();
    } else if (const auto* integer = from.as_integer()) {
      node.type = ScalarType::Integer;
      const bool octal =
          (integer->flags() & toml::value_flags::format_as_octal) != toml::value_flags::none;
      node.text = octal ? fmt::format("0o{:o}", integer->get()) : std::to_string(integer->get());
    } else if (const auto* number = from.as_floating_point()) {
      node.type = ScalarType::Float;
      node.text = fmt::format("{}", number->get());
    } else if (const auto* boolean = from.as_boolean()) {
      node.type = ScalarType::Boolean;
      node.text = boolean->get() ? "true" : "false";
    } else {
      node.type = ScalarType::Date;
    }
  }

  uint16_t file_;
  Budget& budget_;
  Reporter& reporter_;
};

}  // namespace

std::vector<Node> decode_toml(std::string_view text, uint16_t file, Budget& budget,
                              Reporter& reporter) {
  if (const uint32_t line = NestingScan(text).too_deep_line(); line != 0) {
    reporter.error({.file = file, .line = line, .column = 1}, "", "nested too deeply",
                   fmt::format("at most {} levels are read", base::limits::stack_toml_depth_max));
    return {};
  }
  try {
    const toml::table table = toml::parse(text);
    std::vector<Node> documents;
    documents.push_back(Converter(file, budget, reporter).convert(table));
    return documents;
  } catch (const toml::parse_error& problem) {
    const toml::source_position where = problem.source().begin;
    reporter.error({.file = file, .line = where.line, .column = where.column}, "",
                   fmt::format("not valid TOML: {}", problem.description()),
                   "a key and a table may be written once only; texts need quotes");
  } catch (const Assertion&) {
    reporter.error({.file = file}, "", "not valid TOML: the parser cannot make sense of it",
                   "each line is `key = value`, a [table], or a comment");
  } catch (const TooLarge& problem) {
    reporter.error(problem.place, "", "the stack file is too large",
                   fmt::format("at most {} values and {} bytes of text are read",
                               base::limits::stack_nodes_max, base::limits::stack_text_bytes_max));
  }
  return {};
}

}  // namespace spec
