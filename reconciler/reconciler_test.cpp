#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string>

#include "base/log.h"
#include "tests/sim/fakes.h"

// The reconciler in the simulated world: calm weather, and exactly the fault each test is about.

namespace {

using planner::ContainerRecord;
using planner::Phase;
using planner::Plan;
using planner::Snapshot;

struct Shop {
  Shop() : world(1) {
    spdlog::set_level(spdlog::level::off);
    world.image.tag("nginx", "sha256:nginx");
    stack.name = "shop";
    stack.networks["default"].name = "shop_default";
    world.start_daemon();
    world.run_until(10'000, [&] { return world.ready(); });
  }

  spec::Service& service(const std::string& name) {
    spec::Service& made = stack.services[name];
    made.image = "nginx";
    made.command = std::vector<std::string>{"serve"};
    made.networks["default"] = {};
    return made;
  }
  sim::World::Make up(planner::UpOptions options = {}) {
    return [this, options](const Snapshot& actual) {
      return planner::plan_up(stack, actual, options);
    };
  }
  const ContainerRecord record(const std::string& id) {
    const Snapshot snapshot = world.snapshot();
    const auto found = snapshot.containers.find(id);
    return found == snapshot.containers.end() ? ContainerRecord{} : found->second;
  }
  sim::Bridge& bridge() { return world.network.bridges["shop_default"]; }
  /// What happened to one container, without the rest.
  std::string log_of(const std::string& id) const {
    std::string text;
    for (const std::string& line : world.notices)
      if (const size_t at = line.find(' ' + id + ' '); at != std::string::npos)
        text += line.substr(at + id.size() + 2) + "\n";
    return text;
  }

  sim::World world;
  spec::Stack stack;
};

/// Of `run --rm`, with the id `job`.
ContainerRecord one_off_job() {
  ContainerRecord job;
  job.id = "job";
  job.one_off = true;
  job.auto_remove = true;
  job.applied.image = "nginx";
  return job;
}

sim::World::Make stop(const std::string& id) {
  return [id](const Snapshot& actual) { return planner::plan_stop({id}, actual, {}, 1000); };
}

}  // namespace

TEST_CASE("a started container has its place, its names and its ports, and a clean journal") {
  Shop shop;
  shop.service("web").ports.push_back({"127.0.0.1", 8080, 80, spec::Protocol::Tcp});

  const auto result = shop.world.apply_and_wait("up", shop.up());

  REQUIRE(result);
  const sim::Lease& lease = shop.bridge().leases.at("shop-web-1");
  CHECK(lease.announced);
  CHECK(lease.ports == std::set<std::string>{"127.0.0.1:8080/0"});
  CHECK(shop.record("shop-web-1").places.at(0).address == "10.1.0.2/24");
  CHECK(shop.world.store.state.plans.empty());
  CHECK(shop.world.broken_rules.empty());
}

TEST_CASE("the platform of a service decides which content of its image is used") {
  Shop shop;
  shop.service("web").platform = "linux/arm64";

  REQUIRE(shop.world.apply_and_wait("up", shop.up()));

  REQUIRE_FALSE(shop.world.image.platforms.empty());
  CHECK(shop.world.image.platforms.front() == "linux/arm64");
  CHECK(shop.world.image.platforms.back() == "linux/arm64");
}

TEST_CASE("a container that keeps exiting is restarted with a doubling delay") {
  Shop shop;
  shop.service("web").restart.condition = spec::RestartCondition::Always;
  shop.stack.services["web"].command = std::vector<std::string>{"exit", "50", "1"};

  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  shop.world.run_for(1'000);

  CHECK(shop.log_of("shop-web-1") ==
        "created\n"
        "started\n"
        "exited\n"
        "restarting in 100ms\n"
        "started\n"
        "exited\n"
        "restarting in 200ms\n"
        "started\n"
        "exited\n"
        "restarting in 400ms\n");
}

TEST_CASE("the delay begins anew after a container has run long enough") {
  Shop shop;
  shop.service("web").restart.condition = spec::RestartCondition::Always;
  shop.stack.services["web"].command = std::vector<std::string>{"exit", "11000", "1"};

  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  shop.world.run_for(24'000);

  CHECK(shop.log_of("shop-web-1") ==
        "created\n"
        "started\n"
        "exited\n"
        "restarting in 100ms\n"
        "started\n"
        "exited\n"
        "restarting in 100ms\n"
        "started\n");
}

TEST_CASE("on-failure gives up after its retries and leaves an exit of 0 alone") {
  Shop shop;
  spec::Service& bad = shop.service("bad");
  bad.restart = {spec::RestartCondition::OnFailure, 2};
  bad.command = std::vector<std::string>{"exit", "50", "1"};
  spec::Service& good = shop.service("good");
  good.restart = {spec::RestartCondition::OnFailure, 2};
  good.command = std::vector<std::string>{"exit", "50", "0"};

  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  shop.world.run_for(60'000);

  CHECK(shop.record("shop-bad-1").phase == Phase::Exited);
  CHECK(shop.record("shop-bad-1").restart_count == 2);
  CHECK(shop.record("shop-good-1").restart_count == 0);
}

TEST_CASE("a container stopped by its user stays stopped, also over a restart of the daemon") {
  Shop shop;
  shop.service("web").restart.condition = spec::RestartCondition::UnlessStopped;
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));

  REQUIRE(shop.world.apply_and_wait("stop", stop("shop-web-1")));
  shop.world.run_for(120'000);
  shop.world.crash();
  shop.world.start_daemon();
  shop.world.run_for(120'000);

  CHECK(shop.record("shop-web-1").phase == Phase::Exited);
  CHECK(shop.bridge().leases.empty());
}

TEST_CASE("a failed start leaves nothing running, listening or answering") {
  Shop shop;
  shop.service("web").ports.push_back({"127.0.0.1", 8080, 80, spec::Protocol::Tcp});
  shop.world.weather.fail_next["start shop-web-1"] = 1;

  const auto result = shop.world.apply_and_wait("up", shop.up());

  REQUIRE_FALSE(result);
  CHECK(result.error().to_string() ==
        "start container 'shop-web-1': simulated fault in start shop-web-1");
  CHECK(shop.world.runtime.vms.at("shop-web-1").phase == reconciler::VmPhase::Absent);
  CHECK(shop.bridge().leases.empty());
}

TEST_CASE("a busy port is told by its number, before the process has begun") {
  Shop shop;
  shop.service("web").ports.push_back({"127.0.0.1", 8080, 80, spec::Protocol::Tcp});
  shop.world.network.taken_outside.insert("127.0.0.1:8080/0");

  const auto result = shop.world.apply_and_wait("up", shop.up());

  REQUIRE_FALSE(result);
  CHECK(result.error().code() == base::ErrorCode::Busy);
  CHECK(result.error().to_string().find("port 8080 on 127.0.0.1 is already in use") !=
        std::string::npos);
  CHECK(shop.world.runtime.vms.at("shop-web-1").life == 0);
}

TEST_CASE("a failed step skips what follows from it, and nothing else") {
  Shop shop;
  shop.service("db");
  shop.service("web").depends_on["db"] = {};
  shop.service("other");
  shop.world.weather.fail_next["start shop-db-1"] = 1;

  const auto result = shop.world.apply_and_wait("up", shop.up());

  CHECK_FALSE(result);
  CHECK(shop.record("shop-db-1").phase == Phase::Created);
  CHECK(shop.record("shop-web-1").phase == Phase::Created);
  CHECK(shop.record("shop-other-1").phase == Phase::Running);
}

TEST_CASE("a dependency that is not required may fail") {
  Shop shop;
  shop.service("cache");
  shop.service("web").depends_on["cache"].required = false;
  shop.world.weather.fail_next["start shop-cache-1"] = 1;

  (void)shop.world.apply_and_wait("up", shop.up());

  CHECK(shop.record("shop-web-1").phase == Phase::Running);
}

TEST_CASE("a dependent starts once its dependency is healthy, which is when names answer") {
  Shop shop;
  shop.service("db").healthcheck = spec::HealthCheck{.test = {"check"}};
  shop.service("web").depends_on["db"].condition = spec::DependencyCondition::Healthy;

  const auto applied = shop.world.apply("up", shop.up());
  shop.world.run_for(500);
  const bool early = shop.bridge().leases.at("shop-db-1").announced;
  shop.world.run_until(10'000, [&] { return applied->finished; });

  CHECK_FALSE(early);
  CHECK(shop.bridge().leases.at("shop-db-1").announced);
  CHECK(shop.record("shop-web-1").started_wall_ns / 1'000'000 -
            shop.record("shop-db-1").started_wall_ns / 1'000'000 >=
        700);
}

TEST_CASE("a dependency that gets unhealthy, exits, or has no healthcheck ends the wait at once") {
  Shop sick;
  sick.service("db").healthcheck = spec::HealthCheck{.test = {"check"}};
  sick.stack.services["db"].command = std::vector<std::string>{"sick"};
  sick.service("web").depends_on["db"].condition = spec::DependencyCondition::Healthy;
  const auto unhealthy = sick.world.apply_and_wait("up", sick.up(), 5'000);

  Shop gone;
  gone.service("job").command = std::vector<std::string>{"exit", "50", "3"};
  gone.service("web").depends_on["job"].condition =
      spec::DependencyCondition::CompletedSuccessfully;
  const auto exited = gone.world.apply_and_wait("up", gone.up(), 5'000);

  Shop plain;
  plain.service("db");
  plain.service("web").depends_on["db"].condition = spec::DependencyCondition::Healthy;
  const auto unchecked = plain.world.apply_and_wait("up", plain.up(), 5'000);

  REQUIRE_FALSE(unhealthy);
  CHECK(unhealthy.error().to_string() ==
        "dependency failed to start: container shop-db-1 is unhealthy");
  REQUIRE_FALSE(exited);
  CHECK(exited.error().to_string() ==
        "dependency failed to start: container shop-job-1 exited (3)");
  REQUIRE_FALSE(unchecked);
  CHECK(unchecked.error().to_string().starts_with(
      "container shop-db-1 has no healthcheck configured"));
}

TEST_CASE("a wait with a deadline ends with it") {
  Shop shop;
  shop.service("web").command = std::vector<std::string>{"exit", "100", "1"};
  shop.stack.services["web"].restart.condition = spec::RestartCondition::Always;
  shop.stack.services["web"].healthcheck = spec::HealthCheck{.test = {"check"}};

  const auto result =
      shop.world.apply_and_wait("up", shop.up({.wait = true, .wait_timeout_ms = 900}));

  REQUIRE_FALSE(result);
  CHECK(result.error().code() == base::ErrorCode::Timeout);
}

TEST_CASE("an unhealthy container loses its names and gets them back") {
  Shop shop;
  shop.service("web").healthcheck = spec::HealthCheck{.test = {"check"}};
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  shop.world.run_for(2'000);

  shop.world.runtime.set_health("shop-web-1", reconciler::Health::Unhealthy);
  shop.world.run_for(1'000);
  const bool while_unhealthy = shop.bridge().leases.at("shop-web-1").announced;
  shop.world.runtime.set_health("shop-web-1", reconciler::Health::Healthy);
  shop.world.run_for(1'000);

  CHECK_FALSE(while_unhealthy);
  CHECK(shop.bridge().leases.at("shop-web-1").announced);
}

TEST_CASE("plans of one project take turns; who does not want to wait is told who holds it") {
  Shop shop;
  shop.service("web");
  const auto first = shop.world.apply("up of 'shop' by pid 1", shop.up());

  const auto refused = shop.world.apply("up of 'shop' by pid 2", shop.up(), false);
  const auto second = shop.world.apply("up of 'shop' by pid 3", shop.up());
  shop.world.run_for(5'000);

  REQUIRE(refused->finished);
  CHECK(refused->result.error().code() == base::ErrorCode::Busy);
  CHECK(refused->result.error().to_string().find("held by up of 'shop' by pid 1") !=
        std::string::npos);
  REQUIRE(first->finished);
  CHECK(first->result);
  REQUIRE(second->finished);
  CHECK(second->result);
  CHECK(shop.log_of("shop-web-1") == "created\nstarted\n");
}

TEST_CASE("plans of different projects run side by side") {
  Shop shop;
  shop.service("db").healthcheck = spec::HealthCheck{.test = {"check"}};
  shop.service("web").depends_on["db"].condition = spec::DependencyCondition::Healthy;
  spec::Stack blog = shop.stack;
  blog.name = "blog";
  blog.networks["default"].name = "blog_default";
  blog.services.erase("web");

  const auto slow = shop.world.apply("shop", shop.up());
  const auto quick = shop.world.apply(
      "blog", [&](const Snapshot& actual) { return planner::plan_up(blog, actual); });
  shop.world.run_until(10'000, [&] { return quick->finished; });

  CHECK(quick->finished);
  CHECK_FALSE(slow->finished);
}

TEST_CASE("a saved plan that has become stale is refused when its turn comes") {
  Shop shop;
  shop.service("web");
  reconciler::ApplyRequest request;
  request.plan = *planner::plan_up(shop.stack, shop.world.snapshot());
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  base::Result<> result;
  request.finished = [&](base::Result<> told) { result = std::move(told); };

  shop.world.daemon().apply(std::move(request));
  shop.world.run_for(1'000);

  REQUIRE_FALSE(result);
  CHECK(result.error().code() == base::ErrorCode::InvalidState);
  CHECK(result.error().to_string().find("plan again") != std::string::npos);
}

TEST_CASE("cancelling starts nothing more, and what runs is finished") {
  Shop shop;
  shop.service("db").healthcheck = spec::HealthCheck{.test = {"check"}};
  shop.service("web").depends_on["db"].condition = spec::DependencyCondition::Healthy;
  const auto applied = shop.world.apply("up", shop.up());
  shop.world.run_for(400);

  shop.world.daemon().cancel("up");
  shop.world.run_for(5'000);

  REQUIRE(applied->finished);
  CHECK(applied->result.error().code() == base::ErrorCode::Cancelled);
  CHECK(shop.record("shop-db-1").phase == Phase::Running);
  CHECK(shop.record("shop-web-1").phase != Phase::Running);
  CHECK(shop.world.store.state.plans.empty());
}

TEST_CASE("a new daemon adopts what runs and takes note of what ended meanwhile") {
  Shop shop;
  shop.service("stays");
  shop.service("ends");
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  const uint64_t life = shop.world.runtime.vms.at("shop-stays-1").life;

  shop.world.crash();
  shop.world.runtime.end("shop-ends-1", 7, false);
  shop.world.start_daemon();
  shop.world.run_for(1'000);

  CHECK(shop.record("shop-stays-1").phase == Phase::Running);
  CHECK(shop.world.runtime.vms.at("shop-stays-1").life == life);
  CHECK(shop.record("shop-ends-1").phase == Phase::Exited);
  CHECK(shop.record("shop-ends-1").exit_code == 7);
  CHECK_FALSE(shop.bridge().leases.contains("shop-ends-1"));
}

TEST_CASE("a plan cut off by a crash is carried on to its end") {
  Shop shop;
  shop.service("db");
  shop.service("web").depends_on["db"] = {};
  shop.world.weather.crash_in = 9;

  const auto applied = shop.world.apply("up", shop.up());
  shop.world.run_for(30'000);

  CHECK(shop.world.crashes == 1);
  CHECK(applied->lost);
  CHECK(shop.record("shop-db-1").phase == Phase::Running);
  CHECK(shop.record("shop-web-1").phase == Phase::Running);
  CHECK(shop.world.store.state.plans.empty());
}

TEST_CASE("a daemon that only takes over starts nothing, carries nothing on, and can end all") {
  Shop shop;
  shop.service("stays");
  shop.service("dies").restart.condition = spec::RestartCondition::Always;
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  shop.service("db");
  shop.service("web").depends_on["db"] = {};
  shop.world.begin = reconciler::Begin::TakeOver;
  shop.world.weather.crash_in = 9;
  const auto applied = shop.world.apply("up", shop.up());
  shop.world.run_for(10'000);

  shop.world.runtime.end("shop-dies-1", 1, false);
  shop.world.run_for(60'000);
  const auto phase = [&](const std::string& id) { return shop.record(id).phase; };
  const Phase left = phase("shop-stays-1");
  const auto stopped = shop.world.apply_and_wait("stop", stop("shop-stays-1"));

  CHECK(applied->lost);
  CHECK(shop.world.store.state.plans.empty());
  CHECK(phase("shop-dies-1") == Phase::Exited);
  CHECK(phase("shop-web-1") != Phase::Running);
  CHECK(left == Phase::Running);
  CHECK(stopped);
  CHECK(shop.world.runtime.vms.at("shop-stays-1").phase == reconciler::VmPhase::Exited);
}

TEST_CASE("a new daemon removes disks, machines and networks that no record names") {
  Shop shop;
  shop.world.runtime.vms["stray"].disk = true;
  shop.world.runtime.vms["stray"].phase = reconciler::VmPhase::Running;
  shop.world.network.bridges["lost"].number = 77;

  shop.world.crash();
  shop.world.start_daemon();
  shop.world.run_for(2'000);

  CHECK(shop.world.runtime.vms.empty());
  CHECK_FALSE(shop.world.network.bridges.contains("lost"));
}

TEST_CASE("volumes that no record names are left alone: they may hold the only copy") {
  Shop shop;
  shop.world.runtime.volumes.insert("precious");

  shop.world.crash();
  shop.world.start_daemon();
  shop.world.run_for(60'000);

  CHECK(shop.world.runtime.volumes.contains("precious"));
}

TEST_CASE("a network that dies is made again with everybody back in their place") {
  Shop shop;
  shop.service("web").ports.push_back({"127.0.0.1", 0, 80, spec::Protocol::Tcp});
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  const auto before = shop.bridge().leases.at("shop-web-1").ports;

  shop.world.network.die("shop_default");
  shop.world.run_for(12'000);

  CHECK(shop.bridge().alive);
  REQUIRE(shop.bridge().leases.contains("shop-web-1"));
  CHECK(shop.bridge().leases.at("shop-web-1").announced);
  CHECK(shop.bridge().leases.at("shop-web-1").ports == before);
}

TEST_CASE("a network has the gateway its file names, and keeps the one it was made with") {
  Shop shop;
  shop.service("web");
  shop.stack.networks["default"].gateway = "10.1.0.9";
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  CHECK(shop.bridge().gateway == "10.1.0.9");
  // As if an earlier version had made it, which knew no other gateway than the first address.
  shop.bridge().gateway = "10.1.0.1";
  shop.world.crash();
  shop.world.store.state.networks.at("shop_default").gateway = "10.1.0.1";
  shop.world.start_daemon();
  shop.world.run_until(10'000, [&] { return shop.world.ready(); });

  shop.world.network.die("shop_default");
  shop.world.run_for(12'000);

  CHECK(shop.bridge().alive);
  CHECK(shop.bridge().gateway == "10.1.0.1");
}

TEST_CASE("stopping works on a full disk, and is written down when there is room again") {
  Shop shop;
  shop.service("web");
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  shop.world.weather.disk_full = true;

  const auto stopped = shop.world.apply_and_wait("stop", stop("shop-web-1"));
  shop.world.weather.disk_full = false;
  shop.world.run_for(30'000);

  CHECK(stopped);
  CHECK(shop.world.store.state.containers.at("shop-web-1").phase == Phase::Exited);
  CHECK(shop.world.store.state.containers.at("shop-web-1").wanted == planner::Wanted::Stopped);
}

TEST_CASE("a container of run --rm is gone after its exit, with its anonymous volume") {
  Shop shop;
  ContainerRecord job = one_off_job();
  job.applied.command = std::vector<std::string>{"exit", "100", "0"};
  job.applied.volumes.push_back({spec::MountType::Volume, "", "/scratch"});

  const auto result = shop.world.apply_and_wait(
      "run", [&](const Snapshot& actual) { return planner::plan_create(job, {}, actual, true); });
  const size_t volumes_while_running = shop.world.runtime.volumes.size();
  shop.world.run_for(2'000);

  REQUIRE(result);
  CHECK(volumes_while_running == 1);
  CHECK(shop.log_of("job") == "created\nstarted\nexited\nremoved\n");
  CHECK(shop.world.runtime.volumes.empty());
  CHECK(shop.world.runtime.vms.empty());
}

TEST_CASE("whoever asks after the exit of a container of run --rm finds none") {
  Shop shop;
  const ContainerRecord job = one_off_job();
  REQUIRE(shop.world.apply_and_wait(
      "run", [&](const Snapshot& actual) { return planner::plan_create(job, {}, actual, true); }));
  const auto is_there = [&] { return shop.world.daemon().snapshot().containers.contains("job"); };
  bool there_when_noted = false;
  bool there_when_removed = true;
  bool there_when_asked_by_name = true;

  shop.world.runtime.end("job", 0, false);
  shop.world.workers.post([&] {
    using reconciler::Ended;
    shop.world.daemon().when_ended({}, Ended::Noted, [&] { there_when_noted = is_there(); });
    shop.world.daemon().when_ended({}, Ended::Removed, [&] { there_when_removed = is_there(); });
    shop.world.daemon().when_ended({"job"}, Ended::Removed,
                                   [&] { there_when_asked_by_name = is_there(); });
  });
  shop.world.run_for(2'000);

  CHECK(there_when_noted);
  CHECK_FALSE(there_when_removed);
  CHECK_FALSE(there_when_asked_by_name);
}

TEST_CASE("changed ports of a running container are exchanged without a restart") {
  Shop shop;
  shop.service("web").ports.push_back({"127.0.0.1", 8080, 80, spec::Protocol::Tcp});
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  shop.stack.services["web"].ports[0].published = 8081;

  REQUIRE(shop.world.apply_and_wait("up", shop.up()));

  CHECK(shop.bridge().leases.at("shop-web-1").ports == std::set<std::string>{"127.0.0.1:8081/0"});
  CHECK(shop.log_of("shop-web-1") == "created\nstarted\n");
}

TEST_CASE("of a choice of ports the first free one is taken, and kept by whoever holds it") {
  Shop shop;
  shop.service("web").ports.push_back({"127.0.0.1", 8000, 80, spec::Protocol::Tcp, 8010});
  shop.stack.services["web"].scale = 2;
  shop.world.network.taken_outside.insert("127.0.0.1:8001/0");
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  const auto held = shop.record("shop-web-2").published;
  const auto again = shop.up()(shop.world.snapshot());

  shop.world.network.taken_outside.clear();
  shop.stack.services["web"].ports.push_back({"127.0.0.1", 0, 443, spec::Protocol::Tcp});
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  shop.world.network.die("shop_default");
  shop.world.run_for(12'000);

  std::set<uint16_t> taken{shop.record("shop-web-1").published.at(0).published};
  taken.insert(held.at(0).published);
  CHECK(taken == std::set<uint16_t>{8000, 8002});
  REQUIRE(again);
  CHECK(again->steps.empty());
  REQUIRE(shop.record("shop-web-2").published.size() == 2);
  CHECK(shop.record("shop-web-2").published[0].published == held[0].published);
  CHECK(shop.bridge()
            .leases.at("shop-web-2")
            .ports.contains(fmt::format("127.0.0.1:{}/0", held[0].published)));
}

TEST_CASE("a choice of ports that are all taken fails like a taken port") {
  Shop shop;
  shop.service("web").ports.push_back({"127.0.0.1", 8000, 80, spec::Protocol::Tcp, 8001});
  shop.world.network.taken_outside = {"127.0.0.1:8000/0", "127.0.0.1:8001/0"};

  const auto result = shop.world.apply_and_wait("up", shop.up());

  CHECK_FALSE(result);
  CHECK(shop.world.runtime.vms.at("shop-web-1").phase != reconciler::VmPhase::Running);
  CHECK(shop.bridge().leases.empty());
}

TEST_CASE("a machine that is held and goes on is shown so, also to a daemon that comes later") {
  Shop shop;
  shop.service("web");
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));

  shop.world.runtime.set_paused("shop-web-1", "the host's disk is full");
  shop.world.run_for(1'000);
  const std::string told = shop.record("shop-web-1").paused_reason;
  shop.world.crash();
  shop.world.runtime.vms.at("shop-web-1").paused_reason.clear();
  shop.world.start_daemon();
  shop.world.run_for(12'000);
  const std::string cleared = shop.record("shop-web-1").paused_reason;
  shop.world.runtime.vms.at("shop-web-1").paused_reason = "again";
  shop.world.run_for(12'000);

  CHECK(told == "the host's disk is full");
  CHECK(cleared.empty());
  CHECK(shop.record("shop-web-1").paused_reason == "again");
  CHECK(shop.log_of("shop-web-1") == "created\nstarted\npaused\nresumed\npaused\n");
  REQUIRE(shop.world.apply_and_wait("stop", stop("shop-web-1")));
  CHECK(shop.record("shop-web-1").paused_reason.empty());
}

namespace {

/// `box` on the network `front` with the volume `data`, both made by hand.
struct ByHand {
  ByHand() {
    network.name = network.applied.name = "front";
    volume.name = volume.applied.name = "data";
    box.id = "box";
    box.one_off = true;
    box.applied.image = "nginx";
    box.applied.command = std::vector<std::string>{"serve"};
    box.applied.networks["front"] = {};
    box.applied.volumes.push_back({spec::MountType::Volume, "data", "/data"});
    REQUIRE(shop.world.apply_and_wait("network create", [&](const Snapshot& actual) {
      return planner::plan_create_network(network, actual);
    }));
    REQUIRE(shop.world.apply_and_wait("volume create", [&](const Snapshot& actual) {
      return planner::plan_create_volume(volume, actual);
    }));
  }
  auto run(bool wait = true) {
    const auto make = [this](const Snapshot& actual) {
      return planner::plan_create(box, {volume}, actual, true);
    };
    return shop.world.apply("run", make, wait);
  }
  auto remove_network(bool wait = true) {
    const auto make = [](const Snapshot& actual) {
      return planner::plan_remove_network({"front"}, actual);
    };
    return shop.world.apply("network rm", make, wait);
  }
  auto remove_volume() {
    return shop.world.apply("volume rm", [](const Snapshot& actual) {
      return planner::plan_remove_volume({"data"}, actual);
    });
  }

  Shop shop;
  planner::NetworkRecord network;
  planner::VolumeRecord volume;
  ContainerRecord box;
};

}  // namespace

TEST_CASE("nobody removes a network or a volume under a container that is being made") {
  ByHand hand;

  const auto run = hand.run();
  const auto network = hand.remove_network();
  const auto volume = hand.remove_volume();
  const auto impatient = hand.remove_network(false);
  hand.shop.world.run_for(5'000);

  CHECK(run->result);
  CHECK(hand.shop.record("box").phase == Phase::Running);
  REQUIRE_FALSE(network->result);
  CHECK(network->result.error().to_string().find("used by container 'box'") != std::string::npos);
  REQUIRE_FALSE(volume->result);
  CHECK(volume->result.error().code() == base::ErrorCode::Busy);
  REQUIRE_FALSE(impatient->result);
  CHECK(impatient->result.error().to_string() ==
        "network 'front' is held by run; try again when that is done");
  CHECK(hand.shop.world.runtime.volumes.contains("data"));
}

TEST_CASE("a container that comes while its network is being removed is told that it is gone") {
  ByHand hand;

  const auto network = hand.remove_network();
  const auto impatient = hand.run(false);
  const auto run = hand.run();
  hand.shop.world.run_for(5'000);

  CHECK(network->result);
  CHECK(impatient->result.error().to_string().find("held by network rm") != std::string::npos);
  REQUIRE_FALSE(run->result);
  CHECK(run->result.error().code() == base::ErrorCode::NotFound);
  CHECK(hand.shop.world.runtime.vms.empty());
  CHECK(hand.shop.world.snapshot().containers.empty());
}

TEST_CASE("containers on one network made by hand do not wait for each other") {
  ByHand hand;
  const auto first = hand.run();
  hand.box.id = "other";
  const auto second = hand.run(false);

  hand.shop.world.run_for(5'000);

  CHECK(first->result);
  CHECK(second->result);
}

TEST_CASE("a prune leaves the anonymous volumes that a replacement is about to take over") {
  Shop shop;
  shop.service("db").volumes.push_back({spec::MountType::Volume, "", "/data"});
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  const auto before = shop.world.runtime.volumes;
  shop.stack.services.at("db").environment["MODE"] = "new";

  const auto up = shop.world.apply("up", shop.up());
  const bool between = shop.world.run_until(
      60'000, [&] { return !shop.world.daemon().snapshot().containers.contains("shop-db-1"); });
  const auto prune = shop.world.apply("volume prune", [](const Snapshot& actual) {
    return planner::plan_prune_volumes(actual, true);
  });
  shop.world.run_for(5'000);

  REQUIRE(between);
  CHECK(up->result);
  CHECK(prune->result);
  CHECK(before.size() == 1);
  CHECK(shop.world.runtime.volumes == before);
}

TEST_CASE("stopping the daemon leaves VMs running and answers everybody") {
  Shop shop;
  shop.service("web");
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  bool stopped = false;

  shop.world.daemon().stop([&] { stopped = true; });
  shop.world.run_for(1'000);
  const auto late = shop.world.apply("late", shop.up());

  CHECK(stopped);
  CHECK(late->finished);
  CHECK(shop.world.runtime.vms.at("shop-web-1").phase == reconciler::VmPhase::Running);
}

TEST_CASE("a plan of one container does not wait for the whole of one of fifty") {
  Shop shop;
  for (int i = 0; i < 50; ++i) shop.service("s" + std::to_string(i));
  ContainerRecord job;
  job.id = "job";
  job.one_off = true;
  job.applied.image = "nginx";
  job.applied.command = std::vector<std::string>{"serve"};
  job.image_digest = "sha256:nginx";

  const auto big = shop.world.apply("up", shop.up());
  shop.world.run_for(200);
  const auto small = shop.world.apply(
      "run", [&](const Snapshot& actual) { return planner::plan_create(job, {}, actual, true); });
  const bool done = shop.world.run_until(600'000, [&] { return small->finished; });
  const size_t running = shop.world.runtime.vms.size() - 1;

  CHECK(done);
  CHECK(small->result);
  CHECK_FALSE(big->finished);
  CHECK(running < 50);
}

TEST_CASE("whoever asks after an exit was told waits until it is in the records") {
  Shop shop;
  shop.service("web");
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  Phase seen = Phase::Running;

  shop.world.runtime.end("shop-web-1", 3, false);
  // As a request does that comes after the end was told: by the same road, behind it.
  shop.world.workers.post([&] {
    shop.world.daemon().when_ended({}, reconciler::Ended::Noted,
                                   [&] { seen = shop.record("shop-web-1").phase; });
  });
  shop.world.run_for(1'000);

  CHECK(seen == Phase::Exited);
  bool at_once = false;
  shop.world.daemon().when_ended({}, reconciler::Ended::Noted, [&] { at_once = true; });
  CHECK(at_once);
}

TEST_CASE("whoever asks for one container does not wait for the exit of another") {
  Shop shop;
  shop.service("web");
  shop.service("slow");
  REQUIRE(shop.world.apply_and_wait("up", shop.up()));
  bool one = false;
  bool both = false;
  bool all = false;
  bool one_was_first = false;

  shop.world.runtime.end("shop-slow-1", 3, false);
  shop.world.workers.post([&] {
    shop.world.daemon().when_ended({"shop-web-1"}, reconciler::Ended::Noted, [&] { one = true; });
    one_was_first = one && !both && !all;
    shop.world.daemon().when_ended({"shop-web-1", "shop-slow-1"}, reconciler::Ended::Noted,
                                   [&] { both = true; });
    shop.world.daemon().when_ended({}, reconciler::Ended::Noted, [&] { all = true; });
    one_was_first = one_was_first && !both && !all;
  });
  shop.world.run_for(1'000);

  CHECK(one_was_first);
  CHECK(both);
  CHECK(all);
}
