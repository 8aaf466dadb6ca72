/// Which files a command line means, as `container config` shows it.

#include "cli/test_daemon.h"

namespace {

using cli::test::Asked;
using cli::test::container;
using cli::test::Daemon;
using cli::test::Ended;
using cli::test::Talk;

/// A folder of files, gone with the test.
class Folder {
 public:
  Folder() { REQUIRE(::mkdtemp(path_.data()) != nullptr); }
  ~Folder() { CHECK(base::remove_tree(path_)); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::string& path() const { return path_; }
  void write(const std::string& name, const std::string& text) const {
    REQUIRE(base::make_directories(path_ + "/" + name.substr(0, name.rfind('/') + 1)));
    REQUIRE(base::write_file_atomically(path_ + "/" + name, text));
  }

 private:
  std::string path_ = "/tmp/container-stack-files-XXXXXX";
};

std::string service(const std::string& name) {
  return fmt::format("services:\n  {}: {{image: x}}\n", name);
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("of several stack files in a folder one is used, and a warning names the others") {
  const Folder folder;
  folder.write("compose.yaml", service("first"));
  CHECK(container({"config"}, folder.path()).err.empty());
  folder.write("docker-compose.yml", service("second"));
  folder.write("compose.override.yml", "services: {first: {hostname: changed}}\n");

  const Ended done = container({"config"}, folder.path());
  CHECK(done.code == 0);
  CHECK(has(done.out, "first"));
  CHECK(has(done.out, "changed"));
  CHECK(!has(done.out, "second"));
  CHECK(done.err == fmt::format("Warning: several stack files: '{0}/compose.yaml' with "
                                "'{0}/compose.override.yml' is used, not "
                                "'{0}/docker-compose.yml'; name what you mean with --file\n",
                                folder.path()));
  CHECK(container({"config", "-f", "docker-compose.yml"}, folder.path()).err.empty());
}

TEST_CASE("COMPOSE_FILE in .env names the files, the environment and --file win over it") {
  const Folder folder;
  folder.write("compose.yaml", service("plain"));
  folder.write("deploy/base.yaml", service("base"));
  folder.write("deploy/more.yaml", service("more"));
  folder.write(".env",
               "DEPLOY=deploy\nCOMPOSE_PATH_SEPARATOR=,\n"
               "COMPOSE_FILE=${DEPLOY}/base.yaml,deploy/more.yaml\n");

  const Ended both = container({"config"}, folder.path());
  CHECK(both.code == 0);
  CHECK(both.err.empty());
  CHECK(has(both.out, "base"));
  CHECK(has(both.out, "more"));
  CHECK(!has(both.out, "plain"));
  CHECK(has(container({"config", "-f", "compose.yaml"}, folder.path()).out, "plain"));
  ::setenv("COMPOSE_FILE", "compose.yaml", 1);
  const Ended own = container({"config"}, folder.path());
  ::unsetenv("COMPOSE_FILE");
  CHECK(has(own.out, "plain"));
}

TEST_CASE("what is wrong behind COMPOSE_FILE is told with its place, and once") {
  const Folder folder;
  folder.write("other.yaml", "services:\n  a:\n    image: x\n    ports: ['80:80/sctp']\n");
  folder.write(".env", "COMPOSE_FILE=other.yaml\nno variable\n");

  const Ended wrong = container({"config"}, folder.path());
  CHECK(wrong.code == 1);
  CHECK(has(wrong.err, folder.path() + "/other.yaml:4:13: error: services.a.ports[0]: protocol "
                                       "'sctp' is not supported"));
  const std::string place = folder.path() + "/.env:2:";
  const size_t first = wrong.err.find(place);
  CHECK(first != std::string::npos);
  CHECK(wrong.err.find(place, first + 1) == std::string::npos);

  folder.write(".env", "COMPOSE_FILE=gone.yaml\n");
  CHECK(container({"config"}, folder.path()).err ==
        fmt::format("Error: the stack file '{}/gone.yaml' does not exist; COMPOSE_FILE in an env "
                    "file names it\n",
                    folder.path()));
}

TEST_CASE("a down that finds no good file says how to do without one") {
  const Folder folder;
  folder.write("shop/compose.yaml", "services:\n  web: {imagee: busybox}\n");
  folder.write("nothing/here", "");
  Daemon daemon([](const Asked& asked, Talk& talk) {
    CHECK(base::json_string_or(asked.body, "project", "") == "shop");
    talk.begin_lines();
    talk.result(true);
  });

  const std::string hint = "(--project-name NAME needs no file)";
  const Ended broken = container({"down"}, folder.path() + "/shop");
  CHECK(broken.code == 1);
  CHECK(has(broken.err, "compose.yaml:2:"));
  CHECK(has(broken.err, hint));
  CHECK(has(container({"down"}, folder.path() + "/nothing").err, hint));
  CHECK(container({"down", "-p", "shop"}, folder.path() + "/shop").code == 0);
}

TEST_CASE("a broken configuration of registries keeps no stack from going down") {
  const Folder folder;
  folder.write("shop/compose.yaml", service("web"));
  folder.write("config/container/config.toml", "[registry\n");
  ::setenv("XDG_CONFIG_HOME", (folder.path() + "/config").c_str(), 1);
  Daemon daemon([](const Asked& asked, Talk& talk) {
    CHECK(base::json_string_or(asked.body, "project", "") == "shop");
    talk.begin_lines();
    talk.result(true);
  });

  const Ended down = container({"down"}, folder.path() + "/shop");
  const Ended plan = container({"plan"}, folder.path() + "/shop");
  ::unsetenv("XDG_CONFIG_HOME");

  CHECK(down.code == 0);
  CHECK(daemon.asked() == std::vector<std::string>{"apply down"});
  CHECK(plan.code == 1);
  CHECK(has(plan.err, "config.toml:1:"));
}
