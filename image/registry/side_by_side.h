#pragma once
/// Several parts of one transfer at a time.

#include <cstddef>
#include <cstdint>
#include <functional>

#include "base/result.h"
#include "image/registry/http.h"

namespace image::registry {

/// `work(0)` to `work(count - 1)`, in this order, on `workers` threads, one of them the caller's.
/// The first failure cancels `cancel`, so that the others end soon, and is the result.
base::Result<> side_by_side(size_t count, uint32_t workers, Cancel& cancel,
                            const std::function<base::Result<>(size_t)>& work);

}  // namespace image::registry
