#include "cli/registry_settings.h"

#include <cstdlib>

#include <sys/stat.h>

#include <doctest/doctest.h>

#include "base/file.h"
#include "base/json.h"
#include "cli/transfer_view.h"

namespace {

using nlohmann::json;

/// A user with a home of their own.
struct User {
  User() {
    REQUIRE(::mkdtemp(home.data()) != nullptr);
    surroundings.home_directory = home;
    surroundings.environment = {{"PATH", home + "/bin"}};
  }
  ~User() { (void)base::remove_tree(home); }
  void write(const std::string& path, const std::string& text, unsigned mode = 0600) const {
    const std::string whole = home + "/" + path;
    REQUIRE(base::make_directories(whole.substr(0, whole.rfind('/'))));
    REQUIRE(base::write_file_atomically(whole, text, mode));
  }
  json access(const std::string& reference) const {
    const cli::RegistryConfig config = cli::read_registry_config(surroundings).value();
    return cli::registry_access(surroundings, config, cli::Parsed(), {reference}).value();
  }
  std::string home = "/tmp/container-registry-test-XXXXXX";
  cli::Surroundings surroundings;
};

}  // namespace

TEST_CASE("a reference names its registry as everybody reads it") {
  CHECK(cli::registry_of("alpine").empty());
  CHECK(cli::registry_of("library/alpine").empty());
  CHECK(cli::registry_of("ghcr.io/a/b:1") == "ghcr.io");
  CHECK(cli::registry_of("localhost/a") == "localhost");
  CHECK(cli::registry_of("127.0.0.1:5000/a") == "127.0.0.1:5000");
  CHECK(cli::canonical_registry("https://index.docker.io/v1/") == "docker.io");
  cli::RegistryConfig config;
  CHECK(cli::with_registry("alpine", config) == "alpine");
  config.domain = "reg.example:5000";
  CHECK(cli::with_registry("alpine:3", config) == "reg.example:5000/alpine:3");
  CHECK(cli::with_registry("ghcr.io/a/b", config) == "ghcr.io/a/b");
  CHECK(cli::name_here("alpine", config) == "reg.example:5000/alpine");
  CHECK(cli::name_here("0123456789ab", config) == "0123456789ab");
  CHECK(cli::name_here("sha256:00", config) == "sha256:00");
}

TEST_CASE("config.toml gives hosts their mirrors and keys, and says where it is wrong") {
  const User user;
  user.write("ca.pem", "-----BEGIN CERTIFICATE-----\n");
  user.write(".config/container/config.toml",
             "[registry]\ndomain = \"reg.example\"\n[registry.hosts.\"docker.io\"]\n"
             "mirrors = [\"https://mirror.example\"]\nca = \"" +
                 user.home + "/ca.pem\"\ninsecure = true\n[other]\nkey = 1\n");

  CHECK(cli::read_registry_config(user.surroundings)->domain == "reg.example");
  const json access = user.access("docker.io/library/alpine");
  CHECK(access["hosts"]["docker.io"]["mirrors"] == json::array({"https://mirror.example"}));
  CHECK(access["hosts"]["docker.io"]["ca"] == "-----BEGIN CERTIFICATE-----\n");
  CHECK(access["hosts"]["docker.io"]["insecure"] == true);
  CHECK(cli::write_default_registry(user.surroundings, "other.example"));
  CHECK(cli::read_registry_config(user.surroundings)->domain == "other.example");
  CHECK(cli::write_default_registry(user.surroundings, std::nullopt));
  CHECK(cli::read_registry_config(user.surroundings)->domain == "reg.example");

  user.write(".config/container/config.toml", "[registry.hosts.\"a.b\"]\n\nmirror = []\n");
  const std::string problem = cli::read_registry_config(user.surroundings).error().to_string();
  CHECK(problem.find("config.toml:3: a registry has no 'mirror'; did you mean 'mirrors'?") !=
        std::string::npos);
  user.write(".config/container/config.toml", "[registry\n");
  CHECK(cli::read_registry_config(user.surroundings).error().to_string().find("config.toml:1:") !=
        std::string::npos);
}

