#include "spec/node.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace spec {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

size_t digits_at(std::string_view text, size_t at) {
  size_t count = 0;
  while (at + count < text.size() && is_digit(text[at + count])) ++count;
  return count;
}

bool all_of(std::string_view text, bool (*accepts)(char)) {
  return !text.empty() && std::all_of(text.begin(), text.end(), accepts);
}

bool is_integer(std::string_view text) {
  if (text.starts_with("0x"))
    return all_of(text.substr(2),
                  [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; });
  if (text.starts_with("0o"))
    return all_of(text.substr(2), [](char c) { return c >= '0' && c < '8'; });
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  return all_of(text, is_digit);
}

bool is_float(std::string_view text) {
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  if (text == ".inf" || text == ".Inf" || text == ".INF") return true;
  if (text == ".nan" || text == ".NaN" || text == ".NAN") return true;
  size_t at = digits_at(text, 0);
  const size_t whole = at;
  size_t fraction = 0;
  if (at < text.size() && text[at] == '.') {
    fraction = digits_at(text, at + 1);
    at += 1 + fraction;
  }
  if (whole + fraction == 0) return false;
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    ++at;
    if (at < text.size() && (text[at] == '-' || text[at] == '+')) ++at;
    const size_t exponent = digits_at(text, at);
    if (exponent == 0) return false;
    at += exponent;
  }
  return at == text.size();
}

bool is_boolean(std::string_view text) {
  return text == "true" || text == "True" || text == "TRUE" || text == "false" || text == "False" ||
         text == "FALSE";
}

}  // namespace

const Node* Node::find(std::string_view wanted) const {
  for (const Node& child : children)
    if (child.key == wanted) return &child;
  return nullptr;
}

Node* Node::find(std::string_view wanted) {
  return const_cast<Node*>(std::as_const(*this).find(wanted));
}

size_t count_nodes(const Node& node) {
  size_t count = 1;
  for (const Node& child : node.children) count += count_nodes(child);
  return count;
}

Node make_scalar(const Node& like, std::string text) {
  Node node;
  node.kind = NodeKind::Scalar;
  node.place = like.place;
  node.key_place = like.key_place;
  node.text = std::move(text);
  return node;
}

ScalarType plain_scalar_type(std::string_view text) {
  if (is_boolean(text)) return ScalarType::Boolean;
  if (is_integer(text)) return ScalarType::Integer;
  if (is_float(text)) return ScalarType::Float;
  return ScalarType::String;
}

bool is_plain_null(std::string_view text) {
  return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
}

std::string_view describe(const Node& node) {
  switch (node.kind) {
    case NodeKind::Null: return "nothing";
    case NodeKind::List: return "a list";
    case NodeKind::Map: return "a map";
    case NodeKind::Scalar: break;
  }
  switch (node.type) {
    case ScalarType::String: return "a text";
    case ScalarType::Integer: return "a whole number";
    case ScalarType::Float: return "a number";
    case ScalarType::Boolean: return "true or false";
    case ScalarType::Date: return "a date";
  }
  return "something else";
}

}  // namespace spec
