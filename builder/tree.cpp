#include "builder/tree.h"

#include <deque>

#include <sys/stat.h>

#include "base/limits.h"
#include "base/sha256.h"
#include "base/text.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;

void push_pieces(std::deque<std::string>& rest, std::string_view path) {
  std::vector<std::string> pieces = base::split(path, '/');
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece)
    if (!piece->empty() && *piece != ".") rest.push_front(std::move(*piece));
}

}  // namespace

NodeType type_of(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR: return NodeType::Directory;
    case S_IFLNK: return NodeType::Symlink;
    case S_IFCHR: return NodeType::CharacterDevice;
    case S_IFBLK: return NodeType::BlockDevice;
    case S_IFIFO: return NodeType::Fifo;
    case S_IFSOCK: return NodeType::Socket;
    default: return NodeType::File;
  }
}

Result<std::string> Tree::content_digest(const std::string& path) const {
  base::Sha256 hash;
  TRY(read(path, [&](std::string_view bytes) -> Result<> {
    hash.update(bytes);
    return {};
  }));
  return hash.finish();
}

Result<std::string> resolve_links(const Tree& tree, std::string_view path, bool missing_is_fine) {
  std::deque<std::string> rest;
  push_pieces(rest, path);
  std::vector<std::string> done;
  uint32_t followed = 0;
  bool missing = false;
  while (!rest.empty()) {
    const std::string piece = std::move(rest.front());
    rest.pop_front();
    if (piece == "..") {
      if (!done.empty()) done.pop_back();
      missing = false;  // what is left exists, or is looked at again
      continue;
    }
    done.push_back(piece);
    if (missing) continue;
    const std::string at = base::join(done, "/");
    const Result<Node> node = tree.node(at);
    if (!node && (node.error().code() != ErrorCode::NotFound || !missing_is_fine))
      return tl::unexpected(node.error());
    missing = !node;
    if (missing || node->type != NodeType::Symlink) continue;
    if (++followed > base::limits::symlinks_followed_max)
      return base::fail(ErrorCode::InvalidArgument, "'{}' is a loop of symbolic links",
                        base::escape_controls(path));
    done.pop_back();
    if (node->link.starts_with('/')) done.clear();
    push_pieces(rest, node->link);
    if (rest.size() > base::limits::tree_depth_max * 16)
      return base::fail(ErrorCode::InvalidArgument, "'{}' leads through too many folders",
                        base::escape_controls(path));
  }
  return base::join(done, "/");
}

}  // namespace builder
