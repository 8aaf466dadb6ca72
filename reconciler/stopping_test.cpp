#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/log.h"
#include "planner/plan.h"
#include "tests/sim/fakes.h"

// Containers that are asked to end: the world runs on virtual time.

namespace {

using planner::ContainerRecord;
using planner::Phase;
using planner::Snapshot;

constexpr int64_t grace_ms = 10'000;

struct Shop {
  explicit Shop(int count, const std::string& command = "deaf") : world(1) {
    spdlog::set_level(spdlog::level::off);
    world.image.tag("nginx", "sha256:nginx");
    stack.name = "shop";
    stack.networks["default"].name = "shop_default";
    for (int i = 0; i < count; ++i) {
      spec::Service& made = stack.services["s" + std::to_string(i)];
      made.image = "nginx";
      made.command = std::vector<std::string>{command};
      made.networks["default"] = {};
    }
    world.start_daemon();
    world.run_until(10'000, [&] { return world.ready(); });
    REQUIRE(world.apply_and_wait(
        "up", [this](const Snapshot& actual) { return planner::plan_up(stack, actual, {}); }));
  }
  sim::World::Make down() {
    return [this](const Snapshot& actual) {
      return planner::plan_down(stack.name, actual,
                                {.volumes = false, .remove_orphans = true, .stop_grace_ms = {}});
    };
  }
  static sim::World::Make stop_first(std::optional<std::string> signal = {}) {
    return [signal](const Snapshot& actual) {
      return planner::plan_stop({"shop-s0-1"}, actual, signal, grace_ms);
    };
  }
  /// Absent: it is gone.
  std::optional<ContainerRecord> first() {
    const Snapshot snapshot = world.snapshot();
    const auto found = snapshot.containers.find("shop-s0-1");
    if (found == snapshot.containers.end()) return std::nullopt;
    return found->second;
  }
  /// How long `make` takes, of the world's time.
  int64_t time_of(const sim::World::Make& make) {
    const int64_t begin_ms = world.clock.now_ms();
    REQUIRE(world.apply_and_wait("somebody", make));
    return world.clock.now_ms() - begin_ms;
  }

  sim::World world;
  spec::Stack stack;
};

}  // namespace

TEST_CASE("who ends when asked to is not killed") {
  Shop shop(1, "serve");

  CHECK(shop.time_of(Shop::stop_first()) < 1'000);

  CHECK(shop.first()->phase == Phase::Exited);
  CHECK(shop.first()->exit_code == 128 + 15);
}

TEST_CASE("who does not listen is killed when its time is over") {
  Shop shop(1);

  const int64_t took_ms = shop.time_of(Shop::stop_first());

  CHECK(took_ms >= grace_ms);
  CHECK(took_ms < grace_ms + 1'000);
  CHECK(shop.first()->exit_code == 128 + 9);
  CHECK(shop.world.store.state.plans.empty());
}

TEST_CASE("any number of containers that do not listen take the time of one") {
  Shop shop(50);
  CHECK(shop.time_of(shop.down()) < grace_ms + 5'000);
  CHECK(shop.world.snapshot().containers.empty());
}

TEST_CASE("nobody else waits while containers have their time") {
  Shop shop(50);
  ContainerRecord job;
  job.id = "job";
  job.one_off = true;
  job.applied.image = "nginx";
  job.applied.command = std::vector<std::string>{"serve"};
  job.image_digest = "sha256:nginx";

  const auto down = shop.world.apply("down", shop.down());
  shop.world.run_for(2'000);
  const int64_t took_ms = shop.time_of(
      [&](const Snapshot& actual) { return planner::plan_create(job, {}, actual, true); });

  CHECK(took_ms < 2'000);
  CHECK_FALSE(down->finished);
}

TEST_CASE("a container that ends by another's hand need not use up its time") {
  Shop shop(1);
  const auto stopped = shop.world.apply("stop", Shop::stop_first());
  shop.world.run_for(1'000);
  REQUIRE_FALSE(stopped->finished);

  shop.world.runtime.end("shop-s0-1", 3, false);
  shop.world.run_for(1'000);

  REQUIRE(stopped->finished);
  CHECK(stopped->result);
  CHECK(shop.first()->exit_code == 3);
}

TEST_CASE("a signal that does not exist stops nothing") {
  Shop shop(1, "serve");
  const auto result = shop.world.apply_and_wait("stop", Shop::stop_first("NONSENSE"));
  REQUIRE_FALSE(result);
  CHECK(result.error().code() == base::ErrorCode::InvalidArgument);
  CHECK(shop.first()->phase == Phase::Running);
}

TEST_CASE("a stop that is cancelled has begun, and is finished") {
  Shop shop(1);
  const auto stopped = shop.world.apply("stop", Shop::stop_first());
  shop.world.run_for(1'000);

  shop.world.daemon().cancel("stop");
  shop.world.run_for(grace_ms);

  REQUIRE(stopped->finished);
  CHECK_FALSE(stopped->result);
  CHECK(shop.first()->phase == Phase::Exited);
}

TEST_CASE("only who is going to be removed gives up its disk") {
  Shop shop(2);
  REQUIRE(shop.world.apply_and_wait("stop", Shop::stop_first()));
  CHECK_FALSE(shop.world.runtime.vms.at("shop-s0-1").disk_given_up);

  (void)shop.world.apply("down", shop.down());
  shop.world.run_for(1'000);
  CHECK(shop.world.runtime.vms.at("shop-s1-1").disk_given_up);
}

TEST_CASE("a removal whose stop has begun is finished, though it was cancelled") {
  Shop shop(1);
  const auto down = shop.world.apply("down", shop.down());
  shop.world.run_for(1'000);

  shop.world.daemon().cancel("down");
  shop.world.run_for(2 * grace_ms);

  REQUIRE(down->finished);
  CHECK_FALSE(down->result);
  CHECK_FALSE(shop.first());
}

TEST_CASE("a daemon that dies in between asks again, and finishes") {
  Shop shop(1);
  (void)shop.world.apply("down", shop.down());
  shop.world.run_for(1'000);
  shop.world.crash();
  shop.world.start_daemon();
  shop.world.run_for(3 * grace_ms);

  CHECK_FALSE(shop.first());
  CHECK(shop.world.store.state.plans.empty());
}

TEST_CASE("a daemon that stops does not wait for the time to be over") {
  Shop shop(1);
  const auto down = shop.world.apply("down", shop.down());
  shop.world.run_for(1'000);
  bool stopped = false;

  shop.world.daemon().stop([&] { stopped = true; });
  shop.world.run_for(1'000);

  CHECK(stopped);
  CHECK(down->finished);
  CHECK(shop.world.runtime.vms.at("shop-s0-1").phase == reconciler::VmPhase::Running);
}
