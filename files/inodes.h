#pragma once
/// The objects the guest knows, by number: each a descriptor opened beneath its share.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include <sys/stat.h>

#include "base/fd.h"
#include "base/result.h"

namespace files {

/// More would exhaust the descriptors a process may have; the guest forgets what it does not use.
inline constexpr size_t inodes_max = 200'000;

struct Inode {
  uint64_t number = 0;
  base::UniqueFd place;  ///< O_PATH, of the object itself even if it is a symbolic link.
  size_t share = 0;
  mode_t type = 0;       ///< S_IFMT bits; an object never changes its type.
  uint64_t lookups = 0;  ///< How often the guest was told of it.
  std::tuple<size_t, dev_t, ino_t> key;

  /// For calls that want a path: the object itself, without walking anything.
  std::string proc_path() const;
};

class Inodes {
 public:
  /// The inode of an object just opened, counted once more. nullptr when there are too many.
  Inode* remember(base::UniqueFd place, size_t share, const struct stat& info);
  Inode* find(uint64_t number);
  void forget(uint64_t number, uint64_t lookups);
  size_t size() const { return by_number_.size(); }

 private:
  std::map<uint64_t, std::unique_ptr<Inode>> by_number_;
  std::map<std::tuple<size_t, dev_t, ino_t>, Inode*> by_key_;
  uint64_t next_ = 2;  // 1 is the root, FUSE_ROOT_ID
};

}  // namespace files
