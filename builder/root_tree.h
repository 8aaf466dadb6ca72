#pragma once
/// The root of an image or stage as a Tree; see image/root_view.h.

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "builder/tree.h"

namespace builder {

/// EROFS disks of the layers, lowest first; none: `scratch`. Thread-safe.
base::Result<std::unique_ptr<Tree>> open_root_tree(const std::vector<std::string>& layer_disks);

}  // namespace builder
