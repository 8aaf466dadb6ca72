/// Each flag of `run` and the field it becomes.

#include "cli/run_options.h"

#include <csignal>

#include <doctest/doctest.h>

#include "cli/commands.h"

namespace {

using base::Result;
using Words = std::vector<std::string>;

cli::Surroundings surroundings() {
  return {.working_directory = "/project",
          .home_directory = "/home/me",
          .environment = {{"COLOUR", "blue"}},
          .read_file = [](const std::string& path) -> Result<std::string> {
            if (path == "/project/vars") return "A=1\n# no\nCOLOUR\nB=\"2\"\n";
            return base::fail(base::ErrorCode::NotFound, "no '{}'", path);
          }};
}

Result<cli::RunOptions> read(Words words, const cli::Surroundings& around = surroundings()) {
  words.insert(words.begin(), "run");
  words.insert(words.end(), {"alpine", "echo", "$HOME"});
  const auto parsed = cli::parse(cli::root_command(), words);
  REQUIRE_MESSAGE(parsed, parsed.error().message);
  return cli::read_run_options(*parsed, around);
}

spec::Service service(Words words) {
  const auto options = read(std::move(words));
  REQUIRE_MESSAGE(options, options.error().to_string());
  return options->stack.services.at(options->id);
}

std::string problem(Words words) {
  const auto options = read(std::move(words));
  return options ? "" : options.error().to_string();
}

}  // namespace

TEST_CASE("image and words are those of the command line, not of a shell") {
  const spec::Service made = service({});

  CHECK(made.image == "alpine");
  CHECK(made.command == Words{"echo", "$HOME"});
  CHECK_FALSE(made.entrypoint);
}

TEST_CASE("a container gets its name, or a new one each time") {
  CHECK(read({"--name", "web"})->id == "web");
  CHECK(read({})->id.size() == 36);
  CHECK(read({})->id != read({})->id);
  CHECK(problem({"--name", "../x"}).find("--name") == 0);
  CHECK(problem({"--name", ""}).find("--name") == 0);
}

TEST_CASE("variables come from files first, then from flags, and by name from here") {
  const spec::Service made =
      service({"--env-file", "vars", "-e", "A=2", "-e", "COLOUR", "-e", "ABSENT"});

  CHECK(made.environment.at("A") == "2");
  CHECK(made.environment.at("B") == "\"2\"");
  CHECK(made.environment.at("COLOUR") == "blue");
  CHECK_FALSE(made.environment.contains("ABSENT"));
  CHECK(problem({"--env-file", "none"}).find("--env-file") == 0);
}

TEST_CASE("the process: terminal, stdin, user, folder, entrypoint") {
  const spec::Service made =
      service({"-it", "-u", "1000:100", "--cwd", "/tmp", "--entrypoint", "/bin/sh"});

  CHECK(made.tty);
  CHECK(made.stdin_open);
  CHECK(made.user == "1000:100");
  CHECK(made.working_dir == "/tmp");
  CHECK(made.entrypoint == Words{"/bin/sh"});
  CHECK(service({"--uid", "7"}).user == "7");
  CHECK(service({"--uid", "7", "--gid", "8"}).user == "7:8");
  CHECK(problem({"--uid", "me"}).find("--uid 'me'") == 0);
  CHECK(problem({"--uid", "7", "-u", "me"}).find("--user") == 0);
}

TEST_CASE("resources") {
  const spec::Service made =
      service({"-c", "2", "-m", "512M", "--pids-limit", "100", "--shm-size", "1g", "--ulimit",
               "nofile=1:2", "--ulimit", "core=unlimited"});

  CHECK(made.cpus == 2.0);
  CHECK(made.memory_bytes == 512u << 20);
  CHECK(made.pids_limit == 100);
  CHECK(made.shm_bytes == 1u << 30);
  CHECK(made.ulimits.at("nofile").soft == 1);
  CHECK(made.ulimits.at("nofile").hard == 2);
  CHECK(made.ulimits.at("core").hard == -1);
  CHECK(problem({"-m", "lots"}).find("--memory") == 0);
  CHECK(problem({"--ulimit", "nofile"}).find("--ulimit") == 0);
}

