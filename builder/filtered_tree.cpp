#include "builder/filtered_tree.h"

#include <map>
#include <mutex>

#include "base/text.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

class FilteredTree final : public Tree {
 public:
  FilteredTree(const Tree& tree, const Ignore& ignore) : tree_(tree), ignore_(ignore) {}

  Result<Node> node(const std::string& path) const override {
    if (path.empty()) return tree_.node(path);
    const Ignore::State state = state_of(path);
    if (!state.excluded) return tree_.node(path);
    if (!ignore_.may_include_below(path)) return ignored(path);
    Node node = TRY(tree_.node(path));
    if (node.type != NodeType::Directory || !TRY(shows_something(path, state)))
      return ignored(path);
    return node;
  }

  Result<std::vector<NamedNode>> list(const std::string& path) const override {
    const Ignore::State state = state_of(path);
    if (state.excluded && !ignore_.may_include_below(path)) return ignored(path);
    std::vector<NamedNode> children;
    for (NamedNode& child : TRY(tree_.list(path)))
      if (TRY(is_there(path, state, child))) children.push_back(std::move(child));
    return children;
  }

  Result<> read(const std::string& path, const Sink& sink) const override {
    if (state_of(path).excluded) return ignored(path);
    return tree_.read(path, sink);
  }

  Result<std::string> content_digest(const std::string& path) const override {
    if (state_of(path).excluded) return ignored(path);
    return tree_.content_digest(path);
  }

 private:
  static tl::unexpected<base::Error> ignored(const std::string& path) {
    return base::fail(ErrorCode::NotFound, "'{}' is left out by the ignore file",
                      base::escape_controls(path));
  }

  Ignore::State state_of(const std::string& path) const {
    if (path.empty()) return ignore_.root();
    return ignore_.state(folder_state(parent_of(path)), path);
  }

  /// Folders are asked for again and again.
  Ignore::State folder_state(const std::string& folder) const {
    if (folder.empty()) return ignore_.root();
    {
      const std::lock_guard lock(mutex_);
      const auto found = states_.find(folder);
      if (found != states_.end()) return found->second;
    }
    Ignore::State state = ignore_.state(folder_state(parent_of(folder)), folder);
    const std::lock_guard lock(mutex_);
    return states_.emplace(folder, std::move(state)).first->second;
  }

  Result<bool> is_there(const std::string& folder, const Ignore::State& state,
                        const NamedNode& child) const {
    const std::string path = folder.empty() ? child.name : folder + "/" + child.name;
    const Ignore::State own = ignore_.state(state, path);
    if (!own.excluded) return true;
    if (child.node.type != NodeType::Directory || !ignore_.may_include_below(path)) return false;
    return shows_something(path, own);
  }

  /// Of an excluded folder: whether an exception lets in anything below it.
  Result<bool> shows_something(const std::string& folder, const Ignore::State& state) const {
    {
      const std::lock_guard lock(mutex_);
      const auto found = shows_.find(folder);
      if (found != shows_.end()) return found->second;
    }
    bool shows = false;
    for (const NamedNode& child : TRY(tree_.list(folder))) {
      shows = TRY(is_there(folder, state, child));
      if (shows) break;
    }
    const std::lock_guard lock(mutex_);
    shows_[folder] = shows;
    return shows;
  }

  const Tree& tree_;
  const Ignore& ignore_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, Ignore::State, std::less<>> states_;
  mutable std::map<std::string, bool, std::less<>> shows_;
};

}  // namespace

std::unique_ptr<Tree> filter_tree(const Tree& tree, const Ignore& ignore) {
  return std::make_unique<FilteredTree>(tree, ignore);
}

}  // namespace builder
