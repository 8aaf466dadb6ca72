#include "spec/json.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "spec/fields.h"

using namespace spec;

namespace {

/// A service in which every field differs from its default, so that a forgotten field shows.
Service full_service() {
  Service service;
  service.image = "localhost/hello:1";
  service.platform = "linux/amd64";
  service.command = {"serve", "--port", "80"};
  service.entrypoint = std::vector<std::string>{};
  service.environment = {{"A", "1"}, {"GONE", std::nullopt}};
  service.working_dir = "/srv";
  service.user = "1000:1000";
  service.group_add = {"audio"};
  service.hostname = "web";
  service.domainname = "example.test";
  service.container_name = "web";
  service.labels = {{"tier", "front"}};
  service.annotations = {{"note", "x"}};
  service.ports = {{.host_ip = "0.0.0.0",
                    .published = 8080,
                    .target = 80,
                    .protocol = Protocol::Udp,
                    .published_last = 8090}};
  service.expose = {"9000"};
  service.networks = {{"front",
                       {.aliases = {"www"},
                        .ipv4_address = "10.0.0.9",
                        .mac_address = "02:00:00:00:00:01",
                        .priority = 3,
                        .gateway_priority = -1}}};
  service.network_mode = "none";
  service.dns = {"1.1.1.1"};
  service.dns_search = {"corp.test"};
  service.dns_options = {"ndots:1"};
  service.extra_hosts = {"db=10.0.0.2"};
  service.volumes = {{.type = MountType::Tmpfs,
                      .source = "s",
                      .target = "/tmp",
                      .read_only = true,
                      .create_host_path = false,
                      .no_copy = true,
                      .tmpfs_bytes = 1u << 20,
                      .tmpfs_mode = 0700}};
  service.read_only = true;
  service.shm_bytes = 64u << 20;
  service.depends_on = {
      {"db", {.condition = DependencyCondition::Healthy, .restart = true, .required = false}}};
  service.healthcheck = HealthCheck{.disable = true,
                                    .test = {"true"},
                                    .interval_ns = 1,
                                    .timeout_ns = 2,
                                    .start_period_ns = 3,
                                    .start_interval_ns = 4,
                                    .retries = 5};
  service.restart = {.condition = RestartCondition::OnFailure, .retries_max = 4};
  service.stop_signal = "SIGINT";
  service.stop_grace_period_ns = 7;
  service.scale = 3;
  service.cpus = 1.5;
  service.memory_bytes = 256u << 20;
  service.pids_limit = -1;
  service.cap_add = {"NET_ADMIN"};
  service.cap_drop = {"ALL"};
  service.privileged = true;
  service.init = true;
  service.stdin_open = true;
  service.tty = true;
  service.ulimits = {{"nofile", {.soft = 10, .hard = -1}}};
  service.sysctls = {{"net.core.somaxconn", "512"}};
  service.boot = BootMode::Cold;
  service.build_machine = true;
  return service;
}

}  // namespace

TEST_CASE("a service with every field set comes back the same from its JSON") {
  const Service service = full_service();
  const nlohmann::json json = to_json(service);
  const auto back = service_from_json(json);
  REQUIRE(back);
  CHECK(to_json(*back) == json);
  CHECK(changes(service, *back).empty());
  // Every field of the list is in the JSON: none equals its default or was forgotten.
  for_each_field<Service>(
      [&](const auto& field) { CHECK_MESSAGE(json.contains(field.name), field.name); });
}

TEST_CASE("the field list is as long as the struct") {
  // Aggregates bind to exactly as many names as they have members; a new member breaks this line.
  const auto& [image, platform, command, entrypoint, environment, working_dir, user, group_add,
               hostname, domainname, container_name, labels, annotations, ports, expose, networks,
               network_mode, dns, dns_search, dns_options, extra_hosts, volumes, read_only,
               shm_bytes, depends_on, healthcheck, restart, stop_signal, stop_grace_period_ns,
               scale, cpus, memory_bytes, pids_limit, cap_add, cap_drop, privileged, init,
               stdin_open, tty, ulimits, sysctls, boot, build_machine] = full_service();
  (void)image;
  CHECK(std::tuple_size_v<decltype(Fields<Service>::list)> == 43);
}

