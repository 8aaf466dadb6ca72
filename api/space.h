#pragma once
/// Space on the disk, as blocks that are taken: what a sparse file does not have does not count.

#include <cstdint>
#include <string>

namespace api {

/// A kind of thing in `system df`.
struct DiskUse {
  uint64_t total = 0;
  uint64_t active = 0;
  uint64_t bytes = 0;
  uint64_t reclaimable_bytes = 0;  ///< Of what is not active.

  void add(uint64_t one, bool is_active) {
    ++total;
    active += is_active ? 1 : 0;
    bytes += one;
    reclaimable_bytes += is_active ? 0 : one;
  }
};

/// All in a folder and itself; a file with several names counts once, links are not followed.
/// What vanishes or cannot be read meanwhile counts nothing.
uint64_t allocated_tree_bytes(const std::string& path);

}  // namespace api
