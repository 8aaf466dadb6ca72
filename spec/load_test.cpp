#include "spec/load.h"

#include <set>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "spec/json.h"

namespace {

using spec::Loaded;
using spec::LoadOptions;
using Files = std::map<std::string, std::string>;

Loaded load(const Files& files, LoadOptions options = {}) {
  if (options.files.empty()) options.files = {"/p/shop/compose.yaml"};
  options.home_directory = "/home/me";
  options.read_file = [files](const std::string& path) -> base::Result<std::string> {
    const auto found = files.find(path);
    if (found == files.end()) return base::fail(base::ErrorCode::NotFound, "no file '{}'", path);
    return found->second;
  };
  return spec::load(options);
}

Loaded load_one(const std::string& text) { return load({{"/p/shop/compose.yaml", text}}); }

/// Every error, one a line, with where it is.
std::string errors_of(const Loaded& loaded) {
  std::string all;
  for (const spec::Diagnostic& one : loaded.diagnostics)
    if (one.severity == spec::Severity::Error)
      all += fmt::format("{}:{} {}: {}\n", one.position.line, one.position.column, one.address,
                         one.summary);
  return all;
}

spec::Stack stack_of(const Loaded& loaded) {
  REQUIRE_MESSAGE(loaded.stack, errors_of(loaded));
  return *loaded.stack;
}

}  // namespace

TEST_CASE("pull policies are beside the services, and make none of them differ") {
  const auto with = [](const std::string& policy) {
    return load_one("services:\n  a:\n    image: x\n" + policy);
  };
  const Loaded loaded = with("    pull_policy: always\n");

  CHECK(loaded.pull_policies ==
        std::map<std::string, spec::PullPolicy>{{"a", spec::PullPolicy::Always}});
  CHECK(spec::to_json(stack_of(loaded)) == spec::to_json(stack_of(with(""))));
  CHECK(with("").pull_policies.empty());
  CHECK(with("    pull_policy: if_not_present\n").pull_policies.at("a") ==
        spec::PullPolicy::Missing);
  CHECK(with("    pull_policy: never\n").pull_policies.at("a") == spec::PullPolicy::Never);
  CHECK(with("    build: .\n    pull_policy: build\n").pull_policies.at("a") ==
        spec::PullPolicy::Build);
}

TEST_CASE("what many files say of logs and reservations is taken as it is meant") {
  const auto with = [](const std::string& lines) {
    return load_one("services:\n  a:\n    image: x\n" + lines);
  };

  CHECK(errors_of(with("    logging: {driver: json-file, options: {max-size: 10m}}\n")).empty());
  CHECK(errors_of(with("    logging: {driver: fluentd}\n")) ==
        "4:23 services.a.logging.driver: logs cannot go to 'fluentd'\n");
  CHECK(errors_of(with("    mem_reservation: 64m\n")).empty());
  CHECK(errors_of(with("    deploy: {resources: {reservations: {cpus: '0.5', memory: 64M}}}\n"))
            .empty());
  CHECK(errors_of(with("    deploy: {resources: {reservations: {devices: []}}}\n")) ==
        "4:41 services.a.deploy.resources.reservations.devices: not supported by this version\n");
}

TEST_CASE("a pull policy that cannot be followed is refused") {
  const auto errors = [](const std::string& lines) {
    return errors_of(load_one("services:\n  a:\n    image: x\n    pull_policy: " + lines));
  };

  CHECK(errors("daily\n") ==
        "4:18 services.a.pull_policy: 'daily' is not supported by this version\n");
  CHECK(errors("every_12h\n") ==
        "4:18 services.a.pull_policy: 'every_12h' is not supported by this version\n");
  CHECK(errors("build\n") == "4:18 services.a.pull_policy: there is nothing to build\n");
  CHECK(errors("always\n    build: .\n") ==
        "4:18 services.a.pull_policy: an image that is built here is looked for in no registry\n");
}

