#include "spec/json.h"

#include <concepts>
#include <limits>
#include <map>
#include <optional>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/text.h"
#include "spec/fields.h"

namespace spec {
namespace {

using nlohmann::json;

// ---- writing -----------------------------------------------------------------------------------

json write(const std::string& value) { return value; }
json write(bool value) { return value; }
json write(double value) { return value; }

template <std::integral Number>
json write(Number value) {
  return value;
}

template <class Enum>
requires std::is_enum_v<Enum> json write(Enum value) { return std::string(enum_name(value)); }

template <HasFields Struct>
json write(const Struct& value);

template <class Item>
json write(const std::vector<Item>& items) {
  json list = json::array();
  for (const Item& item : items) list.push_back(write(item));
  return list;
}

/// In a map an absent value is written as null: `KEY` without a value says "remove it".
template <class Value>
json write(const std::optional<Value>& value) {
  return value ? write(*value) : json(nullptr);
}

template <class Value>
json write(const std::map<std::string, Value>& entries) {
  json object = json::object();
  for (const auto& [key, value] : entries) object[key] = write(value);
  return object;
}

template <class Value>
bool is_absent(const Value&) {
  return false;
}
template <class Value>
bool is_absent(const std::optional<Value>& value) {
  return !value.has_value();
}
template <class Item>
bool is_absent(const std::vector<Item>& items) {
  return items.empty();
}
template <class Value>
bool is_absent(const std::map<std::string, Value>& entries) {
  return entries.empty();
}

/// What is absent or an empty collection is left out; scalars are always written, so that a stored
/// service keeps its meaning if a default changes one day.
template <HasFields Struct>
json write(const Struct& value) {
  json object = json::object();
  for_each_field<Struct>([&](const auto& field) {
    const auto& member = value.*(field.member);
    if (!is_absent(member)) object[field.name] = write(member);
  });
  return object;
}

// ---- reading -----------------------------------------------------------------------------------

tl::unexpected<base::Error> wrong_type(const std::string& path, std::string_view expected) {
  return base::fail(base::ErrorCode::InvalidArgument, "'{}' must be {}",
                    base::escape_controls(path), expected);
}

base::Result<> read(const json& from, const std::string& path, std::string& to) {
  if (!from.is_string()) return wrong_type(path, "a text");
  to = from.get_ref<const std::string&>();
  return {};
}

base::Result<> read(const json& from, const std::string& path, bool& to) {
  if (!from.is_boolean()) return wrong_type(path, "true or false");
  to = from.get<bool>();
  return {};
}

base::Result<> read(const json& from, const std::string& path, double& to) {
  if (!from.is_number()) return wrong_type(path, "a number");
  to = from.get<double>();
  return {};
}

template <std::integral Number>
base::Result<> read(const json& from, const std::string& path, Number& to) {
  const auto out_of_range = [&] {
    return wrong_type(
        path, fmt::format("a whole number from {} to {}", std::numeric_limits<Number>::min(),
                          std::numeric_limits<Number>::max()));
  };
  if (from.is_number_unsigned()) {
    const auto value = from.get<uint64_t>();
    if (!std::in_range<Number>(value)) return out_of_range();
    to = static_cast<Number>(value);
    return {};
  }
  if (!from.is_number_integer()) return out_of_range();
  const auto value = from.get<int64_t>();
  if (!std::in_range<Number>(value)) return out_of_range();
  to = static_cast<Number>(value);
  return {};
}

template <class Enum>
requires std::is_enum_v<Enum> base::Result<> read(const json& from, const std::string& path,
                                                  Enum& to) {
  std::vector<std::string> names;
  for (const auto& [value, name] : EnumNames<Enum>::list) {
    names.emplace_back(name);
    if (!from.is_string() || from.get_ref<const std::string&>() != name) continue;
    to = value;
    return {};
  }
  return wrong_type(path, "one of " + base::join(names, ", "));
}

template <HasFields Struct>
base::Result<> read(const json& from, const std::string& path, Struct& to);
template <class Item>
base::Result<> read(const json& from, const std::string& path, std::vector<Item>& to);
template <class Value>
base::Result<> read(const json& from, const std::string& path, std::map<std::string, Value>& to);

template <class Value>
base::Result<> read(const json& from, const std::string& path, std::optional<Value>& to) {
  to.reset();
  if (from.is_null()) return {};
  return read(from, path, to.emplace());
}

template <class Item>
base::Result<> read(const json& from, const std::string& path, std::vector<Item>& to) {
  if (!from.is_array()) return wrong_type(path, "a list");
  to.clear();
  for (const json& item : from) {
    const std::string item_path = fmt::format("{}[{}]", path, to.size());
    TRY(read(item, item_path, to.emplace_back()));
  }
  return {};
}

std::string child(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

template <class Value>
base::Result<> read(const json& from, const std::string& path, std::map<std::string, Value>& to) {
  if (!from.is_object()) return wrong_type(path, "an object");
  to.clear();
  for (const auto& [key, value] : from.items()) TRY(read(value, child(path, key), to[key]));
  return {};
}

template <HasFields Struct>
base::Result<> read(const json& from, const std::string& path, Struct& to) {
  if (!from.is_object()) return wrong_type(path.empty() ? "the value" : path, "an object");
  base::Result<> outcome;
  for_each_field<Struct>([&](const auto& field) {
    const auto found = from.find(field.name);
    if (!outcome || found == from.end()) return;
    outcome = read(*found, child(path, field.name), to.*(field.member));
  });
  return outcome;
}

template <class Struct>
base::Result<Struct> read_whole(const json& from) {
  Struct value;
  TRY(read(from, "", value));
  return value;
}

// ---- comparing ---------------------------------------------------------------------------------

using Leaves = std::map<std::string, std::string>;

/// A list of plain values is one leaf (a command reads best whole); a list of objects is taken
/// apart by index, an object by key.
void collect_leaves(const json& value, const std::string& path, Leaves& leaves) {
  const bool has_objects = value.is_array() && !value.empty() && value.front().is_object();
  if (value.is_object() && !value.empty()) {
    for (const auto& [key, member] : value.items())
      collect_leaves(member, child(path, key), leaves);
  } else if (has_objects) {
    for (size_t i = 0; i < value.size(); ++i)
      collect_leaves(value[i], fmt::format("{}[{}]", path, i), leaves);
  } else {
    leaves[path] = base::dump_json(value);
  }
}

template <class Struct>
std::vector<FieldChange> compare(const Struct& before, const Struct& after) {
  const json before_json = write(before);
  const json after_json = write(after);
  if (before_json == after_json) return {};
  Leaves old_leaves;
  Leaves new_leaves;
  collect_leaves(before_json, "", old_leaves);
  collect_leaves(after_json, "", new_leaves);
  // A leaf of one side only differs even if its text is "null": the other side has no such key.
  std::map<std::string, FieldChange> found;
  for (const auto& [path, text] : old_leaves) {
    const auto other = new_leaves.find(path);
    if (other != new_leaves.end() && other->second == text) continue;
    found[path] = {path, text, other == new_leaves.end() ? "null" : other->second};
  }
  for (const auto& [path, text] : new_leaves)
    if (!old_leaves.contains(path)) found[path] = {path, "null", text};
  std::vector<FieldChange> changes;
  for (auto& [path, change] : found) changes.push_back(std::move(change));
  return changes;
}

}  // namespace

json to_json(const Stack& stack) { return write(stack); }
json to_json(const Service& service) { return write(service); }
json to_json(const Network& network) { return write(network); }
json to_json(const Volume& volume) { return write(volume); }

base::Result<Stack> stack_from_json(const json& from) { return read_whole<Stack>(from); }
base::Result<Service> service_from_json(const json& from) { return read_whole<Service>(from); }
base::Result<Network> network_from_json(const json& from) { return read_whole<Network>(from); }
base::Result<Volume> volume_from_json(const json& from) { return read_whole<Volume>(from); }

std::vector<FieldChange> changes(const Service& before, const Service& after) {
  return compare(before, after);
}
std::vector<FieldChange> changes(const Network& before, const Network& after) {
  return compare(before, after);
}
std::vector<FieldChange> changes(const Volume& before, const Volume& after) {
  return compare(before, after);
}

}  // namespace spec
