#pragma once
/// A clone that has been through the making of containers and of builds (rehearsal.h), was
/// stopped, and is forked.
///
/// Under emulation a clone's time is that of translating the guest's code: a QEMU that has just
/// started knows none of it, and the kernel's and the agent's way to a container is long. A zygote
/// went that way, undid it, and waits. What is forked from it, with all its threads, has the
/// translations, and shares them and the guest's memory until it writes them.
///
/// It runs our kernel and our agent, and nothing of anybody's image or network. Its QEMU is not
/// confined; each child is before it runs.

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/process.h"
#include "base/result.h"
#include "runtime/io/loop.h"
#include "runtime/qemu/machine.h"
#include "runtime/seed/order.h"
#include "runtime/template/templates.h"

namespace runtime {

struct ZygoteOrder {
  qemu::Shape shape;
  qemu::GuestFiles guest;
  std::string launcher;
  std::string system;
  std::string uuid;
  std::string run_folder;  ///< Exists; for sockets.
  std::string empty_disk;  ///< What container disks are copies of.
  std::shared_ptr<const Template> origin;
  Seed* seed = nullptr;
};

/// Thread-safe.
class Zygote {
 public:
  /// Blocks. `cancelled` makes it fail soon.
  static base::Result<std::shared_ptr<Zygote>> make(IoLoop& loop, const ZygoteOrder& order,
                                                    const std::atomic<bool>& cancelled);
  /// Ends it; its children run on.
  ~Zygote();
  Zygote(const Zygote&) = delete;
  Zygote& operator=(const Zygote&) = delete;

  /// As Seed::spawn; the guest stands still until order_continue().
  base::Result<base::ProcessIdentity> spawn(const SeedRequest& request);

 private:
  Zygote() = default;
  base::Result<> rehearse(IoLoop& loop, const ZygoteOrder& order,
                          const std::atomic<bool>& cancelled);

  std::mutex mutex_;
  base::UniqueFd orders_;
  qemu::Machine machine_;
};

}  // namespace runtime
