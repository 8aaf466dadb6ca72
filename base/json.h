#pragma once
/// JSON from strangers: parsed with a bound on size and depth, without exceptions.

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"

namespace base {

/// Parses one JSON text. Deeper than `limits::json_depth_max` or invalid UTF-8 is an error.
Result<nlohmann::json> parse_json(std::string_view text);

/// One compact line, keys sorted. Bytes that are no UTF-8 are replaced, never thrown on.
std::string dump_json(const nlohmann::json& value);
/// The same, indented by two spaces.
std::string dump_json_pretty(const nlohmann::json& value);

/// Members of an object, with an error that names the key.
Result<std::string> json_string(const nlohmann::json& object, const char* key);
Result<int64_t> json_int(const nlohmann::json& object, const char* key);
/// `fallback` where the key is absent or null; a wrong type is `fallback` too.
std::string json_string_or(const nlohmann::json& object, const char* key, std::string fallback);
int64_t json_int_or(const nlohmann::json& object, const char* key, int64_t fallback);
bool json_bool_or(const nlohmann::json& object, const char* key, bool fallback);

}  // namespace base
