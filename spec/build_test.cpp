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
      no_cache_filter: [base, '1']
      pull: true
      network: none
      shm_size: 128m
      ulimits: {nofile: {soft: 10, hard: 20}, core: -1}
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
  CHECK(build.no_cache_filter == std::vector<std::string>{"base", "1"});
  CHECK(build.pull);
  CHECK(build.network == "none");
  CHECK(build.shm_bytes == 128u << 20);
  REQUIRE(build.ulimits.contains("nofile"));
  CHECK(build.ulimits.at("nofile").soft == 10);
  CHECK(build.ulimits.at("nofile").hard == 20);
  REQUIRE(build.ulimits.contains("core"));
  CHECK(build.ulimits.at("core").hard == -1);
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

TEST_CASE("a secret of a build says where it is, beside the stack and not in it") {
  const spec::Loaded loaded = load({{"/p/shop/compose.yaml", R"(services:
  web:
    build:
      context: .
      secrets:
        - token
        - {source: key, target: the-key, uid: 5, gid: "6", mode: 0440}
        - unset
secrets:
  token: {file: ./secret/token}
  key: {environment: VERSION}
  unset: {environment: NOBODY_SET_THIS}
  unused: {file: /elsewhere}
)"}});

  REQUIRE(loaded.stack);
  const std::vector<spec::BuildSecret>& secrets = loaded.build_secrets.at("web");
  REQUIRE(secrets.size() == 3);
  CHECK(secrets[0].id == "the-key");
  CHECK(secrets[0].value == "7");
  CHECK(secrets[0].user == 5u);
  CHECK(secrets[0].group == 6u);
  CHECK(secrets[0].mode == 0440u);
  CHECK(secrets[1].id == "token");
  CHECK(secrets[1].file == "/p/shop/secret/token");
  CHECK_FALSE(secrets[1].mode);
  CHECK(secrets[2].variable == "NOBODY_SET_THIS");
  CHECK_FALSE(secrets[2].value);
  const std::string sent = spec::to_json(*loaded.stack).dump();
  CHECK(sent.find("the-key") == std::string::npos);
  CHECK(sent.find("secret/token") == std::string::npos);
}

TEST_CASE("secrets of two files meet, and the later of one id counts") {
  const spec::Loaded loaded =
      load({{"/p/shop/a.yaml",
             "services: {web: {build: {secrets: [a]}}}\n"
             "secrets: {a: {file: x}, b: {file: y}}"},
            {"/p/shop/b.yaml", "services: {web: {build: {secrets: [{source: b, target: a}]}}}"}});

  REQUIRE(loaded.stack);
  REQUIRE(loaded.build_secrets.at("web").size() == 1);
  CHECK(loaded.build_secrets.at("web")[0].file == "/p/shop/y");
}

TEST_CASE("what another service builds is a context, whatever folders are called") {
  const spec::Stack shop = stack(R"(services:
  base: {build: ./base}
  web: {build: {context: ., additional_contexts: {base: 'service:base', src: 'git@h:x.git#v1'}}}
)");

  CHECK(shop.builds.at("web").additional_contexts ==
        std::map<std::string, std::string>{{"base", "service:base"}, {"src", "git@h:x.git#v1"}});
}

TEST_CASE("agents of a build are looked for from the project on, in every form") {
  CHECK(stack("services: {web: {build: {ssh: ['a=run/x', default]}}}").builds.at("web").ssh ==
        std::vector<std::string>{"a=/p/shop/run/x", "default"});
  CHECK(stack("services: {web: {build: {ssh: 'a=run/x'}}}").builds.at("web").ssh ==
        std::vector<std::string>{"a=/p/shop/run/x"});
  CHECK(stack("services: {web: {build: {ssh: {a: run/x}}}}").builds.at("web").ssh ==
        std::vector<std::string>{"a=/p/shop/run/x"});
}

TEST_CASE("what holds here anyway may be written") {
  CHECK(stack("services: {web: {build: {entitlements: [security.insecure], isolation: default}}}")
            .builds.contains("web"));
}

TEST_CASE("a secret that cannot be found is told where it is written") {
  CHECK(first_error("services: {web: {build: {secrets: [tokne]}}}\nsecrets: {token: {file: x}}") ==
        "services.web.build.secrets[0]: refers to undefined secret tokne");
  CHECK(first_error("services: {web: {build: {secrets: [{target: x}]}}}") ==
        "services.web.build.secrets[0]: 'source' is missing");
  CHECK(first_error("services: {web: {image: x}}\nsecrets: {a: {file: x, environment: Y}}") ==
        "secrets.a: has both 'file' and 'environment'");
  CHECK(first_error("services: {web: {image: x}}\nsecrets: {a: {x-why: 1}}") ==
        "secrets.a: says nowhere where it is");
  CHECK(first_error("services: {web: {image: x}}\nsecrets: {a: {file: x, external: true}}")
            .starts_with("secrets.a.external: not supported"));
  CHECK(first_error("services: {web: {build: {secrets: [{source: a, mode: 440}]}}}\n"
                    "secrets: {a: {file: x}}") ==
        "services.web.build.secrets[0].mode: a mode must be written in octal");
}

TEST_CASE("builds that cannot be put in an order are refused") {
  CHECK(first_error("services: {a: {build: {additional_contexts: {x: 'service:nobody'}}}}") ==
        "services.a.build.additional_contexts: refers to undefined service nobody");
  CHECK(first_error("services:\n"
                    "  a: {build: {additional_contexts: {x: 'service:b'}}}\n"
                    "  b: {build: {additional_contexts: {x: 'service:a'}}}\n") ==
        "services.a.build.additional_contexts: builds that wait for each other");
  CHECK(first_error("services:\n"
                    "  a: {build: {additional_contexts: {x: 'service:b', y: 'service:c'}}}\n"
                    "  b: {build: {additional_contexts: {x: 'service:c'}}}\n"
                    "  c: {image: c}\n")
            .empty());
}

TEST_CASE("what a build cannot mean is refused") {
  CHECK(first_error("services: {web: {build: {entitlements: [network.host]}}}") ==
        "services.web.build.entitlements[0]: a build cannot be entitled to 'network.host'");
  CHECK(first_error("services: {web: {build: {additional_contexts: {a: 'oci-layout://x'}}}}") ==
        "services.web.build.additional_contexts.a: 'oci-layout://x' is no context");
  CHECK(
      first_error("services: {web: {platform: linux/arm64, build: {platforms: [linux/amd64]}}}") ==
      "services.web.platform: 'linux/arm64' is not built");
  CHECK(first_error("services: {web: {build: {network: host}}}") ==
        "services.web.build.network: a build cannot use the network 'host'");
  CHECK(first_error("services: {web: {build: {dockerfile: a, dockerfile_inline: FROM b}}}") ==
        "services.web.build.dockerfile_inline: cannot stand beside 'dockerfile'");
  CHECK(first_error("services: {web: {build: {isolation: hyperv}}}") != "");
}
