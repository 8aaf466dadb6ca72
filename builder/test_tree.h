#pragma once
/// A Tree in memory, for tests.

#include <map>
#include <string>
#include <vector>

#include "builder/tree.h"

namespace builder_test {

class MemoryTree final : public builder::Tree {
 public:
  MemoryTree() { nodes_[""].node = {.type = builder::NodeType::Directory, .mode = 0755}; }

  MemoryTree& folder(const std::string& path, uint32_t mode = 0755) {
    return put(path, {.type = builder::NodeType::Directory, .mode = mode});
  }
  MemoryTree& file(const std::string& path, const std::string& content, uint32_t mode = 0644) {
    return put(path, {.type = builder::NodeType::File, .mode = mode, .size = content.size()},
               content);
  }
  MemoryTree& link(const std::string& path, const std::string& target) {
    return put(path, {.type = builder::NodeType::Symlink, .mode = 0777, .link = target});
  }
  /// Parents that are missing are made.
  MemoryTree& put(const std::string& path, builder::Node node, const std::string& content = "") {
    for (size_t slash = path.find('/'); slash != std::string::npos;
         slash = path.find('/', slash + 1))
      nodes_.try_emplace(path.substr(0, slash),
                         Entry{{.type = builder::NodeType::Directory, .mode = 0755}, ""});
    nodes_[path] = {std::move(node), content};
    return *this;
  }
  builder::Node& at(const std::string& path) { return nodes_.at(path).node; }

  base::Result<builder::Node> node(const std::string& path) const override {
    const auto found = nodes_.find(path);
    if (found == nodes_.end())
      return base::fail(base::ErrorCode::NotFound, "'{}' does not exist", path);
    return found->second.node;
  }
  base::Result<std::vector<builder::NamedNode>> list(const std::string& path) const override {
    ++listed[path];
    std::vector<builder::NamedNode> children;
    const std::string prefix = path.empty() ? "" : path + "/";
    for (const auto& [name, entry] : nodes_) {
      if (name.empty() || !name.starts_with(prefix)) continue;
      const std::string rest = name.substr(prefix.size());
      if (!rest.empty() && rest.find('/') == std::string::npos)
        children.push_back({rest, entry.node});
    }
    return children;
  }
  base::Result<> read(const std::string& path, const Sink& sink) const override {
    ++reads[path];
    const auto found = nodes_.find(path);
    if (found == nodes_.end())
      return base::fail(base::ErrorCode::NotFound, "'{}' does not exist", path);
    return sink(found->second.content);
  }

  mutable std::map<std::string, int> listed;  ///< How often, by folder.
  mutable std::map<std::string, int> reads;   ///< How often, by file.

 private:
  struct Entry {
    builder::Node node;
    std::string content;
  };
  std::map<std::string, Entry> nodes_;
};

}  // namespace builder_test
