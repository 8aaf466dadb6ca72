#pragma once
/// Room kept for bad days: a preallocated file that is given up when the disk is full, so that
/// what takes away (stop, remove, down) can still be written down.

#include <cstdint>
#include <string>

#include "base/result.h"

namespace api {

class Reserve {
 public:
  Reserve(std::string path, int64_t bytes) : path_(std::move(path)), bytes_(bytes) {}

  /// Makes the file if it is missing and the disk has room for it and as much again.
  base::Result<> hold();
  /// Gives the room back to the disk; false if there was none to give.
  bool give_up();

 private:
  std::string path_;
  int64_t bytes_;
};

}  // namespace api
