#pragma once
/// The attributes of the stack file: one table of what may be written where.
///
/// One row per attribute: the path, the forms its value may have, how an override file merges with
/// it, what becomes of it in a VM, and the reader that puts it into the model. Checking, merging,
/// reading and the JSON Schema's test all follow this table, so a new attribute is one new row
/// (and its reader).

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spec/node.h"

namespace spec {

struct Reading;

/// The forms of a value, as bits.
using Forms = uint16_t;
namespace form {
inline constexpr Forms text = 1;
inline constexpr Forms integer = 2;
inline constexpr Forms number = 4;
inline constexpr Forms boolean = 8;
inline constexpr Forms null = 16;
inline constexpr Forms list = 32;
inline constexpr Forms map = 64;
}  // namespace form

/// How the value of a later file meets that of an earlier one.
enum class Merge : uint8_t {
  ByKind,     ///< Maps merge, lists are joined, scalars are replaced.
  Replace,    ///< The later one; null clears.
  KeyValues,  ///< Map or list of `k=v`: both become a map.
  Names,      ///< Map or list of names: both become a map.
  ListOf,     ///< One or a list: joined, repeated texts once.
  Ports,      ///< Joined; one of the same address, ports and protocol replaces.
  Mounts,     ///< Joined; one of the same target replaces.
  Context,    ///< A text stands for a map with it as `context`.
  Subnets,    ///< Joined; one of the same `subnet` replaces.
};

/// What an attribute means for a container in a VM.
enum class Runtime : uint8_t {
  Supported,
  Obsolete,  ///< Accepted with a warning.
  Note,      ///< Accepted; has no effect here, which is said once. An error with `strict`.
  Later,     ///< Part of the language, not supported by this version.
  Reject,    ///< Cannot mean anything in a VM; `advice` says what to do instead.
};

using Reader = void (*)(Reading& reading, const Node& node);

struct Attribute {
  std::string_view pattern;  ///< `services.*.ports[].target`; `*` any key, `[]` any item.
  Forms forms = 0;
  Merge merge = Merge::ByKind;
  Runtime runtime = Runtime::Supported;
  Reader reader = nullptr;  ///< Null: read by the reader of an outer attribute.
  std::string_view advice;  ///< For Note, Later and Reject: why, and what to do instead.
};

std::span<const Attribute> attributes();

/// The table as a tree, to be walked along with a Node.
struct AttributeBranch {
  const Attribute* row = nullptr;
  std::map<std::string, AttributeBranch, std::less<>> named;
  std::unique_ptr<AttributeBranch> any;   ///< `*`
  std::unique_ptr<AttributeBranch> item;  ///< `[]`

  /// The branch for the member `key` of a map, or nullptr.
  const AttributeBranch* member(std::string_view key) const;
  std::vector<std::string> member_names() const;
};

/// Made from the table on first use.
const AttributeBranch& attribute_tree();

/// `x-…`: the user's own; kept out of everything.
bool is_extension(std::string_view key);

}  // namespace spec
