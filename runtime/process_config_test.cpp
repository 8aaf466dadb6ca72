#include "runtime/process_config.h"

#include <algorithm>

#include <doctest/doctest.h>

using runtime::process_arguments;
using runtime::process_capabilities;
using runtime::process_environment;
using Words = std::vector<std::string>;

namespace {

reconciler::ImageRuntimeConfig image() {
  reconciler::ImageRuntimeConfig made;
  made.entrypoint = {"/entry"};
  made.command = {"serve", "--now"};
  made.environment = {"A=image", "B=image"};
  return made;
}

bool contains(const Words& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

TEST_CASE("the image's entrypoint and command run when the service says nothing") {
  CHECK(process_arguments(image(), {}).value() == Words{"/entry", "serve", "--now"});
}

TEST_CASE("a service's command replaces the image's and keeps its entrypoint") {
  spec::Service service;
  service.command = Words{"migrate"};
  CHECK(process_arguments(image(), service).value() == Words{"/entry", "migrate"});
}

TEST_CASE("a service's entrypoint drops the image's command") {
  spec::Service service;
  service.entrypoint = Words{"sh"};
  CHECK(process_arguments(image(), service).value() == Words{"sh"});
}

TEST_CASE("an image without a command needs one from the service") {
  const auto refused = process_arguments({}, {});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code() == base::ErrorCode::InvalidArgument);
}

TEST_CASE("a service overrides and removes variables of the image, in place") {
  spec::Service service;
  service.environment = {{"A", "own"}, {"B", std::nullopt}, {"C", "new"}};
  CHECK(
      process_environment(image(), service) ==
      Words{"A=own", "C=new", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"});
}

TEST_CASE("TERM is set at a terminal, unless somebody chose one") {
  spec::Service service;
  service.tty = true;
  CHECK(contains(process_environment({}, service), "TERM=xterm"));
  service.environment = {{"TERM", "vt100"}};
  CHECK_FALSE(contains(process_environment({}, service), "TERM=xterm"));
}

TEST_CASE("the default capabilities are the fourteen of the reference") {
  CHECK(process_capabilities({}).value().size() == 14);
}

TEST_CASE("drop ALL comes first, then additions, then single drops") {
  spec::Service service;
  service.cap_drop = {"ALL", "net_raw"};
  service.cap_add = {"NET_ADMIN", "CAP_NET_RAW"};
  CHECK(process_capabilities(service).value() == Words{"CAP_NET_ADMIN"});
}

TEST_CASE("an unknown capability is refused by name") {
  spec::Service service;
  service.cap_add = {"NET_ADMIM"};
  const auto refused = process_capabilities(service);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().cause().find("NET_ADMIM") != std::string::npos);
}

TEST_CASE("a health check takes from the image what the service leaves out") {
  reconciler::ImageRuntimeConfig with = image();
  with.healthcheck.test = {"check"};
  with.healthcheck.retries = 7;
  spec::Service service;
  service.healthcheck = spec::HealthCheck{.interval_ns = 1'000};
  const guest::HealthConfig joined = runtime::health_config(with, service);
  CHECK(joined.test == Words{"check"});
  CHECK(joined.retries == 7);
  CHECK(joined.interval_ns == 1'000);
}

TEST_CASE("a disabled health check has no test") {
  reconciler::ImageRuntimeConfig with = image();
  with.healthcheck.test = {"check"};
  spec::Service service;
  service.healthcheck = spec::HealthCheck{.disable = true};
  CHECK(runtime::health_config(with, service).test.empty());
}

TEST_CASE("an exec inherits the main process's environment and user") {
  guest::ProcessConfig main;
  main.environment = {"A=1", "B=2"};
  main.user = "app";
  reconciler::ExecRequest request;
  request.arguments = {"id"};
  request.environment = {"B=3"};
  const guest::ProcessConfig made = runtime::exec_process_config(main, request);
  CHECK(made.environment == Words{"A=1", "B=3"});
  CHECK(made.user == "app");
  CHECK(made.arguments == Words{"id"});
}

TEST_CASE("layers are the partitions after the modules, lowest first") {
  reconciler::StartRequest request;
  request.setup.id = "web";
  request.setup.image = image();
  request.setup.image.layer_disks = {"/a", "/b"};
  const guest::ContainerConfig config = runtime::container_config(request).value();
  CHECK(config.layers == std::vector<uint32_t>{2, 3});
  CHECK(config.hostname == "web");
}

TEST_CASE("signals are known by name and by number") {
  CHECK(runtime::signal_number("SIGINT").value() == 2);
  CHECK(runtime::signal_number("QUIT").value() == 3);
  CHECK(runtime::signal_number("9").value() == 9);
  CHECK(runtime::signal_number("SIGRTMIN+3").value() == 37);
  CHECK_FALSE(runtime::signal_number("SIGNOPE"));
  CHECK_FALSE(runtime::signal_number("0"));
}
