#include "image/registry/side_by_side.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace image::registry {

base::Result<> side_by_side(size_t count, uint32_t workers, Cancel& cancel,
                            const std::function<base::Result<>(size_t)>& work) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::optional<base::Error> problem;
  const auto take_turns = [&] {
    for (size_t i = next++; i < count; i = next++) {
      base::Result<> done = work(i);
      if (done) continue;
      {
        const std::lock_guard lock(mutex);
        if (!problem) problem = std::move(done.error());
      }
      cancel.cancel();
      return;
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < std::min<size_t>(workers, count); ++i) threads.emplace_back(take_turns);
  take_turns();
  for (std::thread& thread : threads) thread.join();
  if (problem) return tl::unexpected<base::Error>(std::move(*problem));
  return {};
}

}  // namespace image::registry
