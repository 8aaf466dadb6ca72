#pragma once
/// What a machine forked from a zygote puts in the place of what its zygote had open.

#include <vector>

#include "base/result.h"

namespace runtime {

struct GivenDescriptor {
  int ours = -1;    ///< Open now, closed afterwards unless it is a layer.
  int number = -1;  ///< The place it takes, and with it every copy the zygote's QEMU made.
};

/// In a zygote, before QEMU's first line: QEMU closes most of these numbers and goes on with
/// copies.
base::Result<> remember_places(const std::vector<int>& numbers);

/// In a child, which has no other thread yet. Nothing it can reach afterwards is its zygote's,
/// except read-only files: events are its own, connections of the zygote are broken off. `kept`
/// is left alone.
base::Result<> replace_descriptors(const std::vector<GivenDescriptor>& given, int kept);

}  // namespace runtime
