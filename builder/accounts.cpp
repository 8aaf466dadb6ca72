#include "builder/accounts.h"

#include <charconv>
#include <optional>
#include <vector>

#include "base/limits.h"
#include "base/text.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;

std::optional<uint32_t> number(std::string_view text) {
  uint32_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  constexpr uint32_t nobody_at_all = 0xffffffff;  // (uid_t)-1
  if (text.empty() || failed != std::errc() || end != text.data() + text.size() ||
      value == nobody_at_all)
    return std::nullopt;
  return value;
}

/// The fields of the line of `name` in a file like /etc/passwd; nullopt if there is none.
Result<std::optional<std::vector<std::string>>> line_of(const Tree& root, const char* file,
                                                        std::string_view name, size_t fields_min) {
  using Line = std::optional<std::vector<std::string>>;
  const Result<std::string> path = resolve_links(root, file);
  if (!path && path.error().code() == ErrorCode::NotFound) return Line();
  if (!path) return tl::unexpected(path.error());
  std::string text;
  TRY_DURING(root.read(*path,
                       [&](std::string_view bytes) -> Result<> {
                         text += bytes;
                         if (text.size() <= base::limits::account_file_bytes_max) return {};
                         return base::fail(ErrorCode::InvalidArgument, "more than {} KiB",
                                           base::limits::account_file_bytes_max >> 10);
                       }),
             "read /{}", file);
  for (const std::string& line : base::split(text, '\n')) {
    std::vector<std::string> fields = base::split(line, ':');
    if (fields.size() >= fields_min && fields[0] == name) return Line(std::move(fields));
  }
  return Line();
}

tl::unexpected<base::Error> unknown(std::string_view kind, std::string_view name,
                                    std::string_view file) {
  return base::fail(ErrorCode::NotFound,
                    "there is no {} '{}' in the image's /{}; make it before, or give its number",
                    kind, base::escape_controls(name), file);
}

constexpr const char* passwd = "etc/passwd";
constexpr const char* groups = "etc/group";

Result<Owner> user_of(std::string_view name, const Tree* root) {
  if (const std::optional<uint32_t> id = number(name)) return Owner{*id, *id};
  if (root == nullptr) return unknown("user", name, passwd);
  const auto line = TRY(line_of(*root, passwd, name, 4));
  const std::optional<uint32_t> user = line ? number((*line)[2]) : std::nullopt;
  const std::optional<uint32_t> group = line ? number((*line)[3]) : std::nullopt;
  if (!user || !group) return unknown("user", name, passwd);
  return Owner{*user, *group};
}

Result<uint32_t> group_of(std::string_view name, const Tree* root) {
  if (const std::optional<uint32_t> id = number(name)) return *id;
  if (root == nullptr) return unknown("group", name, groups);
  const auto line = TRY(line_of(*root, groups, name, 3));
  const std::optional<uint32_t> group = line ? number((*line)[2]) : std::nullopt;
  if (!group) return unknown("group", name, groups);
  return *group;
}

}  // namespace

Result<Owner> resolve_owner(std::string_view text, const Tree* root) {
  const size_t colon = text.find(':');
  const std::string_view user = text.substr(0, colon);
  Owner owner;
  if (!user.empty()) owner = TRY(user_of(user, root));
  if (colon != std::string_view::npos) {
    const std::string_view group = text.substr(colon + 1);
    if (group.empty())
      return base::fail(ErrorCode::InvalidArgument, "'{}' has no group behind its ':'",
                        base::escape_controls(text));
    owner.group = TRY(group_of(group, root));
  }
  return owner;
}

}  // namespace builder
