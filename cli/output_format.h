#pragma once
/// What `--format` can ask for besides a table.

#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "cli/arguments.h"

namespace cli {

/// Values of the flag, as the table of commands writes them.
inline constexpr std::string_view format_values = "json|table|yaml|toml";

/// JSON: one line, keys sorted. YAML: block style, texts quoted as in JSON. TOML: a list is called
/// `items`, and what is null is left out, since TOML has neither at its top.
std::string render_document(const nlohmann::json& document, std::string_view format);

/// The format that was asked for, unless that is a table.
std::optional<std::string> document_format(const Parsed& parsed);

}  // namespace cli
