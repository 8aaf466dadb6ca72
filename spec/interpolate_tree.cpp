#include <algorithm>

#include <fmt/format.h>

#include "spec/steps.h"

namespace spec {
namespace {

class TreeInterpolation {
 public:
  TreeInterpolation(const VariableLookup& lookup, size_t& bytes_left, Reporter& reporter)
      : lookup_(lookup), bytes_left_(bytes_left), reporter_(reporter) {}

  void walk(Node& node) {
    if (node.is_scalar() && node.text.find('$') != std::string::npos) fill_in(node);
    for (size_t i = 0; i < node.children.size(); ++i) {
      Node& child = node.children[i];
      const size_t length = address_.size();
      address_ = node.is_list() ? item_address(address_, i) : join_address(address_, child.key);
      walk(child);
      address_.resize(length);
    }
  }

 private:
  void fill_in(Node& node) {
    auto filled = interpolate(node.text, lookup_, bytes_left_);
    if (!filled) {
      reporter_.error(node.place, address_, filled.error().to_string());
      return;
    }
    for (const std::string& name : filled->unset)
      reporter_.warning(
          node.place, address_, fmt::format("the variable {} is not set; it becomes blank", name),
          fmt::format("set it in the environment or in .env, or write ${{{}:-}}", name));
    bytes_left_ -= std::min(bytes_left_, filled->text.size());
    node.text = std::move(filled->text);
    node.interpolated = true;
  }

  const VariableLookup& lookup_;
  size_t& bytes_left_;
  Reporter& reporter_;
  std::string address_;
};

}  // namespace

void interpolate_tree(Node& root, const VariableLookup& lookup, size_t& bytes_left,
                      Reporter& reporter) {
  TreeInterpolation(lookup, bytes_left, reporter).walk(root);
}

}  // namespace spec
