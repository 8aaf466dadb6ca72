#pragma once
/// What keeps content alive that no name leads to yet.
///
/// Loads, pulls, builds and removals run side by side, and a removal collects what nothing leads
/// to. So whoever brings content in names it to a Lease first; collecting takes the same lock.

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace image {

class Store;

/// What the store and the holders of one lease share; guarded by the store's mutex.
struct LeaseRecord {
  std::string name;               ///< Empty: it ends with this process.
  std::string path;               ///< Of its file, when it has a name.
  base::UniqueFd file;            ///< Open for appending while somebody holds it.
  std::set<std::string> digests;  ///< Blobs and diff ids; they keep what they lead to.
  int holders = 0;
};

/// Keeps content in the store for as long as it lives. Movable, thread-safe; must not outlive its
/// store, nor end on a thread that the store's `users` waits for.
///
/// At its end, what it kept, or that led to, and nothing else leads to is deleted. After a crash or
/// leave(), a lease with a name goes on holding until `limits::image_lease_s` after its last
/// keep(), so that a pull can be resumed and a dead one cannot pin for ever.
class Lease {
 public:
  Lease(Lease&& other) noexcept;
  Lease& operator=(Lease&&) = delete;
  ~Lease();

  /// From now on `digest`, a blob's or a layer's diff id, and all it leads to stay in the store if
  /// they are there. Call it before asking whether it is there.
  base::Result<> keep(const std::string& digest);
  /// Ends it here, but keeps its content for whoever takes the name up again. For leases with a
  /// name; one without ends as if destroyed.
  void leave();

 private:
  friend class Store;
  Lease(Store* store, std::shared_ptr<LeaseRecord> record)
      : store_(store), record_(std::move(record)) {}
  Store* store_;
  std::shared_ptr<LeaseRecord> record_;
};

}  // namespace image
