#pragma once
/// The zygotes there are: at most a few, for the shapes used last.
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
#include "runtime/qemu/machine.h"
#include "runtime/template/templates.h"
#include "runtime/zygote/zygote.h"

namespace runtime {

struct ZygotesOptions {
  std::string run_folder;
  std::string empty_disk;  ///< What container disks are copies of.
  qemu::GuestFiles guest;
  std::string launcher;
  std::string system;
  Seed* seed = nullptr;
};

class Zygotes {
 public:
  Zygotes(IoLoop& loop, Templates& templates, ZygotesOptions options)
      : loop_(loop), templates_(templates), options_(std::move(options)) {
    begin();
  }
  ~Zygotes();
  Zygotes(const Zygotes&) = delete;
  Zygotes& operator=(const Zygotes&) = delete;

  /// Null: there is none.
  std::shared_ptr<Zygote> find(const qemu::Shape& shape);
  /// Begins to make one, unless it is there, under way, failed before, or the guest is not
  /// emulated.
  void want(const qemu::Shape& shape);
  /// Its children do not come up: away with it. Where that goes on happening, no other is made.
  void drop(const qemu::Shape& shape, const std::string& reason);
  /// Until none is being made; Timeout.
  base::Result<> settle(const base::Deadline& deadline);

 private:
  struct Known {
    qemu::Shape shape;
    std::shared_ptr<Zygote> zygote;
  };
  void begin();
  void work();
  base::Result<std::shared_ptr<Zygote>> make(const qemu::Shape& shape);

  IoLoop& loop_;
  Templates& templates_;
  const ZygotesOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Known> known_;           ///< Used last: first.
  std::vector<qemu::Shape> failed_;  ///< One entry for each time.
  std::deque<qemu::Shape> queue_;    ///< Its first is being made.
  std::atomic<bool> stopping_ = false;
  std::thread worker_;
};

}  // namespace runtime
