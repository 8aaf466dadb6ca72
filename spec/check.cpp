#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "spec/steps.h"

namespace spec {
namespace {

std::string form_names(Forms forms) {
  constexpr std::pair<Forms, std::string_view> list[] = {
      {form::boolean, "true or false"}, {form::integer, "a whole number"},
      {form::number, "a number"},       {form::text, "a text"},
      {form::list, "a list"},           {form::map, "a map"}};
  std::vector<std::string> found;
  for (const auto& [bit, name] : list)
    if ((forms & bit) != 0) found.emplace_back(name);
  // `flag` and the quantities take texts because variables become texts; nobody needs to hear it.
  if ((forms & (form::boolean | form::integer | form::number)) != 0 && found.size() > 1)
    std::erase(found, "a text");
  if ((forms & form::number) != 0) std::erase(found, "a whole number");
  return base::join(found, " or ");
}

Forms form_of(const Node& node) {
  switch (node.kind) {
    case NodeKind::Null: return form::null;
    case NodeKind::List: return form::list;
    case NodeKind::Map: return form::map;
    case NodeKind::Scalar: break;
  }
  if (node.interpolated) return form::text | form::integer | form::number | form::boolean;
  switch (node.type) {
    case ScalarType::String: return form::text;
    case ScalarType::Integer: return form::integer;
    case ScalarType::Float: return form::number;
    case ScalarType::Boolean: return form::boolean;
    case ScalarType::Date: return 0;
  }
  return 0;
}

class TreeCheck {
 public:
  TreeCheck(bool strict, Reporter& reporter) : strict_(strict), reporter_(reporter) {}

  /// False: the node is to be removed.
  bool check(Node& node, const AttributeBranch& branch) {
    if (branch.row != nullptr && !check_row(node, *branch.row)) return false;
    if (node.is_map()) check_members(node, branch);
    if (node.is_list()) check_items(node, branch);
    return true;
  }

 private:
  bool check_row(const Node& node, const Attribute& row) {
    const std::string advice(row.advice);
    switch (row.runtime) {
      case Runtime::Supported: return check_form(node, row);
      case Runtime::Note:
        if (strict_)
          reporter_.error(node.key_place, address_, "has no effect here", advice);
        else
          reporter_.note(node.key_place, address_, "has no effect here", advice);
        return false;
      case Runtime::Obsolete:
        reporter_.warning(node.key_place, address_, "obsolete, ignored", advice);
        return false;
      case Runtime::Later:
        reporter_.error(node.key_place, address_, "not supported by this version", advice);
        return false;
      case Runtime::Reject:
        reporter_.error(node.key_place, address_, "cannot mean anything for a container in a VM",
                        advice);
        return false;
    }
    return false;
  }

  bool check_form(const Node& node, const Attribute& row) {
    if ((form_of(node) & row.forms) != 0) return true;
    const bool quotes_help = (row.forms & form::text) != 0 && node.is_scalar();
    const std::string found =
        node.is_null()
            ? "nothing is written here; give a value or remove the line"
            : fmt::format("this is {}{}", describe(node), quotes_help ? "; put it in quotes" : "");
    reporter_.error(node.place, address_, fmt::format("must be {}", form_names(row.forms)), found);
    return false;
  }

  void check_members(Node& map, const AttributeBranch& branch) {
    const bool is_closed = !branch.named.empty();
    std::erase_if(map.children, [&](Node& child) {
      const AttributeBranch* inner = branch.member(child.key);
      if (inner == nullptr && is_closed && is_extension(child.key)) return true;
      if (inner == nullptr && is_closed) {
        report_unknown(child, branch);
        return true;
      }
      const size_t length = address_.size();
      address_ = join_address(address_, child.key);
      const bool keep = inner == nullptr ? check_plain(child, true) : check(child, *inner);
      address_.resize(length);
      return !keep;
    });
  }

  void check_items(Node& list, const AttributeBranch& branch) {
    size_t index = 0;
    std::erase_if(list.children, [&](Node& item) {
      const size_t length = address_.size();
      address_ = item_address(address_, index++);
      const bool keep = branch.item ? check(item, *branch.item) : check_plain(item, false);
      address_.resize(length);
      return !keep;
    });
  }

  /// Where the table names nothing inside, only plain values can stand.
  bool check_plain(const Node& node, bool may_be_null) {
    if (node.is_scalar() && node.type != ScalarType::Date) return true;
    if (node.is_null() && may_be_null) return true;
    reporter_.error(node.place, address_, "must be a plain value",
                    fmt::format("this is {}", describe(node)));
    return false;
  }

  void report_unknown(const Node& child, const AttributeBranch& branch) {
    if (reporter_.is_full()) return;
    const std::string where =
        address_.empty() ? "at the top of a stack file" : fmt::format("in {}", address_);
    reporter_.error(child.key_place, join_address(address_, child.key), "unknown attribute",
                    fmt::format("'{}' is not an attribute {}; keys of your own begin with x-",
                                child.key, where),
                    reporter_.suggest(child.key, branch.member_names()));
  }

  bool strict_;
  Reporter& reporter_;
  std::string address_;
};

}  // namespace

void check_tree(Node& root, bool strict, Reporter& reporter) {
  TreeCheck(strict, reporter).check(root, attribute_tree());
}

}  // namespace spec
