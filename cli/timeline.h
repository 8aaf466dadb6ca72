#pragma once
/// The timeline of one start, as `container run --trace` prints it. Pure.

#include <string>
#include <vector>

#include "base/trace.h"

namespace cli {

/// One line for each span, in the order they began; milliseconds since `origin_ns`, which is
/// printed as it is: the place of the timeline on the host's CLOCK_BOOTTIME.
std::string render_timeline(const std::string& id, int64_t origin_ns,
                            std::vector<base::Span> spans);

}  // namespace cli
