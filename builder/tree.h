#pragma once
/// A tree of files to copy from: a build context (a folder, or a tar), or the root of an image or
/// stage. Read-only, and closed: no name and no symbolic link leads out of it.
///
/// Paths are relative to the tree's root, `/`-separated, without `.`, `..` or leading slash; "" is
/// the root itself. What lies in it was written by strangers.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace builder {

enum class NodeType { File, Directory, Symlink, CharacterDevice, BlockDevice, Fifo, Socket };

/// Of a mode as stat(2) gives it.
NodeType type_of(uint32_t mode);

struct Node {
  NodeType type = NodeType::File;
  uint32_t mode = 0;  ///< Permission bits with setuid, setgid, sticky.
  uint32_t user = 0;
  uint32_t group = 0;
  uint64_t size = 0;
  int64_t modified_s = 0;
  uint32_t modified_ns = 0;
  std::string link;  ///< Target of a symbolic link.
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;
  /// The same number: the same file under several names. 0: has one name only.
  uint64_t hard_link_id = 0;
};

struct NamedNode {
  std::string name;
  Node node;
};

class Tree {
 public:
  virtual ~Tree() = default;
  /// The node at `path`, not followed if it is a symbolic link; NotFound.
  virtual base::Result<Node> node(const std::string& path) const = 0;
  /// Children of a directory, sorted by name.
  virtual base::Result<std::vector<NamedNode>> list(const std::string& path) const = 0;
  /// The bytes of a file, in order. InvalidState if it changed while it was read.
  using Sink = std::function<base::Result<>(std::string_view bytes)>;
  virtual base::Result<> read(const std::string& path, const Sink& sink) const = 0;
  /// `sha256:…` of a file's bytes. Reads them, unless a tree remembers better.
  virtual base::Result<std::string> content_digest(const std::string& path) const;
};

/// `path` with every symbolic link followed inside the tree (an absolute one from the tree's root;
/// `..` stops there). NotFound if it leads nowhere; InvalidArgument on a loop. With
/// `missing_is_fine` what does not exist is taken as it stands: for the target of a COPY.
base::Result<std::string> resolve_links(const Tree& tree, std::string_view path,
                                        bool missing_is_fine = false);

}  // namespace builder
