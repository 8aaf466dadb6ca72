#include "base/names.h"

#include <algorithm>
#include <cctype>

#include "base/limits.h"
#include "base/text.h"

namespace base {
namespace {

bool is_alphanumeric(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }

bool follows_name_rule(std::string_view name, size_t length_max) {
  return !name.empty() && name.size() <= length_max && is_alphanumeric(name.front()) &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return is_alphanumeric(c) || c == '_' || c == '.' || c == '-'; });
}

bool is_hostname_label(std::string_view label) {
  return !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-' &&
         std::all_of(label.begin(), label.end(),
                     [](char c) { return is_alphanumeric(c) || c == '-' || c == '_'; });
}

bool is_project_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

}  // namespace

Result<> check_name(std::string_view what, std::string_view name) {
  if (follows_name_rule(name, limits::container_name_max)) return {};
  return fail(ErrorCode::InvalidArgument,
              "'{}' is not a {} name: use letters, digits, '_', '.' and '-', starting with a "
              "letter or digit, at most {}",
              escape_controls(name.substr(0, 80)), what, limits::container_name_max);
}

Result<> check_volume_name(std::string_view name) {
  if (follows_name_rule(name, 255)) return {};
  return fail(ErrorCode::InvalidArgument,
              "'{}' is not a volume name: use letters, digits, '_', '.' and '-', starting with a "
              "letter or digit, at most 255",
              escape_controls(name.substr(0, 80)));
}

Result<> check_project_name(std::string_view name) {
  const bool ok = !name.empty() && name.size() <= limits::container_name_max &&
                  std::isalnum(static_cast<unsigned char>(name.front())) != 0 &&
                  std::all_of(name.begin(), name.end(), is_project_letter);
  if (ok) return {};
  return fail(ErrorCode::InvalidArgument,
              "invalid project name '{}': must consist only of lowercase alphanumeric characters, "
              "hyphens, and underscores, and start with a letter or number",
              escape_controls(name.substr(0, 80)));
}

std::string normalized_project_name(std::string_view folder) {
  std::string name;
  for (const char c : folder) {
    const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const bool leading = name.empty() && (lower == '_' || lower == '-');
    if (is_project_letter(lower) && !leading) name += lower;
  }
  return name;
}

Result<> check_hostname(std::string_view name) {
  const std::vector<std::string> labels = split(name, '.');
  if (name.size() <= 253 && std::all_of(labels.begin(), labels.end(), is_hostname_label)) return {};
  return fail(ErrorCode::InvalidArgument, "'{}' is not a host name",
              escape_controls(name.substr(0, 80)));
}

}  // namespace base