TEST_CASE("mounts in their three spellings, relative to here") {
  const spec::Service made =
      service({"-v", "sub/data:/data:ro", "-v", "keep:/keep", "--tmpfs", "/scratch", "--mount",
               "type=bind,source=src,target=/src,readonly"});

  REQUIRE(made.volumes.size() == 4);
  const auto at = [&](const std::string& target) {
    for (const spec::Mount& mount : made.volumes)
      if (mount.target == target) return mount;
    return spec::Mount{};
  };
  CHECK(at("/data").source == "/project/sub/data");
  CHECK(at("/data").read_only);
  CHECK(at("/keep").type == spec::MountType::Volume);
  CHECK(at("/scratch").type == spec::MountType::Tmpfs);
  CHECK(at("/src").source == "/project/src");
  CHECK(at("/src").read_only);
  CHECK(read({"-v", "keep:/keep"})->stack.volumes.at("keep").name == "keep");
  CHECK(problem({"--mount", "type=bind,colour=red,target=/x"}).find("--mount") == 0);
}

TEST_CASE("networks: the built-in one, some, or none") {
  CHECK(service({}).networks.contains("default"));
  CHECK(read({})->stack.networks.at("default").name == "default");
  const spec::Service two =
      service({"--network", "front,ip=10.0.0.5,mac=f2:00:00:00:00:01,alias=www", "--net", "back"});
  CHECK(two.networks.at("front").ipv4_address == "10.0.0.5");
  CHECK(two.networks.at("front").mac_address == "f2:00:00:00:00:01");
  CHECK(two.networks.at("front").aliases == Words{"www"});
  CHECK(two.networks.contains("back"));
  const spec::Service none = service({"--network", "none"});
  CHECK(none.networks.empty());
  CHECK(none.network_mode == "none");
  CHECK(problem({"--network", "none", "--network", "a"}).find("--network") == 0);
  for (const Words& words : {Words{"--network", "host"}, {"--network", "a", "--network", "host"}})
    CHECK(problem(words).find("a VM cannot share the host's network") != std::string::npos);
  CHECK(problem({"--network", "a,colour=red"}).find("--network") == 0);
}

TEST_CASE("ports") {
  const spec::Service made = service({"-p", "8080:80", "-p", "10.0.0.1:53:53/udp"});

  REQUIRE(made.ports.size() == 2);
  const spec::Service chosen = service({"-p", "127.0.0.1:8000-8010:80/udp", "-p", "90"});
  REQUIRE(chosen.ports.size() == 2);
  CHECK(chosen.ports[0].published == 8000);
  CHECK(chosen.ports[0].published_last == 8010);
  CHECK(chosen.ports[0].protocol == spec::Protocol::Udp);
  CHECK(chosen.ports[1].published == 0);
  CHECK(problem({"-p", "8000-8001:80-82"}).find("--publish") == 0);
  CHECK(problem({"-p", "99999:80"}).find("--publish") == 0);
  CHECK(problem({"-p", "x:y"}).find("--publish") == 0);
}

