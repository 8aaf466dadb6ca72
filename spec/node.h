#pragma once
/// One neutral tree for what was written, whichever language it was written in.
///
/// Decoders make it; interpolation, merging and the checks work on it; the readers turn it into
/// the model. Every node knows where it stands, so every later complaint can point there.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spec {

enum class NodeKind : uint8_t { Null, Scalar, List, Map };

/// What a scalar is by the YAML 1.2 core schema, or by TOML's grammar. `Date` exists in TOML only.
enum class ScalarType : uint8_t { String, Integer, Float, Boolean, Date };

/// `!reset` and `!override`, or the keys `"x!reset"` and `"x!override"`.
enum class MergeTag : uint8_t { None, Reset, Override };

/// Where something stands: `file` is an index into the Reporter's files. Line 0: the whole file.
struct Place {
  uint16_t file = 0;
  uint32_t line = 0;
  uint32_t column = 0;
};

struct Node {
  NodeKind kind = NodeKind::Null;
  ScalarType type = ScalarType::String;
  MergeTag tag = MergeTag::None;
  bool interpolated = false;  ///< The text came from `${…}`, so its type is what the reader wants.
  Place place;
  Place key_place;
  std::string key;             ///< In a map.
  std::string text;            ///< Of a scalar, as written: `1.10` stays `1.10`.
  std::vector<Node> children;  ///< In a map or list, in the order of the file.

  bool is_map() const { return kind == NodeKind::Map; }
  bool is_list() const { return kind == NodeKind::List; }
  bool is_scalar() const { return kind == NodeKind::Scalar; }
  bool is_null() const { return kind == NodeKind::Null; }

  /// The member of a map, or nullptr.
  const Node* find(std::string_view wanted) const;
  Node* find(std::string_view wanted);
};

/// How many nodes a tree has, itself included.
size_t count_nodes(const Node& node);

/// A text scalar standing where `like` stands.
Node make_scalar(const Node& like, std::string text);

/// What a plain YAML scalar is: `no` and `22:22` are strings, `0o17` and `017` are integers.
ScalarType plain_scalar_type(std::string_view text);
bool is_plain_null(std::string_view text);

/// "a list", "a map", "a text", "a whole number", …
std::string_view describe(const Node& node);

}  // namespace spec