TEST_CASE("the hello example is read as it is meant") {
  const std::string path = CONTAINER_SOURCE_DIR "/examples/stacks/hello/compose.yaml";
  LoadOptions options;
  options.files = {path};
  const spec::Stack stack =
      stack_of(load({{path, base::read_file(path, 1u << 20).value()}}, options));
  CHECK(stack.name == "hello");
  REQUIRE(stack.services.size() == 2);
  const spec::Service& web = stack.services.at("web");
  CHECK(web.image == "localhost/hello:1");
  REQUIRE(web.ports.size() == 1);
  CHECK(web.ports[0].host_ip == "127.0.0.1");
  CHECK(web.ports[0].published == 8080);
  CHECK(web.ports[0].target == 80);
  REQUIRE(web.volumes.size() == 1);
  CHECK(web.volumes[0].source == CONTAINER_SOURCE_DIR "/examples/stacks/hello/www");
  CHECK(web.volumes[0].read_only);
  CHECK(web.healthcheck->interval_ns == 2'000'000'000);
  const spec::Service& visitor = stack.services.at("visitor");
  CHECK(visitor.depends_on.at("web").condition == spec::DependencyCondition::Healthy);
  CHECK(visitor.restart.condition == spec::RestartCondition::OnFailure);
  CHECK(visitor.networks.contains("default"));
  CHECK(stack.networks.at("default").name == "hello_default");
}

std::vector<std::string> ports_of(const std::string& list, const std::string& more = {}) {
  const spec::Stack stack =
      stack_of(load_one("services:\n  web:\n    image: x\n" + more + "    ports: " + list + "\n"));
  std::vector<std::string> texts;
  for (const spec::Port& port : stack.services.at("web").ports)
    texts.push_back(fmt::format("{} {}-{} to {}/{}", port.host_ip, port.published,
                                port.published_last, port.target,
                                port.protocol == spec::Protocol::Tcp ? "tcp" : "udp"));
  return texts;
}

TEST_CASE("a range of host ports for one of the container is a choice, in every form") {
  using Texts = std::vector<std::string>;
  CHECK(ports_of("['8000-8010:80']") == Texts{"127.0.0.1 8000-8010 to 80/tcp"});
  CHECK(ports_of("['0.0.0.0:8000-8010:53/UDP']") == Texts{"0.0.0.0 8000-8010 to 53/udp"});
  CHECK(ports_of("['[::1]:8000-8010:80']") == Texts{"::1 8000-8010 to 80/tcp"});
  CHECK(ports_of("[{target: 80, published: '8000-8010', host_ip: 10.0.0.1, mode: host}]") ==
        Texts{"10.0.0.1 8000-8010 to 80/tcp"});
  CHECK(ports_of("['8000-8000:80']") == Texts{"127.0.0.1 8000-0 to 80/tcp"});
  CHECK(ports_of("['8000-8010:80']", "    scale: 11\n").size() == 1);
}

TEST_CASE("equal ranges on both sides are pairs, a range of the container alone gets free ports") {
  using Texts = std::vector<std::string>;
  CHECK(ports_of("['127.0.0.1:8000-8001:80-81/udp']") ==
        Texts{"127.0.0.1 8000-0 to 80/udp", "127.0.0.1 8001-0 to 81/udp"});
  CHECK(ports_of("['80-81']") == Texts{"127.0.0.1 0-0 to 80/tcp", "127.0.0.1 0-0 to 81/tcp"});
  CHECK(ports_of("['127.0.0.1::80']") == Texts{"127.0.0.1 0-0 to 80/tcp"});
}

TEST_CASE("a port that is written twice is published once") {
  using Texts = std::vector<std::string>;
  CHECK(ports_of("['8080:80', {target: 80, published: 8080, protocol: tcp}, '8080:80/tcp']") ==
        Texts{"127.0.0.1 8080-0 to 80/tcp"});
}

TEST_CASE("more replicas than a choice has ports are told") {
  const Loaded loaded =
      load_one("services:\n  web:\n    image: x\n    scale: 3\n    ports: ['8000-8001:80']\n");
  CHECK_FALSE(loaded.stack);
  CHECK(errors_of(loaded).find("3 replicas cannot share the 2 host ports 8000-8001") !=
        std::string::npos);
}

TEST_CASE("a port of another service within a choice is warned of, not refused") {
  const std::string web = "services:\n  web: {image: x, ports: ['8000-8010:80']}\n";
  const Loaded contested = load_one(web + "  api: {image: x, ports: ['8005:80']}\n");
  const Loaded apart = load_one(web + "  api: {image: x, ports: ['8005:80/udp', '8011:80']}\n");

  REQUIRE(contested.stack);
  REQUIRE(contested.diagnostics.size() == 1);
  CHECK(contested.diagnostics[0].severity == spec::Severity::Warning);
  CHECK(contested.diagnostics[0].summary ==
        "host port 8005 of service 'api' lies in the range 8000-8010");
  CHECK(apart.diagnostics.empty());
}

TEST_CASE("a service needs an image, and one mistake does not hide another") {
  const Loaded loaded = load_one(
      "services:\n"
      "  web:\n"
      "    ports: [\"80:web\"]\n"
      "  db:\n"
      "    image: postgres\n"
      "    depends_on: [cache]\n"
      "    restrat: always\n");
  const std::string errors = errors_of(loaded);
  CHECK_FALSE(loaded.stack);
  CHECK(errors.find("2:3 services.web: has no image") != std::string::npos);
  CHECK(errors.find("services.web.ports") != std::string::npos);
  CHECK(errors.find("services.db.depends_on") != std::string::npos);
  CHECK(errors.find("7:5 services.db.restrat") != std::string::npos);
}

TEST_CASE("a later file is laid over an earlier one") {
  LoadOptions options;
  options.files = {"/p/shop/a.yaml", "/p/shop/b.yaml"};
  const spec::Stack stack =
      stack_of(load({{"/p/shop/a.yaml", "services: {web: {image: a, environment: {X: 1, Y: 2}}}"},
                     {"/p/shop/b.yaml", "services: {web: {image: b, environment: [Y=3, Z=4]}}"}},
                    options));
  const spec::Service& web = stack.services.at("web");
  CHECK(web.image == "b");
  CHECK(web.environment.at("X") == "1");
  CHECK(web.environment.at("Y") == "3");
  CHECK(web.environment.at("Z") == "4");
}

TEST_CASE("variables come from the caller before the .env file, env_file before neither") {
  LoadOptions options;
  options.environment = {{"TAG", "caller"}};
  const spec::Stack stack = stack_of(
      load({{"/p/shop/compose.yaml",
             "services: {web: {image: \"x:${TAG}-${OTHER:-none}-${FROM_FILE}\", env_file: web.env,"
             " environment: {A: own}}}"},
            {"/p/shop/.env", "TAG=file\nFROM_FILE=env\n"},
            {"/p/shop/web.env", "A=file\nB='quoted value'\n"}},
           options));
  const spec::Service& web = stack.services.at("web");
  CHECK(web.image == "x:caller-none-env");
  CHECK(web.environment.at("A") == "own");
  CHECK(web.environment.at("B") == "quoted value");
}

TEST_CASE("the project is named by the caller, the file or the folder") {
  LoadOptions options;
  CHECK(stack_of(load_one("services: {a: {image: x}}")).name == "shop");
  CHECK(stack_of(load_one("name: mine\nservices: {a: {image: x}}")).name == "mine");
  options.project_name = "given";
  CHECK(stack_of(load({{"/p/shop/compose.yaml", "services: {a: {image: x}}"}}, options)).name ==
        "given");
}

TEST_CASE("TOML says the same as YAML") {
  LoadOptions options;
  options.files = {"/p/shop/stack.toml"};
  const spec::Stack stack = stack_of(
      load({{"/p/shop/stack.toml",
             "[services.web]\nimage = \"x\"\nports = [\"8080:80\"]\ncommand = [\"run\"]\n"}},
           options));
  CHECK(stack.services.at("web").ports[0].published == 8080);
  CHECK(stack.services.at("web").command == std::vector<std::string>{"run"});
}

TEST_CASE("what cannot be read is a problem with a place, never a crash") {
  for (const char* text :
       {"", "services:", "services: []", "- a", "a: b: c", "\t", "services: {a: 1}",
        "services: {a: {image: [1]}}", "services: &a {b: *a}", "\xff\xfe",
        "services: {a: {image: x, ports: 80}}"}) {
    const Loaded loaded = load_one(text);
    CHECK_MESSAGE(!loaded.stack, text);
    CHECK_MESSAGE(!loaded.diagnostics.empty(), text);
  }
  CHECK_FALSE(load({}).stack);
}

TEST_CASE("the stack file is looked for here, then above, with its override beside it") {
  const auto find = [](const std::set<std::string>& present, const std::string& folder) {
    return spec::discover(folder, [&](const std::string& path) { return present.contains(path); });
  };
  CHECK(find({"/a/compose.yaml", "/a/compose.override.yaml"}, "/a/b/c") ==
        std::vector<std::string>{"/a/compose.yaml", "/a/compose.override.yaml"});
  CHECK(find({"/a/b/docker-compose.yml", "/a/compose.yaml"}, "/a/b") ==
        std::vector<std::string>{"/a/b/docker-compose.yml"});
  CHECK(find({"/a/stack.toml"}, "/a") == std::vector<std::string>{"/a/stack.toml"});
  CHECK(find({}, "/a/b").empty());
}

TEST_CASE("what a folder holds beside the stack file that is used can be told") {
  const std::set<std::string> present = {"/a/compose.yaml",         "/a/docker-compose.yml",
                                         "/a/stack.toml",           "/compose.yaml",
                                         "/a/compose.override.yml", "/a/compose.override.yaml"};
  const auto exists = [&](const std::string& path) { return present.contains(path); };
  CHECK(spec::passed_over(spec::discover("/a/b", exists), exists) ==
        std::vector<std::string>{"/a/docker-compose.yml", "/a/stack.toml",
                                 "/a/compose.override.yml"});
  CHECK(spec::passed_over({"/compose.yaml"}, exists).empty());
  CHECK(spec::passed_over({}, exists).empty());
}

TEST_CASE("the variables of a project are the caller's, then those of its env files") {
  spec::LoadOptions options;
  options.project_directory = "/p";
  options.environment = {{"FROM", "the caller"}};
  options.read_file = [](const std::string& path) -> base::Result<std::string> {
    if (path == "/p/.env")
      return std::string("FROM=file\nCOMPOSE_FILE=${FROM}.yaml\nbroken line\n");
    return base::fail(base::ErrorCode::NotFound, "no such file");
  };
  CHECK(spec::project_environment(options) ==
        std::map<std::string, std::string>{{"FROM", "the caller"},
                                           {"COMPOSE_FILE", "the caller.yaml"}});
  options.env_files = {"/absent"};
  CHECK(spec::project_environment(options).size() == 1);
}
