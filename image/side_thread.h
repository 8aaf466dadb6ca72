#pragma once
/// One use of a stream's bytes, such as their digest, on a thread of its own beside other uses of
/// the same bytes: nothing is copied, and each piece takes as long as its dearest use.

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string_view>
#include <thread>

#include "base/result.h"

namespace image {

class SideThread {
 public:
  using Use = std::function<base::Result<>(std::string_view)>;
  /// `use` is called with each piece in turn, until one fails.
  explicit SideThread(Use use);
  ~SideThread();

  /// Hands over the next piece and returns. It must stay until settle() has returned.
  void begin(std::string_view piece);
  /// Waits until the pieces so far have been used: the first error. What `use` touches is the
  /// caller's from here to the next begin().
  base::Result<> settle();

 private:
  void run();

  const Use use_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string_view piece_;  ///< In use while it is not empty.
  bool ends_ = false;
  base::Result<> outcome_;
  std::thread thread_;
};

}  // namespace image