TEST_CASE("a stack comes back the same from its JSON") {
  Stack stack{.name = "shop", .working_dir = "/srv/shop", .files = {"/srv/shop/compose.yaml"}};
  stack.services["web"] = full_service();
  stack.networks["front"] = {.name = "shop_front",
                             .external = true,
                             .internal = true,
                             .subnet = "10.1.0.0/24",
                             .gateway = "10.1.0.1",
                             .labels = {{"a", "b"}}};
  stack.volumes["data"] = {.name = "shop_data", .external = true, .labels = {{"c", "d"}}};
  const auto back = stack_from_json(to_json(stack));
  REQUIRE(back);
  CHECK(to_json(*back) == to_json(stack));
}

TEST_CASE("an empty command is not the same as no command") {
  Service cleared;
  cleared.command = std::vector<std::string>{};
  const auto back = service_from_json(to_json(cleared));
  REQUIRE(back);
  REQUIRE(back->command);
  CHECK(back->command->empty());
  const auto found = changes(Service{}, cleared);
  REQUIRE(found.size() == 1);
  CHECK(found[0].path == "command");
  CHECK(found[0].before == "null");
  CHECK(found[0].after == "[]");
}

TEST_CASE("a variable that is to be removed differs from one that is not named") {
  Service removed;
  removed.environment["A"] = std::nullopt;
  const auto found = changes(Service{}, removed);
  REQUIRE(found.size() == 1);
  CHECK(found[0].path == "environment.A");
  const auto back = service_from_json(to_json(removed));
  REQUIRE(back);
  REQUIRE(back->environment.contains("A"));
  CHECK_FALSE(back->environment.at("A").has_value());
}

TEST_CASE("changes are named by field, sorted, with short texts") {
  Service before = full_service();
  Service after = before;
  after.image = "localhost/hello:2";
  after.environment["A"] = "2";
  after.ports[0].published = 81;
  after.command = {"serve"};
  const auto found = changes(before, after);
  REQUIRE(found.size() == 4);
  CHECK(found[0].path == "command");
  CHECK(found[0].after == R"(["serve"])");
  CHECK(found[1].path == "environment.A");
  CHECK(found[2].path == "image");
  CHECK(found[2].before == R"("localhost/hello:1")");
  CHECK(found[3].path == "ports[0].published");
  CHECK(found[3].before == "8080");
  CHECK(found[3].after == "81");
}

TEST_CASE("unknown keys are ignored, wrong types name the path") {
  CHECK(service_from_json({{"image", "x"}, {"from_the_future", 1}}));
  const auto check_fails_at = [](const nlohmann::json& json, const std::string& path) {
    const auto result = service_from_json(json);
    REQUIRE_FALSE(result);
    CHECK(result.error().code() == base::ErrorCode::InvalidArgument);
    CHECK_MESSAGE(result.error().to_string().find("'" + path + "'") != std::string::npos,
                  result.error().to_string());
  };
  check_fails_at({{"image", 1}}, "image");
  check_fails_at({{"ports", nlohmann::json::array({{{"published", 70'000}}})}},
                 "ports[0].published");
  check_fails_at({{"scale", -1}}, "scale");
  check_fails_at({{"restart", {{"condition", "sometimes"}}}}, "restart.condition");
  check_fails_at({{"networks", {{"front", {{"aliases", "www"}}}}}}, "networks.front.aliases");
  CHECK_FALSE(stack_from_json(nlohmann::json::array()));
  CHECK_FALSE(network_from_json("text"));
  CHECK_FALSE(volume_from_json(nullptr));
}
