/// The plans people read, one file for each kind of change.

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "tests/golden/golden.h"
#include "tests/golden/stacks.h"

using golden::nothing;
using golden::plan;
using golden::running;
using golden::stack;
using planner::Phase;
using planner::Snapshot;

namespace {

constexpr const char* shop =
    "services:\n"
    "  db:\n"
    "    image: localhost/store:1\n"
    "    volumes: ['data:/data']\n"
    "    environment: {PASSWORD: one, LEVEL: info}\n"
    "    healthcheck: {test: [CMD, 'true']}\n"
    "    networks: [back]\n"
    "  web:\n"
    "    image: localhost/web:1\n"
    "    ports: ['8080:80']\n"
    "    depends_on: {db: {condition: service_healthy, restart: true}}\n"
    "    networks: [front, back]\n"
    "networks: {front: {}, back: {internal: true}}\n"
    "volumes: {data: {}}\n";

/// The shop with one text of its file replaced.
spec::Stack shop_with(const std::string& before, const std::string& after) {
  std::string text = shop;
  const size_t at = text.find(before);
  REQUIRE(at != std::string::npos);
  return stack(text.replace(at, before.size(), after));
}

void check_text(const std::string& name, const planner::Plan& made) {
  golden::check("tests/golden/plans/" + name + ".txt", planner::render_text(made));
}

/// What `up` prints where the shop runs and its file has changed.
void check_change(const std::string& name, const std::string& before, const std::string& after,
                  const planner::UpOptions& options = {}) {
  check_text(name, plan(shop_with(before, after), running(stack(shop)), options));
}

}  // namespace

TEST_CASE("a stack is created") { check_text("create", plan(stack(shop), nothing(stack(shop)))); }

TEST_CASE("nothing has changed") { check_text("nothing", plan(stack(shop), running(stack(shop)))); }

TEST_CASE("one field is changed in place, by a restart, by replacement, each with its reason") {
  check_change("port", "8080:80", "8081:80");
  check_change("healthcheck", "[CMD, 'true']", "[CMD, 'false']");
  check_change("environment", "LEVEL: info", "LEVEL: debug");
  check_change("image", "localhost/web:1", "localhost/web:1\n    labels: {tier: front}");
}

TEST_CASE("a secret is never shown") {
  const planner::Plan made =
      plan(shop_with("PASSWORD: one", "PASSWORD: two"), running(stack(shop)));
  check_text("secret", made);
  CHECK(planner::render_text(made).find("two") == std::string::npos);
}

TEST_CASE("a new image, a changed network, a changed volume") {
  Snapshot newer = running(stack(shop));
  newer.image_digests["localhost/web:1"] = "sha256:newer";
  check_text("digest", plan(stack(shop), newer));
  check_change("network", "back: {internal: true}", "back: {internal: false}");
  check_change("volume", "data: {}", "data: {labels: {owner: me}}");
}

TEST_CASE("a service is scaled up and down again") {
  const spec::Stack three = shop_with("ports: ['8080:80']", "scale: 3");
  const spec::Stack one = shop_with("ports: ['8080:80']", "scale: 1");
  check_text("scale-up", plan(three, running(one)));
  check_text("scale-down", plan(one, running(three)));
}

TEST_CASE("a service is gone from the file: kept with a note, or removed as asked") {
  const spec::Stack less = stack("services: {db: {image: localhost/store:1}}");
  const Snapshot actual =
      running(stack("services: {db: {image: localhost/store:1}, "
                    "old: {image: localhost/old:1}}"));
  check_text("orphan", plan(less, actual));
  check_text("orphan-removed", plan(less, actual, {.remove_orphans = true}));
}

TEST_CASE("what changed outside of the file is told and mended") {
  Snapshot drifted = running(stack(shop));
  drifted.containers["shop-db-1"].phase = Phase::Missing;
  drifted.containers["shop-web-1"].phase = Phase::Exited;
  drifted.containers["shop-web-1"].exit_code = 137;
  drifted.networks["shop_front"].alive = false;
  drifted.volumes["shop_data"].present = false;
  check_text("drift", plan(stack(shop), drifted));
}

TEST_CASE("options: recreate, do not recreate, do not start, wait") {
  check_text("force-recreate", plan(stack(shop), running(stack(shop)), {.force_recreate = true}));
  check_change("no-recreate", "LEVEL: info", "LEVEL: debug", {.no_recreate = true});
  check_text("no-start", plan(stack(shop), nothing(stack(shop)), {.no_start = true}));
  check_text("wait", plan(stack(shop), nothing(stack(shop)), {.wait = true}));
}

TEST_CASE("everything is taken down, with the data or without") {
  const auto kept = planner::plan_down("shop", running(stack(shop)));
  const auto all = planner::plan_down("shop", running(stack(shop)), {.volumes = true});
  REQUIRE(kept);
  REQUIRE(all);
  check_text("down", *kept);
  check_text("down-volumes", *all);
}

TEST_CASE("a plan as JSON, for machines and for `up --plan`") {
  const planner::Plan made = plan(shop_with("LEVEL: info", "LEVEL: debug"), running(stack(shop)));
  const nlohmann::json json = planner::to_json(made);
  golden::check("tests/golden/plans/environment.json", base::dump_json_pretty(json) + "\n");
  const auto stored =
      base::parse_json(golden::read(CONTAINER_SOURCE_DIR "/tests/golden/plans/environment.json"));
  REQUIRE(stored);
  const auto back = planner::plan_from_json(*stored);
  REQUIRE(back);
  CHECK(planner::to_json(*back) == json);
}
