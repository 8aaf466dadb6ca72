#pragma once
/// What the agent did when, while it made its container; kept only if the daemon asks for it.

#include <vector>

#include "base/trace.h"

namespace agent {

/// Marks on the guest's own CLOCK_BOOTTIME.
class Timeline {
 public:
  void begin();
  void end() { *this = {}; }
  /// `what` is done; it began where the last mark was.
  void mark(const char* what);
  bool on() const { return last_ns_ != 0; }
  const std::vector<base::Span>& spans() const { return spans_; }
  /// By what a child went on with.
  void replace(std::vector<base::Span> spans);

 private:
  int64_t last_ns_ = 0;
  std::vector<base::Span> spans_;
};

/// Of this process. The agent has one thread; a child goes on with a copy of its own.
Timeline& timeline();

}  // namespace agent
