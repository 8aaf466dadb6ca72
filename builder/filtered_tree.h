#pragma once
/// A context without what its `.dockerignore` excludes.
///
/// An excluded folder is there only if something in it is let in again, and then shows just that.
/// Excluded folders that no exception may reach are never listed, nor are their files looked at.

#include <memory>

#include "builder/ignore.h"
#include "builder/tree.h"

namespace builder {

/// Both live at least as long as the result. Thread-safe if `tree` is.
std::unique_ptr<Tree> filter_tree(const Tree& tree, const Ignore& ignore);

}  // namespace builder
