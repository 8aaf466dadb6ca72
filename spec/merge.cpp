/// One mechanism for all files: the table says how two values of an attribute meet, this file
/// knows how to do it. The position of an item is that of its first appearance.

#include <algorithm>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "spec/steps.h"

namespace spec {
namespace {

const std::string& member_text(const Node& map, std::string_view key, const std::string& fallback) {
  const Node* member = map.find(key);
  return member != nullptr && member->is_scalar() ? member->text : fallback;
}

/// `address:published:target/protocol`; a short form is compared as it was written.
std::string port_key(const Node& item) {
  if (!item.is_map()) return item.text;
  static const std::string none;
  static const std::string tcp = "tcp";
  return fmt::format("{}:{}:{}/{}", member_text(item, "host_ip", none),
                     member_text(item, "published", none), member_text(item, "target", none),
                     member_text(item, "protocol", tcp));
}

/// Two mounts at one place cannot be: the later file means to replace.
std::string mount_key(const Node& item) {
  static const std::string none;
  if (item.is_map()) return member_text(item, "target", none);
  const size_t first = item.text.find(':');
  if (first == std::string::npos) return item.text;
  const size_t second = item.text.find(':', first + 1);
  return item.text.substr(first + 1, second == std::string::npos ? second : second - first - 1);
}

std::string subnet_key(const Node& item) {
  static const std::string none;
  return member_text(item, "subnet", none);
}

std::string list_key(const Node& item) {
  static const std::string none;
  return item.is_map() ? member_text(item, "path", none) : item.text;
}

using KeyOf = std::string (*)(const Node&);

KeyOf key_function(Merge merge) {
  switch (merge) {
    case Merge::Ports: return port_key;
    case Merge::Mounts: return mount_key;
    case Merge::Subnets: return subnet_key;
    case Merge::ListOf: return list_key;
    case Merge::ByKind:
    case Merge::Replace:
    case Merge::KeyValues:
    case Merge::Context:
    case Merge::Names: break;
  }
  return nullptr;
}

Node as_list(Node&& node) {
  if (node.is_list() || node.is_null()) return std::move(node);
  Node list;
  list.kind = NodeKind::List;
  list.place = node.place;
  list.key_place = node.key_place;
  list.key = std::exchange(node.key, {});
  list.children.push_back(std::move(node));
  return list;
}

/// `build: .` as `build: {context: .}`.
Node with_context(Node&& node) {
  if (!node.is_scalar()) return std::move(node);
  Node map;
  map.kind = NodeKind::Map;
  map.tag = node.tag;
  map.place = node.place;
  map.key_place = node.key_place;
  map.key = std::exchange(node.key, "context");
  node.tag = MergeTag::None;
  map.children.push_back(std::move(node));
  return map;
}

class TreeMerge {
 public:
  explicit TreeMerge(Reporter& reporter) : reporter_(reporter) {}

  void merge_maps(Node& base, Node&& over, const AttributeBranch* branch) {
    std::unordered_map<std::string, size_t> where;
    for (size_t i = 0; i < base.children.size(); ++i) where.emplace(base.children[i].key, i);
    std::vector<bool> removed(base.children.size(), false);
    for (Node& child : over.children) {
      const auto found = where.find(child.key);
      if (child.tag == MergeTag::Reset) {
        if (found != where.end() && found->second < removed.size()) removed[found->second] = true;
        continue;
      }
      const AttributeBranch* inner = branch == nullptr ? nullptr : branch->member(child.key);
      const size_t length = enter(child.key);
      if (found == where.end()) {
        take_tags_out(child);
        base.children.push_back(std::move(child));
      } else {
        merge_member(base.children[found->second], std::move(child), inner);
      }
      address_.resize(length);
    }
    size_t index = 0;
    std::erase_if(base.children, [&](const Node&) {
      const size_t at = index++;
      return at < removed.size() && removed[at];
    });
  }

 private:
  size_t enter(const std::string& key) {
    const size_t length = address_.size();
    address_ = join_address(address_, key);
    return length;
  }

  /// Of a subtree that meets nothing: what it wants reset is not there, what it overrides neither.
  void take_tags_out(Node& node) {
    node.tag = MergeTag::None;
    for (const Node& child : node.children)
      if (node.is_list() && child.tag == MergeTag::Reset)
        reporter_.error(child.place, address_, "!reset cannot stand inside a list",
                        "give the whole list with !override");
    std::erase_if(node.children, [](const Node& child) { return child.tag == MergeTag::Reset; });
    for (Node& child : node.children) take_tags_out(child);
  }

  void merge_member(Node& base, Node&& over, const AttributeBranch* branch) {
    const Merge merge =
        branch != nullptr && branch->row != nullptr ? branch->row->merge : Merge::ByKind;
    if (merge == Merge::Context) {
      base = with_context(std::move(base));
      over = with_context(std::move(over));
    }
    if (over.is_null() && merge != Merge::Replace && over.tag == MergeTag::None) return;
    if (merge == Merge::Replace || over.tag == MergeTag::Override || base.is_null() ||
        (base.is_scalar() && over.is_scalar() && key_function(merge) == nullptr)) {
      take_tags_out(over);
      base = std::move(over);
      return;
    }
    if (merge == Merge::KeyValues || merge == Merge::Names) {
      base = as_map(std::move(base));
      over = as_map(std::move(over));
    } else if (merge == Merge::ListOf) {
      base = as_list(std::move(base));
      over = as_list(std::move(over));
    }
    if (base.kind != over.kind) {
      reporter_.error(over.place, address_, fmt::format("cannot override {}", address_),
                      fmt::format("it is {} in {} line {}, and {} here; give it the same form, or "
                                  "replace it with !override",
                                  describe(base), reporter_.file(base.place.file), base.place.line,
                                  describe(over)));
      return;
    }
    if (base.is_map()) return merge_maps(base, std::move(over), branch);
    take_tags_out(over);
    join_lists(base, std::move(over), key_function(merge));
  }

  static void join_lists(Node& base, Node&& over, KeyOf key_of) {
    std::unordered_map<std::string, size_t> where;
    if (key_of != nullptr)
      for (size_t i = 0; i < base.children.size(); ++i) where.emplace(key_of(base.children[i]), i);
    for (Node& item : over.children) {
      if (key_of != nullptr) {
        const auto [found, is_new] = where.try_emplace(key_of(item), base.children.size());
        if (!is_new) {
          base.children[found->second] = std::move(item);
          continue;
        }
      }
      base.children.push_back(std::move(item));
    }
  }

  Reporter& reporter_;
  std::string address_;
};

}  // namespace

Node as_map(Node&& node) {
  if (!node.is_list()) return std::move(node);
  Node map;
  map.kind = NodeKind::Map;
  map.tag = node.tag;
  map.place = node.place;
  map.key_place = node.key_place;
  map.key = std::move(node.key);
  std::unordered_map<std::string, size_t> where;
  for (Node& item : node.children) {
    const size_t equals = item.text.find('=');
    Node member;
    member.place = member.key_place = item.place;
    member.key = item.text.substr(0, equals);
    if (equals != std::string::npos) {
      member.kind = NodeKind::Scalar;
      member.text = item.text.substr(equals + 1);
    }
    const auto [found, is_new] = where.try_emplace(member.key, map.children.size());
    if (is_new)
      map.children.push_back(std::move(member));
    else
      map.children[found->second] = std::move(member);
  }
  return map;
}

void merge_tree(Node& base, Node&& over, Reporter& reporter) {
  base.kind = NodeKind::Map;
  TreeMerge(reporter).merge_maps(base, std::move(over), &attribute_tree());
}

}  // namespace spec