TEST_CASE("the machine around: names, rights, signals, policies") {
  const spec::Service made = service({"--hostname",
                                      "small",
                                      "--read-only",
                                      "--privileged",
                                      "--init",
                                      "--cap-add",
                                      "NET_ADMIN",
                                      "--cap-drop",
                                      "ALL",
                                      "--sysctl",
                                      "net.core.somaxconn=9",
                                      "--group-add",
                                      "audio",
                                      "-l",
                                      "a=b",
                                      "--dns",
                                      "1.1.1.1",
                                      "--dns-search",
                                      "example.org",
                                      "--dns-option",
                                      "ndots:1",
                                      "--dns-domain",
                                      "example.org",
                                      "--add-host",
                                      "db:10.0.0.9",
                                      "--restart",
                                      "on-failure:2",
                                      "--stop-signal",
                                      "INT",
                                      "--stop-timeout",
                                      "3",
                                      "--platform",
                                      "linux/amd64",
                                      "--boot",
                                      "cold"});

  CHECK(made.hostname == "small");
  CHECK(made.domainname == "example.org");
  CHECK(made.read_only);
  CHECK(made.privileged);
  CHECK(made.init);
  CHECK(made.cap_add == Words{"NET_ADMIN"});
  CHECK(made.cap_drop == Words{"ALL"});
  CHECK(made.sysctls.at("net.core.somaxconn") == "9");
  CHECK(made.group_add == Words{"audio"});
  CHECK(made.labels.at("a") == "b");
  CHECK(made.dns == Words{"1.1.1.1"});
  CHECK(made.dns_search == Words{"example.org"});
  CHECK(made.dns_options == Words{"ndots:1"});
  CHECK(made.extra_hosts == Words{"db=10.0.0.9"});
  CHECK(made.restart.condition == spec::RestartCondition::OnFailure);
  CHECK(made.restart.retries_max == 2);
  CHECK(made.stop_signal.value_or("").ends_with("INT"));
  CHECK(made.stop_grace_period_ns == 3'000'000'000);
  CHECK(made.platform == "linux/amd64");
  CHECK(made.boot == spec::BootMode::Cold);
  CHECK(service({"--arch", "x86_64"}).platform == "linux/amd64");
}

TEST_CASE("the usual platform is taken from the environment, and said, unless a flag names one") {
  cli::Surroundings with = surroundings();
  with.environment["CONTAINER_DEFAULT_PLATFORM"] = "linux/arm64";

  const auto usual = read({}, with);
  const auto named = read({"--arch", "amd64"}, with);

  REQUIRE(usual);
  CHECK(usual->stack.services.at(usual->id).platform == "linux/arm64");
  CHECK(usual->warnings == Words{"using platform linux/arm64 from CONTAINER_DEFAULT_PLATFORM"});
  REQUIRE(named);
  CHECK(named->stack.services.at(named->id).platform == "linux/amd64");
  CHECK(named->warnings.empty());
}

TEST_CASE("health checks") {
  const spec::Service made =
      service({"--health-cmd", "true", "--health-interval", "2s", "--health-timeout", "1s",
               "--health-retries", "4", "--health-start-period", "3s"});

  REQUIRE(made.healthcheck);
  CHECK(made.healthcheck->test == Words{"/bin/sh", "-c", "true"});
  CHECK(made.healthcheck->interval_ns == 2'000'000'000);
  CHECK(made.healthcheck->timeout_ns == 1'000'000'000);
  CHECK(made.healthcheck->retries == 4u);
  CHECK(made.healthcheck->start_period_ns == 3'000'000'000);
  CHECK(service({"--no-healthcheck"}).healthcheck->disable);
}

TEST_CASE("all problems are told at once, each by its flag") {
  const std::string text = problem({"-m", "lots", "-c", "many", "--restart", "sometimes"});

  CHECK(text.find("--memory: ") != std::string::npos);
  CHECK(text.find("--cpus: ") != std::string::npos);
  CHECK(text.find("--restart: ") != std::string::npos);
}

TEST_CASE("a container of run belongs to no project") {
  const auto options = read({"--rm"});

  REQUIRE(options);
  CHECK(options->stack.name.empty());
  CHECK(options->auto_remove);
}

TEST_CASE("signals have names and numbers") {
  CHECK(cli::signal_number("TERM") == SIGTERM);
  CHECK(cli::signal_number("sigkill") == SIGKILL);
  CHECK(cli::signal_number("10") == 10);
  CHECK_FALSE(cli::signal_number("NOPE"));
  CHECK_FALSE(cli::signal_number("0"));
  CHECK_FALSE(cli::signal_number("-1"));
}
