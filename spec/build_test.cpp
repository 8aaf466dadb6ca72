#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "spec/json.h"
#include "spec/load.h"

namespace {

spec::Loaded load(const std::map<std::string, std::string>& files) {
  spec::LoadOptions options;
  for (const auto& [path, text] : files) options.files.push_back(path);
  options.home_directory = "/home/me";
  options.environment = {{"VERSION", "7"}};
  options.read_file = [files](const std::string& path) -> base::Result<std::string> {
    const auto found = files.find(path);
    if (found == files.end()) return base::fail(base::ErrorCode::NotFound, "no file '{}'", path);
    return found->second;
  };
  return spec::load(options);
}

spec::Stack stack(const std::string& text) {
  const spec::Loaded loaded = load({{"/p/shop/compose.yaml", text}});
  REQUIRE(loaded.stack);
  return *loaded.stack;
}

std::string first_error(const std::string& text) {
  const spec::Loaded loaded = load({{"/p/shop/compose.yaml", text}});
  for (const spec::Diagnostic& one : loaded.diagnostics)
    if (one.severity == spec::Severity::Error) return one.address + ": " + one.summary;
  return "";
}

}  // namespace

TEST_CASE("a build names the service's image after project and service") {
  const spec::Stack shop = stack("services: {web: {build: ./web}}");

  CHECK(shop.services.at("web").image == "shop-web");
  CHECK(shop.builds.at("web").context == "/p/shop/web");
}

TEST_CASE("an image that is named is what the build makes") {
  const spec::Stack shop = stack("services: {web: {image: 'shop:1', build: .}}");

  CHECK(shop.services.at("web").image == "shop:1");
  CHECK(shop.builds.at("web").context == "/p/shop");
}

TEST_CASE("every attribute of a build is read") {
  const spec::Stack shop = stack(R"(services:
  web:
    build:
      context: src
      dockerfile: Dockerfile.prod
      args: {VERSION: , MODE: fast, ABSENT: }
      target: final
      labels: [a=b]
      tags: ['shop:2', 'shop:3']
      platforms: [linux/amd64, linux/arm64]
      no_cache: true
      pull: true
      network: none
      shm_size: 128m
      ssh: [default, work=/run/agent]
      cache_from: ['type=local,src=/c']
      cache_to: ['type=local,dest=/c']
      additional_contexts: {lib: ../lib, base: 'docker-image://alpine'}
      extra_hosts: ['db=10.0.0.1']
      privileged: true
)");

  const spec::Build& build = shop.builds.at("web");
  CHECK(build.context == "/p/shop/src");
  CHECK(build.dockerfile == "Dockerfile.prod");
  CHECK(build.args == std::map<std::string, std::string>{{"VERSION", "7"}, {"MODE", "fast"}});
  CHECK(build.target == "final");
  CHECK(build.labels == spec::Labels{{"a", "b"}});
  CHECK(build.tags == std::vector<std::string>{"shop:2", "shop:3"});
  CHECK(build.platforms == std::vector<std::string>{"linux/amd64", "linux/arm64"});
  CHECK(build.no_cache);
  CHECK(build.pull);
  CHECK(build.network == "none");
  CHECK(build.shm_bytes == 128u << 20);
  CHECK(build.ssh == std::vector<std::string>{"default", "work=/run/agent"});
  CHECK(build.cache_from == std::vector<std::string>{"type=local,src=/c"});
  CHECK(build.cache_to == std::vector<std::string>{"type=local,dest=/c"});
  CHECK(build.additional_contexts ==
        std::map<std::string, std::string>{{"base", "docker-image://alpine"}, {"lib", "/p/lib"}});
  CHECK(build.extra_hosts == std::vector<std::string>{"db=10.0.0.1"});
  CHECK(build.privileged);
}

TEST_CASE("a text and a map of two files meet in one build") {
  const spec::Loaded loaded =
      load({{"/p/shop/a.yaml", "services: {web: {build: ./web}}"},
            {"/p/shop/b.yaml", "services: {web: {build: {target: test}}}"}});

  REQUIRE(loaded.stack);
  CHECK(loaded.stack->builds.at("web").context == "/p/shop/web");
  CHECK(loaded.stack->builds.at("web").target == "test");
}

TEST_CASE("an address stays an address") {
  const spec::Stack shop = stack("services: {web: {build: 'https://h/x.git#main'}}");

  CHECK(shop.builds.at("web").context == "https://h/x.git#main");
}

TEST_CASE("a build travels as JSON") {
  const spec::Stack shop = stack("services: {web: {build: {context: ., args: {A: b}}}}");

  const auto again = spec::stack_from_json(spec::to_json(shop));
  REQUIRE(again);
  CHECK(again->builds.at("web").args.at("A") == "b");
}

TEST_CASE("what a build cannot mean is refused") {
  CHECK(first_error("services: {web: {build: {network: host}}}") ==
        "services.web.build.network: a build cannot use the network 'host'");
  CHECK(first_error("services: {web: {build: {dockerfile: a, dockerfile_inline: FROM b}}}") ==
        "services.web.build.dockerfile_inline: cannot stand beside 'dockerfile'");
  CHECK(first_error("services: {web: {build: {isolation: hyperv}}}") != "");
}
