#include <algorithm>

#include <fmt/format.h>

#include "spec/steps.h"

namespace spec {
namespace {

class TreeInterpolation {
 public:
  TreeInterpolation(const VariableLookup& lookup, size_t& bytes_left, Reporter& reporter)
      : lookup_(lookup), bytes_left_(bytes_left), reporter_(reporter) {}

  /// False: it has been told what is wrong with the text, and no more shall be told about it.
  bool walk(Node& node) {
    if (node.is_scalar() && node.text.find('$') != std::string::npos) return fill_in(node);
    size_t index = 0;
    std::erase_if(node.children, [&](Node& child) {
      const size_t length = address_.size();
      address_ =
          node.is_list() ? item_address(address_, index++) : join_address(address_, child.key);
      const bool is_good = walk(child);
      address_.resize(length);
      return !is_good;
    });
    return true;
  }

 private:
  bool fill_in(Node& node) {
    auto filled = interpolate(node.text, lookup_, bytes_left_);
    if (!filled) {
      reporter_.error(node.place, address_, filled.error().to_string());
      return false;
    }
    for (const std::string& name : filled->unset)
      reporter_.warning(
          node.place, address_, fmt::format("the variable {} is not set; it becomes blank", name),
          fmt::format("set it in the environment or in .env, or write ${{{}:-}}", name));
    bytes_left_ -= std::min(bytes_left_, filled->text.size());
    node.text = std::move(filled->text);
    node.interpolated = true;
    return true;
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