TEST_CASE("a login is kept in a file only its owner reads, and forgotten") {
  const User user;
  user.surroundings.environment.at("PATH");
  REQUIRE(cli::store_login(user.surroundings, "docker.io", "ann", "s3cret:with:colons"));

  struct stat info {};
  REQUIRE(::stat((user.home + "/.config/container/auth.json").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  const json credential = user.access("alpine")["credentials"]["docker.io"];
  CHECK(credential["username"] == "ann");
  CHECK(credential["password"] == "s3cret:with:colons");
  CHECK(user.access("ghcr.io/a/b")["credentials"].empty());
  const auto logins = cli::list_logins(user.surroundings).value();
  REQUIRE(logins.size() == 1);
  CHECK(logins[0].host == "docker.io");
  CHECK(logins[0].username == "ann");
  CHECK_FALSE(logins[0].created.empty());
  CHECK(cli::erase_login(user.surroundings, "docker.io"));
  CHECK(cli::list_logins(user.surroundings)->empty());
  CHECK(cli::erase_login(user.surroundings, "docker.io").error().code() ==
        base::ErrorCode::NotFound);
}

TEST_CASE("a helper that does not forget a login keeps it, and that is told") {
  User user;
  user.write("bin/docker-credential-x",
             "#!/bin/sh\n[ $1 = store ] && exit 0\necho 'the keychain is locked'; exit 1\n", 0755);
  user.write(".config/container/auth.json", R"({"credsStore":"x"})");
  REQUIRE(cli::store_login(user.surroundings, "h.example", "ann", "s3cret"));
  const auto erased = cli::erase_login(user.surroundings, "h.example");
  REQUIRE(!erased);
  CHECK(erased.error().to_string().find("the keychain is locked") != std::string::npos);
}

TEST_CASE("docker's own file is read, its helpers are asked, and the environment wins") {
  User user;
  user.write("bin/docker-credential-x",
             "#!/bin/sh\nread host\n[ \"$1 $host\" = 'get h.example' ] || "
             "{ echo 'credentials not found in native keychain'; exit 1; }\n"
             "echo '{\"Username\":\"<token>\",\"Secret\":\"t0ken\"}'\n",
             0755);
  user.write(".docker/config.json",
             R"({"auths":{"https://a.example/v1/":{"auth":"Ym9iOnB3"}},)"
             R"("credHelpers":{"h.example":"x","none.example":"x","gone.example":"gone"}})");

  CHECK(user.access("a.example/i")["credentials"]["a.example"]["password"] == "pw");
  CHECK(user.access("h.example/i")["credentials"]["h.example"]["identity_token"] == "t0ken");
  CHECK(user.access("none.example/i")["credentials"].empty());
  const cli::RegistryConfig config;
  const auto gone =
      cli::registry_access(user.surroundings, config, cli::Parsed(), {"gone.example/i"});
  CHECK(gone.error().to_string().find("docker-credential-gone") != std::string::npos);
  user.surroundings.environment["CONTAINER_REGISTRY_HOST"] = "a.example";
  user.surroundings.environment["CONTAINER_REGISTRY_USER"] = "ci";
  user.surroundings.environment["CONTAINER_REGISTRY_TOKEN"] = "tok";
  CHECK(user.access("a.example/i")["credentials"]["a.example"]["password"] == "tok");
}

TEST_CASE("proxies come from the environment in either case") {
  User user;
  user.surroundings.environment["HTTPS_PROXY"] = "http://p:1";
  user.surroundings.environment["no_proxy"] = "x.example";
  const json proxy = user.access("alpine")["proxy"];
  CHECK(proxy["https"] == "http://p:1");
  CHECK(proxy["http"] == "");
  CHECK(proxy["none"] == "x.example");
}

TEST_CASE("progress drops its parts as the terminal gets narrower") {
  const json counts = {{"blobs_done", 12},
                       {"blobs_total", 36},
                       {"bytes_done", 7'200'000},
                       {"bytes_total", 21'700'000}};
  const auto line = [&](size_t width) {
    cli::TransferView view(cli::TransferStyle::Ansi, "Fetching image", width, 0);
    view.take(counts);
    const std::string drawn = view.draw(3000);
    return drawn.substr(drawn.find("Fetching"));
  };
  CHECK(line(90) == "Fetching image 33% (12 of 36 blobs, 7.2/21.7 MB, 2.4 MB/s) [3s]");
  CHECK(line(65) == "Fetching image 33% (12 of 36 blobs, 7.2/21.7 MB) [3s]");
  CHECK(line(55) == "Fetching image 33% (12 of 36 blobs) [3s]");
  CHECK(line(35) == "Fetching image 33% [3s]");
  CHECK(line(26) == "Fetching image 33%");
}

TEST_CASE("plain progress is a line a second without an escape, and none is nothing") {
  cli::TransferView plain(cli::TransferStyle::Plain, "Fetching image", 80, 0);
  const json counts = {{"blobs_total", 2}, {"bytes_done", 500}, {"bytes_total", 1000}};
  plain.take(counts);
  CHECK(plain.draw(0) == "Fetching image 50% (0 of 2 blobs, 0.5/1.0 KB, 500.0 KB/s) [0s]\n");
  plain.take(counts);
  CHECK(plain.draw(999).empty());
  CHECK(plain.draw(1000).find('\x1b') == std::string::npos);
  CHECK(plain.finish().empty());
  cli::TransferView none(cli::TransferStyle::None, "x", 80, 0);
  none.take(counts);
  CHECK(none.draw(5000).empty());
  CHECK(cli::transfer_style("auto", false) == cli::TransferStyle::Plain);
  CHECK(cli::transfer_style("auto", true) == cli::TransferStyle::Ansi);
}
