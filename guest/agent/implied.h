#pragma once
/// Folders that a layer needs but does not list look as the layers below say.
///
/// A layer's archive may hold `usr/bin/x` without `usr/bin`. Its disk has a folder there all the
/// same, plain and root's, and to overlayfs that one hides the owner and mode of the folder below.
/// The writer of disks marks such folders; here the merged root is put right, once per container.

#include <string>
#include <vector>

#include "base/result.h"

namespace agent {

/// On a folder of a layer: "y" where the archive did not list it, "p" on the way to such a one.
/// overlayfs shows attributes of this prefix to nobody.
inline constexpr const char* implied_xattr = "trusted.overlay.implied";

/// Gives each implied folder on top of `merged` the attributes of the topmost listed one below it.
/// `layers`: lowest first. What `upper` has already is left alone: that is the container's own. Its
/// root, which is always there, is put right only if it is `fresh`.
base::Result<> restore_implied_folders(const std::vector<std::string>& layers,
                                       const std::string& upper, bool fresh,
                                       const std::string& merged);

}  // namespace agent
