/// The JSON Schema in schema/ against the table the reader follows: the same attributes in the
/// same nesting, with the same forms. How both judge whole documents:
/// tests/schema_documents_test.py.

#include <set>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "spec/attributes.h"

namespace {

using nlohmann::json;
using spec::Attribute;
using spec::Forms;
namespace form = spec::form;

const json& schema() {
  static const json loaded = json::parse(
      base::read_file(CONTAINER_SOURCE_DIR "/schema/stack.schema.json", 4u << 20).value());
  return loaded;
}

/// What an `anyOf` offers, with references followed.
std::vector<const json*> alternatives(const json& node) {
  std::vector<const json*> found;
  if (node.contains("$ref")) {
    const std::string pointer = node["$ref"].get<std::string>().substr(1);
    return alternatives(schema().at(json::json_pointer(pointer)));
  }
  if (!node.contains("anyOf")) return {&node};
  for (const json& one : node["anyOf"])
    for (const json* inner : alternatives(one)) found.push_back(inner);
  return found;
}

Forms forms_of_value(const json& value) {
  if (value.is_string()) return form::text;
  return value.is_number_integer() ? form::integer : form::boolean;
}

Forms forms_of_type(const std::string& type) {
  if (type == "string") return form::text;
  if (type == "integer") return form::integer;
  if (type == "number") return form::number | form::integer;
  if (type == "boolean") return form::boolean;
  if (type == "null") return form::null;
  if (type == "array") return form::list;
  REQUIRE_MESSAGE(type == "object", type);
  return form::map;
}

/// The forms a schema allows; none for what it refuses whatever it is.
Forms forms_of(const json& node) {
  Forms forms = 0;
  for (const json* one : alternatives(node)) {
    if (one->contains("not")) continue;
    if (one->contains("const")) forms |= forms_of_value((*one)["const"]);
    if (one->contains("enum"))
      for (const json& value : (*one)["enum"]) forms |= forms_of_value(value);
    if (!one->contains("type")) continue;
    const json& type = (*one)["type"];
    for (const json& each : type.is_array() ? type : json::array({type}))
      forms |= forms_of_type(each.get<std::string>());
  }
  return forms;
}

/// The schema behind one step of a pattern: a name, `*` or `[]`; nullptr if there is none.
const json* step(const json& node, std::string_view name) {
  for (const json* one : alternatives(node)) {
    const char* key = name == "[]" ? "items" : name == "*" ? "additionalProperties" : "properties";
    if (!one->contains(key)) continue;
    const json& found = (*one)[key];
    if (!found.is_object()) continue;
    if (name == "[]" || name == "*") return &found;
    if (const auto member = found.find(std::string(name)); member != found.end()) return &*member;
  }
  return nullptr;
}

const json* find(std::string_view pattern) {
  const json* node = &schema();
  while (node != nullptr && !pattern.empty()) {
    const size_t dot = pattern.find('.');
    std::string_view name = pattern.substr(0, dot);
    pattern.remove_prefix(dot == std::string_view::npos ? pattern.size() : dot + 1);
    const bool is_item = name.ends_with("[]");
    if (is_item) name.remove_suffix(2);
    node = step(*node, name);
    if (node != nullptr && is_item) node = step(*node, "[]");
  }
  return node;
}

/// Walks the schema beside the table, and reports what only the schema knows.
void check_known(const json& node, const spec::AttributeBranch& branch, const std::string& path) {
  for (const json* one : alternatives(node)) {
    if (one->contains("properties")) {
      CHECK_MESSAGE((*one)["additionalProperties"] == false, path, " must be closed");
      CHECK_MESSAGE(one->at("patternProperties").contains("^x-"), path, " must allow x- keys");
      for (const auto& [name, inner] : (*one)["properties"].items()) {
        const auto found = branch.named.find(name);
        REQUIRE_MESSAGE(found != branch.named.end(), "only the schema knows ", path, ".", name);
        check_known(inner, found->second, path + "." + name);
      }
    } else if (one->contains("additionalProperties") && branch.any) {
      check_known((*one)["additionalProperties"], *branch.any, path + ".*");
    }
    if (one->contains("items") && branch.item)
      check_known((*one)["items"], *branch.item, path + "[]");
  }
}

constexpr Forms plain = form::text | form::integer | form::number | form::boolean;

/// Where the table names nothing inside, the reader takes plain values, in maps null, too.
void check_inside(const Attribute& row, const json& node, const spec::AttributeBranch& branch) {
  if ((row.forms & form::list) != 0 && !branch.item) {
    const json* item = step(node, "[]");
    REQUIRE_MESSAGE(item != nullptr, row.pattern, ": the schema says nothing of its items");
    CHECK_MESSAGE(forms_of(*item) == plain, row.pattern, ": its items are plain values");
  }
  if ((row.forms & form::map) != 0 && !branch.any && branch.named.empty()) {
    const json* member = step(node, "*");
    REQUIRE_MESSAGE(member != nullptr, row.pattern, ": the schema says nothing of its members");
    CHECK_MESSAGE(forms_of(*member) == (plain | form::null), row.pattern,
                  ": its members are plain values or nothing");
  }
}

const spec::AttributeBranch& branch_of(std::string_view pattern) {
  const spec::AttributeBranch* branch = &spec::attribute_tree();
  while (!pattern.empty()) {
    const size_t dot = pattern.find('.');
    std::string_view name = pattern.substr(0, dot);
    pattern.remove_prefix(dot == std::string_view::npos ? pattern.size() : dot + 1);
    const bool is_item = name.ends_with("[]");
    if (is_item) name.remove_suffix(2);
    branch = name == "*" ? branch->any.get() : branch->member(name);
    if (is_item) branch = branch->item.get();
  }
  return *branch;
}

}  // namespace

TEST_CASE("the schema has every attribute the reader knows, with the same forms") {
  for (const Attribute& row : spec::attributes()) {
    const json* node = find(row.pattern);
    REQUIRE_MESSAGE(node != nullptr, "schema/stack.schema.json lacks ", row.pattern);
    const bool refused =
        row.runtime == spec::Runtime::Later || row.runtime == spec::Runtime::Reject;
    const bool any_form = row.runtime == spec::Runtime::Note;
    if (refused)
      CHECK_MESSAGE((*node)["not"] == json::object(), row.pattern, ": the reader refuses it");
    else if (any_form)
      CHECK_MESSAGE(!node->contains("type"), row.pattern, ": whatever it is has no effect");
    else
      CHECK_MESSAGE(forms_of(*node) == row.forms, row.pattern, ": other forms than the reader's");
    if (refused || any_form)
      CHECK_MESSAGE(
          node->at("description").get<std::string>().find(row.advice) != std::string::npos,
          row.pattern, ": the description must give the reader's advice: ", row.advice);
    else
      check_inside(row, *node, branch_of(row.pattern));
  }
}

TEST_CASE("the schema has no attribute the reader does not know") {
  check_known(schema(), spec::attribute_tree(), "");
}

TEST_CASE("every attribute is described, ours beyond Compose as such") {
  for (const Attribute& row : spec::attributes()) {
    const bool is_item = row.pattern.ends_with("[]");
    const json* node = find(row.pattern);
    REQUIRE(node != nullptr);
    const bool described = node->contains("description") || is_item || row.pattern.ends_with(".*");
    CHECK_MESSAGE(described, row.pattern, " has no description");
    if (row.pattern.find(".x-") != std::string_view::npos)
      CHECK_MESSAGE((*node)["description"].get<std::string>().starts_with("Ours beyond Compose."),
                    row.pattern);
  }
}
