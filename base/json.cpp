#include "base/json.h"

#include <nlohmann/json.hpp>

#include "base/limits.h"

namespace base {

using nlohmann::json;

Result<json> parse_json(std::string_view text) {
  // nlohmann's callback sees every value with its depth, before its own recursion could end us.
  bool too_deep = false;
  const auto guard = [&](int depth, json::parse_event_t, json&) {
    too_deep = too_deep || depth > limits::json_depth_max;
    return !too_deep;
  };
  json parsed = json::parse(text, guard, /*allow_exceptions=*/false);
  if (too_deep)
    return fail(ErrorCode::InvalidArgument, "JSON is nested deeper than {} levels",
                limits::json_depth_max);
  if (parsed.is_discarded()) return fail(ErrorCode::InvalidArgument, "not valid JSON");
  return parsed;
}

std::string dump_json(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string dump_json_pretty(const json& value) {
  return value.dump(2, ' ', false, json::error_handler_t::replace);
}

Result<std::string> json_string(const json& object, const char* key) {
  if (!object.is_object() || !object.contains(key) || !object[key].is_string())
    return fail(ErrorCode::InvalidArgument, "'{}' must be a text", key);
  return object[key].get<std::string>();
}

Result<int64_t> json_int(const json& object, const char* key) {
  if (!object.is_object() || !object.contains(key) || !object[key].is_number_integer())
    return fail(ErrorCode::InvalidArgument, "'{}' must be a whole number", key);
  return object[key].get<int64_t>();
}

std::string json_string_or(const json& object, const char* key, std::string fallback) {
  Result<std::string> value = json_string(object, key);
  return value ? std::move(*value) : std::move(fallback);
}

int64_t json_int_or(const json& object, const char* key, int64_t fallback) {
  return json_int(object, key).value_or(fallback);
}

bool json_bool_or(const json& object, const char* key, bool fallback) {
  if (!object.is_object() || !object.contains(key) || !object[key].is_boolean()) return fallback;
  return object[key].get<bool>();
}

}  // namespace base
