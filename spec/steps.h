#pragma once
/// The steps of the loader between the decoders and the readers. Each walks a tree along with the
/// attribute table.

#include <cstddef>
#include <vector>

#include "spec/attributes.h"
#include "spec/interpolate.h"
#include "spec/node.h"
#include "spec/reporter.h"

namespace spec {

/// Fills in the variables of all texts, extensions included; never of keys. Takes out the texts
/// where that fails, once it has been told.
void interpolate_tree(Node& root, const VariableLookup& lookup, size_t& bytes_left,
                      Reporter& reporter);

/// Lays `over` onto `base` by the merge rules of the table; honours !reset and !override.
/// Onto an empty map it only takes the tags out.
void merge_tree(Node& base, Node&& over, Reporter& reporter);

/// Reports what the table does not know, forms it does not allow, and what has no meaning here.
/// Removes those nodes, so that the readers see only what they can read.
void check_tree(Node& root, bool strict, Reporter& reporter);

/// A list of `k=v` (or of names) as a map, a map as it is.
Node as_map(Node&& node);

}  // namespace spec
