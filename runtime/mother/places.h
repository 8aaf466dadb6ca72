#pragma once
/// What a machine forked from a mother puts in the place of what its mother had open.

#include <vector>

#include "base/result.h"

namespace runtime {

struct GivenDescriptor {
  int ours = -1;    ///< Open now, closed afterwards unless it is a layer.
  int number = -1;  ///< The place it takes, and with it every copy the mother's QEMU made.
};

/// In a mother, before QEMU's first line: QEMU closes most of these numbers and goes on with
/// copies.
base::Result<> remember_places(const std::vector<int>& numbers);

/// In a child, which has no other thread yet. Nothing it can reach afterwards is its mother's,
/// except read-only files: events are its own, connections of the mother are broken off. `kept`
/// is left alone.
base::Result<> replace_descriptors(const std::vector<GivenDescriptor>& given, int kept);

}  // namespace runtime
