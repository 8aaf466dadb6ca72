#pragma once
/// What no single attribute can know: references, cycles, and two things that want one place.

#include <string>
#include <vector>

#include "spec/readers.h"
#include "spec/stack.h"

namespace spec {

/// Reports everything that does not fit together. Drops dependencies on services that do not exist
/// where `required: false` allows it.
void check_consistency(const Stack& stack, std::vector<ServiceDraft>& drafts, ReadContext& context);

}  // namespace spec
