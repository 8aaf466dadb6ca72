#include "cli/output_format.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace cli {
namespace {

using nlohmann::json;

bool is_plain(const json& value) { return !value.is_structured() || value.empty(); }

// ---- YAML --------------------------------------------------------------------------------------

void append_yaml(std::string& out, const json& value, size_t indent, bool after_dash) {
  const std::string margin(indent, ' ');
  bool first = after_dash;
  const auto begin_line = [&] { out += std::exchange(first, false) ? "" : margin; };
  const auto nested = [&](const json& inner) {
    if (is_plain(inner)) {
      out += " " + base::dump_json(inner) + "\n";
      return;
    }
    out += "\n";
    append_yaml(out, inner, indent + 2, false);
  };
  if (value.is_object()) {
    for (const auto& [key, inner] : value.items()) {
      begin_line();
      out += base::dump_json(json(key)) + ":";
      nested(inner);
    }
    return;
  }
  for (const json& inner : value) {
    begin_line();
    out += "- ";
    if (is_plain(inner))
      out += base::dump_json(inner) + "\n";
    else
      append_yaml(out, inner, indent + 2, true);
  }
}

// ---- TOML --------------------------------------------------------------------------------------

std::string toml_key(const std::string& key) {
  const bool is_bare = !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-';
  });
  return is_bare ? key : base::dump_json(json(key));
}

bool is_list_of_tables(const json& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const json& one) { return one.is_object(); });
}

/// A value that stands on one line. Null has no form: the caller leaves it out.
std::string toml_value(const json& value) {
  if (!value.is_structured()) return base::dump_json(value);
  std::string out;
  for (const auto& [key, inner] : value.items()) {
    if (inner.is_null()) continue;
    if (!out.empty()) out += ", ";
    out += value.is_object() ? toml_key(key) + " = " + toml_value(inner) : toml_value(inner);
  }
  return value.is_object() ? "{ " + out + " }" : "[" + out + "]";
}

void append_toml(std::string& out, const json& table, const std::string& path) {
  for (const auto& [key, value] : table.items())
    if (!value.is_null() && !value.is_object() && !is_list_of_tables(value))
      out += fmt::format("{} = {}\n", toml_key(key), toml_value(value));
  for (const auto& [key, value] : table.items()) {
    const std::string name = path.empty() ? toml_key(key) : path + "." + toml_key(key);
    if (value.is_object()) {
      out += fmt::format("\n[{}]\n", name);
      append_toml(out, value, name);
    } else if (is_list_of_tables(value)) {
      for (const json& one : value) {
        out += fmt::format("\n[[{}]]\n", name);
        append_toml(out, one, name);
      }
    }
  }
}

}  // namespace

std::string render_document(const json& document, std::string_view format) {
  if (format == "yaml") {
    if (is_plain(document)) return base::dump_json(document) + "\n";
    std::string out;
    append_yaml(out, document, 0, false);
    return out;
  }
  if (format == "toml") {
    std::string out;
    append_toml(out, document.is_object() ? document : json({{"items", document}}), "");
    return out;
  }
  return base::dump_json(document) + "\n";
}

std::optional<std::string> document_format(const Parsed& parsed) {
  const auto format = parsed.value("format");
  return format == "table" ? std::nullopt : format;
}

}  // namespace cli
