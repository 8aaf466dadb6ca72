/// What of a stack's build section is sent to the daemon.

#include "cli/build_options.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/file.h"
#include "base/text.h"

namespace {

using nlohmann::json;

struct World {
  World() {
    REQUIRE(base::make_directories(folder));
    files.stack.emplace();
    files.stack->services["web"].image = "shop-web";
    files.stack->services["base"].image = "shop-base";
    files.stack->builds["web"].context = folder;
    context.surroundings.working_directory = folder;
    context.surroundings.home_directory = folder;
  }
  ~World() { CHECK(base::remove_tree(folder)); }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  base::Result<json> request() const { return cli::stack_build_request(context, files, "web"); }

  const std::string folder = "/tmp/container-build-options-" + base::random_hex(8);
  cli::StackFiles files;
  cli::Context context{
      .paths = {}, .client = cli::HttpClient("/nowhere"), .surroundings = {}, .root = nullptr};
};

}  // namespace

TEST_CASE("secrets of a stack are read on this side, with what the file says of their owner") {
  World world;
  REQUIRE(base::write_file_atomically(world.folder + "/token", "from a file"));
  world.files.build_secrets["web"] = {
      {.id = "token", .file = world.folder + "/token", .variable = {}, .mode = 0440, .user = 5},
      {.id = "key", .file = {}, .variable = "KEY", .value = "of a variable"}};

  const auto request = world.request();
  REQUIRE(request);
  CHECK(request->at("secrets") ==
        json::array({{{"id", "token"},
                      {"data", base::encode_base64("from a file")},
                      {"mode", 0440},
                      {"uid", 5}},
                     {{"id", "key"}, {"data", base::encode_base64("of a variable")}}}));
}

TEST_CASE("a secret that is not there says which, and what to do") {
  World world;
  world.files.build_secrets["web"] = {{.id = "key", .file = {}, .variable = "KEY"}};

  const auto request = world.request();
  REQUIRE_FALSE(request);
  CHECK(request.error().to_string() ==
        "service 'web': secret 'key': neither the environment nor an env file has KEY; set it, or "
        "name a file");
}

TEST_CASE("a tag that names no registry is of the default one, as `run` will look for it") {
  World world;
  REQUIRE(base::make_directories(world.folder + "/.config/container"));
  REQUIRE(base::write_file_atomically(world.folder + "/.config/container/config.toml",
                                      "[registry]\ndomain = \"reg.example\"\n"));
  world.context.surroundings.read_file = [](const std::string& path) {
    return base::read_file(path, 1u << 20);
  };
  world.files.stack->builds["web"].tags = {"team/web:2", "ghcr.io/team/web:3"};

  const auto request = world.request();
  REQUIRE(request);
  CHECK(request->at("tags") ==
        json::array({"reg.example/shop-web", "reg.example/team/web:2", "ghcr.io/team/web:3"}));

  cli::Parsed parsed;
  parsed.values["tag"] = {"app:1"};
  const auto options = cli::read_build_options(world.context, parsed);
  REQUIRE_MESSAGE(options, options.error().to_string());
  CHECK(options->request.at("tags") == json::array({"reg.example/app:1"}));
  CHECK(options->tags == std::vector<std::string>{"app:1"});
}

TEST_CASE("another service's image is a context that no registry is asked for") {
  World world;
  world.files.stack->builds["web"].additional_contexts = {{"below", "service:base"},
                                                          {"src", "https://h/x.git#v1:a"}};

  const auto request = world.request();
  REQUIRE(request);
  CHECK(request->at("contexts") ==
        json({{"below", "docker-image://shop-base"}, {"src", "https://h/x.git#v1:a"}}));
  CHECK(request->at("local_images") == json::array({"shop-base"}));
}
