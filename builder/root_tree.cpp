#include "builder/root_tree.h"

#include <sys/stat.h>

#include "image/root_view.h"

namespace builder {
namespace {

using base::Result;

Node node_of(image::RootNode&& from) {
  return {.type = type_of(from.mode),
          .mode = from.mode & 07777,
          .user = from.user,
          .group = from.group,
          .size = S_ISREG(from.mode) ? from.size : 0,
          .modified_s = from.modified_s,
          .modified_ns = from.modified_ns,
          .link = std::move(from.link),
          .device_major = from.device_major,
          .device_minor = from.device_minor,
          .xattrs = std::move(from.xattrs),
          .hard_link_id = from.hard_link_id};
}

class RootTree final : public Tree {
 public:
  explicit RootTree(std::unique_ptr<image::RootView> view) : view_(std::move(view)) {}

  Result<Node> node(const std::string& path) const override {
    return node_of(TRY(view_->node(path)));
  }
  Result<std::vector<NamedNode>> list(const std::string& path) const override {
    std::vector<NamedNode> children;
    for (auto& [name, node] : TRY(view_->list(path)))
      children.push_back({name, node_of(std::move(node))});
    return children;
  }
  Result<> read(const std::string& path, const Sink& sink) const override {
    return view_->read(path, sink);
  }

 private:
  std::unique_ptr<image::RootView> view_;
};

}  // namespace

Result<std::unique_ptr<Tree>> open_root_tree(const std::vector<std::string>& layer_disks) {
  return std::make_unique<RootTree>(TRY(image::RootView::open(layer_disks)));
}

}  // namespace builder
