#include "reconciler/uv_workers.h"

#include <doctest/doctest.h>

#include <thread>
#include <vector>

namespace {

/// A loop that is closed cleanly: a handle left open is an error.
struct Loop {
  Loop() { uv_loop_init(&loop); }
  ~Loop() {
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&loop) == 0);
  }
  uv_loop_t loop{};
};

}  // namespace

TEST_CASE("work runs on another thread and its end is told on the loop") {
  Loop loop;
  auto workers = reconciler::UvWorkers::create(&loop.loop);
  REQUIRE(workers);
  std::thread::id worked;
  std::thread::id told;

  (*workers)->run([&] { worked = std::this_thread::get_id(); },
                  [&] {
                    told = std::this_thread::get_id();
                    workers->reset();
                  });
  uv_run(&loop.loop, UV_RUN_DEFAULT);

  CHECK(told == std::this_thread::get_id());
  CHECK(worked != told);
}

TEST_CASE("timers fire in order of their time, and a cancelled one never") {
  Loop loop;
  auto workers = reconciler::UvWorkers::create(&loop.loop);
  REQUIRE(workers);
  std::vector<int> fired;

  (*workers)->after(20, [&] {
    fired.push_back(20);
    workers->reset();
  });
  (*workers)->after(5, [&] { fired.push_back(5); });
  const auto never = (*workers)->after(10, [&] { fired.push_back(10); });
  (*workers)->cancel(never);
  uv_run(&loop.loop, UV_RUN_DEFAULT);

  CHECK(fired == std::vector<int>{5, 20});
}

TEST_CASE("calls posted from other threads all arrive, in order, on the loop") {
  Loop loop;
  auto workers = reconciler::UvWorkers::create(&loop.loop);
  REQUIRE(workers);
  std::vector<int> seen;

  std::thread poster([&] {
    for (int i = 0; i < 100; ++i)
      (*workers)->post([&seen, &workers, i] {
        seen.push_back(i);
        if (i == 99) workers->reset();
      });
  });
  uv_run(&loop.loop, UV_RUN_DEFAULT);
  poster.join();

  CHECK(seen.size() == 100);
  CHECK(seen.front() == 0);
  CHECK(seen.back() == 99);
}
