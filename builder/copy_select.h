#pragma once
/// What select_copy() finds and place_copy() puts somewhere: internal to builder/copy*.

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/text.h"
#include "builder/copy.h"
#include "builder/ignore.h"

namespace builder {

/// One node of a selected source; `path` relative to the source, "" is the source itself.
struct SelectedNode {
  std::string path;
  Node node;
  FileSource source;
  bool made = false;
};

struct SelectedSource {
  enum class Kind {
    File,      ///< Anything but a folder: becomes the target, or goes into it.
    Contents,  ///< A folder: what is in it goes into the target.
    Archive,   ///< As Contents, and it replaces what is in its way; owners and modes are its own.
  };
  Kind kind = Kind::File;
  std::string name;                ///< Last piece of the path, for a target that is a folder.
  std::deque<SelectedNode> nodes;  ///< Folders before what is in them.
};

struct CopySelection {
  CopyRequest request;
  std::vector<SelectedSource> sources;
  std::vector<std::shared_ptr<const Tree>> archives;  ///< What `nodes` of archives point into.
};

/// Joins two paths of a Tree; either may be "".
inline std::string join_path(const std::string& folder, const std::string& name) {
  if (folder.empty()) return name;
  return name.empty() ? folder : folder + "/" + name;
}

inline std::string parent_path(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

/// A damaged disk, or a hostile folder, could be endlessly deep.
inline base::Result<> check_depth(const std::string& path) {
  const auto depth = std::count(path.begin(), path.end(), '/');
  if (depth < static_cast<int64_t>(base::limits::tree_depth_max)) return {};
  return base::fail(base::ErrorCode::InvalidArgument, "'{}…' has folders more than {} deep",
                    base::escape_controls(path.substr(0, 64)), base::limits::tree_depth_max);
}

}  // namespace builder
