#pragma once
/// The mothers there are: at most a few, for the shapes used last.
///
/// They are made one at a time on a thread of their own, for shapes that were asked for and have a
/// template. Thread-safe.

#include <atomic>
#include <condition_variable>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "runtime/io/loop.h"
#include "runtime/mother/mother.h"
#include "runtime/qemu/machine.h"
#include "runtime/template/templates.h"

namespace runtime {

struct MothersOptions {
  std::string run_folder;
  std::string empty_disk;  ///< What container disks are copies of.
  qemu::GuestFiles guest;
  std::string launcher;
  std::string system;
  Seed* seed = nullptr;
};

class Mothers {
 public:
  Mothers(IoLoop& loop, Templates& templates, MothersOptions options)
      : loop_(loop), templates_(templates), options_(std::move(options)) {
    begin();
  }
  ~Mothers();
  Mothers(const Mothers&) = delete;
  Mothers& operator=(const Mothers&) = delete;

  /// Null: there is none.
  std::shared_ptr<Mother> find(const qemu::Shape& shape);
  /// Begins to make one, unless it is there, under way, failed before, or the guest is not
  /// emulated.
  void want(const qemu::Shape& shape);
  /// Her children do not come up: away with her, and no other is made by this program.
  void drop(const qemu::Shape& shape, const std::string& reason);
  /// Until none is being made; Timeout.
  base::Result<> settle(const base::Deadline& deadline);

 private:
  struct Known {
    qemu::Shape shape;
    std::shared_ptr<Mother> mother;
  };
  void begin();
  void work();
  base::Result<std::shared_ptr<Mother>> make(const qemu::Shape& shape);

  IoLoop& loop_;
  Templates& templates_;
  const MothersOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Known> known_;  ///< Used last: first.
  std::vector<qemu::Shape> failed_;
  std::deque<qemu::Shape> queue_;  ///< Its first is being made.
  std::atomic<bool> stopping_ = false;
  std::thread worker_;
};

}  // namespace runtime
