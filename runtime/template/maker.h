#pragma once
/// Boots one guest to the point where its agent waits for orders, and saves it.

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "runtime/io/loop.h"
#include "runtime/qemu/machine.h"

namespace runtime {

struct TemplateOrder {
  qemu::Shape shape;
  qemu::GuestFiles guest;
  std::string launcher;
  std::string system;
  std::string uuid;             ///< Of the machine, for whoever must end it later.
  std::string run_folder;       ///< Exists; for its sockets.
  std::string folder;           ///< Exists; gets the files below.
  std::optional<uint32_t> uid;  ///< QEMU becomes this user.
};

struct TemplateFiles {
  std::string folder;
  std::string memory() const { return folder + "/memory"; }
  std::string state() const { return folder + "/state"; }
  std::string console() const { return folder + "/console.log"; }
  std::string description() const { return folder + "/template.json"; }
};

class TemplateMaker {
 public:
  explicit TemplateMaker(IoLoop& loop) : loop_(loop) {}

  /// Blocks; when it returns no process of it is left. Writes memory, state and console.
  base::Result<> make(const TemplateOrder& order);
  /// Makes a `make` that is under way, and every later one, fail soon.
  void cancel();

 private:
  base::Result<> boot_and_save(const TemplateOrder& order, qemu::Machine& machine, int state);

  IoLoop& loop_;
  std::mutex mutex_;
  bool cancelled_ = false;
  int running_pidfd_ = -1;
};

}  // namespace runtime
