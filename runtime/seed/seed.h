#pragma once
/// A QEMU that has been loaded and waits before its first line; machines are forked from it.
///
/// More than half of the processor time of a QEMU start is the work of the dynamic linker on some
/// fifty libraries, the same each time. A seed does it once. Machines from one seed share the
/// pages that work has written, and the addresses their libraries lie at.

#include <memory>
#include <mutex>
#include <string>

#include "base/fd.h"
#include "base/process.h"
#include "base/result.h"
#include "runtime/seed/order.h"

namespace runtime {

struct SeedOptions {
  std::string program;  ///< Path of QEMU.
  std::string library;  ///< Path of `container-memory.so`.
  std::string system;   ///< The app root: tells people whose process this is.
};

/// Thread-safe.
class Seed {
 public:
  explicit Seed(SeedOptions options) : options_(std::move(options)) {}
  /// Ends it; its machines run on.
  ~Seed();
  Seed(const Seed&) = delete;
  Seed& operator=(const Seed&) = delete;

  /// Loads QEMU now, so that the first machine need not wait for it. Does not block.
  base::Result<> prepare();
  /// As base::spawn of `container-launch`, the program being the seed's own. A seed that has gone
  /// is started again. The machine is no child of ours. After a failure there is none.
  base::Result<base::ProcessIdentity> spawn(const SeedRequest& request);

 private:
  base::Result<> start();
  void end();
  base::Result<Ordered> order_anew(const SeedRequest& request);

  const SeedOptions options_;
  std::mutex mutex_;
  base::UniqueFd socket_;
  base::ProcessIdentity process_;
};

}  // namespace runtime
