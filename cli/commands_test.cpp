/// The real program against a daemon of the test's own: what is asked, in which order, and what
/// comes out.

#include <algorithm>

#include "cli/test_daemon.h"
#include "planner/snapshot.h"

namespace {

using cli::test::Asked;
using cli::test::container;
using cli::test::Daemon;
using cli::test::Ended;
using cli::test::Program;
using cli::test::Talk;
using nlohmann::json;
using Words = std::vector<std::string>;

planner::ContainerRecord web() {
  planner::ContainerRecord record;
  record.id = "web";
  record.applied.image = "localhost/hello:1";
  record.phase = planner::Phase::Running;
  record.started_wall_ns = 1'790'000'000'000'000'000;
  record.machine_cpus = 2;
  record.machine_memory_bytes = 1'073'741'824;
  record.places = {{.network = "default",
                    .address = "192.168.64.3/24",
                    .gateway = "192.168.64.1",
                    .mac = "f2:00:00:00:00:01"}};
  return record;
}

/// Answers for one container `web`.
void views(const Asked& asked, Talk& talk) {
  if (asked.route == "GET /v1/containers")
    return talk.answer(200, base::dump_json(json::array({planner::to_json(web())})));
  if (asked.route == "GET /v1/containers/web")
    return talk.answer(200, base::dump_json(planner::to_json(web())));
  if (asked.route == "GET /v1/containers/web/logs") {
    std::string frames;
    api::append_frame(frames, api::FrameKind::Stdout, "out\n");
    api::append_frame(frames, api::FrameKind::Stderr, "err\n");
    return talk.answer(200, frames);
  }
  if (asked.route == "POST /v1/apply") {
    talk.begin_lines();
    return talk.result(true);
  }
  talk.answer(404, R"({"code":"not-found","message":"there is no such thing"})");
}

bool begins(const std::string& text, const std::string& with) { return text.starts_with(with); }

}  // namespace

TEST_CASE("ls prints a table, ids, or the JSON that scripts know") {
  Daemon daemon(views);

  CHECK(container({"ls"}).out ==
        "ID   IMAGE              OS     ARCH   STATE    ADDR          CPUS  MEMORY   STARTED\n"
        "web  localhost/hello:1  linux  amd64  running  192.168.64.3  2     1024 MB  "
        "2026-09-21T14:13:20Z\n");
  CHECK(container({"list", "-q"}).out == "web\n");
  const json listed = json::parse(container({"ls", "-a", "--format", "json"}).out);
  CHECK(listed[0]["status"] == "running");
  CHECK(!listed[0].contains("pausedReason"));
  CHECK(listed[0]["configuration"]["id"] == "web");
  CHECK(listed[0]["configuration"]["resources"] ==
        json{{"cpus", 2}, {"memoryInBytes", 1'073'741'824}});
  CHECK(listed[0]["networks"][0]["address"] == "192.168.64.3/24");
  CHECK(listed[0]["startedDate"] == "2026-09-21T14:13:20Z");
  CHECK(listed[0]["exitCode"].is_null());
}

TEST_CASE("ls and inspect tell of a machine that is held, and why") {
  planner::ContainerRecord held = web();
  held.paused_reason = "the host's disk is full";
  Daemon daemon([&](const Asked& asked, Talk& talk) {
    if (asked.route == "GET /v1/containers/web")
      return talk.answer(200, base::dump_json(planner::to_json(held)));
    talk.answer(200, base::dump_json(json::array({planner::to_json(held)})));
  });

  CHECK(container({"ls"}).out.find("  paused ") != std::string::npos);
  const json seen = json::parse(container({"inspect", "web"}).out);
  CHECK(seen[0]["status"] == "paused");
  CHECK(seen[0]["pausedReason"] == "the host's disk is full");
  CHECK(seen[0]["networks"].size() == 1);
}

TEST_CASE("inspect prints nothing unless it can print everything") {
  Daemon daemon(views);

  const Ended whole = container({"inspect", "web"});
  CHECK(whole.code == 0);
  CHECK(json::parse(whole.out)[0]["configuration"]["image"]["reference"] == "localhost/hello:1");
  const Ended half = container({"inspect", "web", "absent"});
  CHECK(half.code == 1);
  CHECK(half.out.empty());
  CHECK(half.err == "Error: container not found: absent\n");
}

TEST_CASE("logs keeps the two streams apart and passes its wishes on") {
  Daemon daemon([](const Asked& asked, Talk& talk) {
    if (asked.target == "GET /v1/containers/web/logs?follow=1&boot=0&last=3")
      return talk.answer(200, "");
    views(asked, talk);
  });

  const Ended plain = container({"logs", "web"});
  CHECK(plain.out == "out\n");
  CHECK(plain.err == "err\n");
  CHECK(container({"logs", "-f", "-n", "3", "web"}).out.empty());
  CHECK(container({"logs", "-n", "many", "web"}).code == 64);
}

TEST_CASE("a command for a system that is not running says how to start it") {
  { const Daemon gone(views); }

  const Ended ended = container({"ls"});

  CHECK(ended.code == 1);
  CHECK(ended.err.find("container system start") != std::string::npos);
  const Ended status = container({"system", "status", "--format", "json"});
  CHECK(status.code == 1);
  CHECK(json::parse(status.out)["status"] == "not running");
}

TEST_CASE("a wrong command line is told with the usage, and is no other failure") {
  Daemon daemon(views);

  CHECK(container({"lss"}).code == 64);
  CHECK(container({"ls", "--format", "csv"}).code == 64);
  CHECK(container({"stop", "--all", "web"}).code == 64);
  CHECK(container({"kill", "-s", "NOPE", "web"}).code == 64);
  CHECK(container({"up", "--watch", "-d"}).code == 64);
  CHECK(container({"network", "delete", "--all", "front"}).code == 64);
  CHECK(container({"volume", "rm"}).err.find("no volumes specified and --all not supplied") !=
        std::string::npos);
  CHECK(container({"volume", "create"}).code == 64);
  CHECK(container({"volume", "create", "-s", "1g", "data"}).code == 64);
  CHECK(container({"network", "create", "--label", "=x", "front"}).code == 64);
  CHECK(container({"stop"}).err.find("no containers specified and --all not supplied") !=
        std::string::npos);
  CHECK(daemon.asked().empty());
}

TEST_CASE("what was stopped is printed once, and the command carries its flags") {
  json command;
  Daemon daemon([&](const Asked& asked, Talk& talk) {
    command = asked.body;
    views(asked, talk);
  });

  const Ended ended = container({"stop", "-t", "5", "-s", "INT", "web", "web"});

  CHECK(ended.out == "web\n");
  CHECK(command["ids"] == json({"web"}));
  CHECK(command["grace_ms"] == 5000);
  CHECK(command["signal"] == "INT");
  CHECK(container({"rm", "-f", "--all"}).out == "web\n");
  CHECK(command["ids"] == json({"*"}));
  CHECK(command["all"] == true);
  CHECK(command["force"] == true);
}

TEST_CASE("what was made or removed is printed, also where something else could not be") {
  json command;
  json result = {{"type", "result"}, {"success", true}, {"names", {"front", "back"}}};
  Daemon daemon([&](const Asked& asked, Talk& talk) {
    command = asked.body;
    talk.begin_lines();
    talk.line(result);
  });

  CHECK(container({"network", "rm", "front", "back"}).out == "front\nback\n");
  CHECK(command["command"] == "network remove");
  CHECK(command["names"] == json({"front", "back"}));
  result = {{"type", "result"}, {"success", false}, {"names", {"front"}}, {"message", "is held"}};
  const Ended half = container({"network", "delete", "--all"});
  CHECK(half.code == 1);
  CHECK(half.out == "front\n");
  CHECK(half.err == "Error: is held\n");
  CHECK(command["names"] == json({"*"}));
  CHECK(command["all"] == true);
}

TEST_CASE("networks and volumes are made with what the command line says of them") {
  json command;
  Daemon daemon([&](const Asked& asked, Talk& talk) {
    command = asked.body;
    talk.begin_lines();
    talk.line({{"type", "result"}, {"success", true}, {"names", {command.at("name")}}});
  });

  const Ended made =
      container({"network", "create", "--internal", "--subnet", "10.9.0.0/24", "--gateway",
                 "10.9.0.9", "--label", "a=b=c", "--label", "bare", "front"});
  CHECK(made.out == "front\n");
  CHECK(command["name"] == "front");
  CHECK(command["internal"] == true);
  CHECK(command["subnet"] == "10.9.0.0/24");
  CHECK(command["gateway"] == "10.9.0.9");
  CHECK(command["labels"] == json{{"a", "b=c"}, {"bare", ""}});
  CHECK(container({"n", "create", "plain"}).out == "plain\n");
  CHECK(command["internal"] == false);
  CHECK(!command.contains("subnet"));
  CHECK(!command.contains("gateway"));
  CHECK(container({"volume", "create", "data"}).out == "data\n");
  CHECK(command["command"] == "volume create");
}

TEST_CASE("a prune of volumes tells what it gave back, on stderr") {
  json command;
  json result = {
      {"type", "result"}, {"success", true}, {"names", {"old"}}, {"reclaimed_bytes", 1'572'864}};
  Daemon daemon([&](const Asked& asked, Talk& talk) {
    command = asked.body;
    talk.begin_lines();
    talk.line(result);
  });

  const Ended ended = container({"volume", "prune", "-a"});
  CHECK(ended.out == "old\n");
  CHECK(ended.err == "Reclaimed 1.5 MB in disk space\n");
  CHECK(command["all"] == true);
  result = {{"type", "result"}, {"success", true}, {"names", json::array()}};
  CHECK(container({"volume", "prune"}).err == "Reclaimed Zero KB in disk space\n");
  const Ended networks = container({"network", "prune"});
  CHECK(networks.out.empty());
  CHECK(networks.err.empty());
}

TEST_CASE("a plan that fails is the daemon's message and exit code 1") {
  Daemon daemon([](const Asked&, Talk& talk) {
    talk.begin_lines();
    talk.result(false, "port 80 is taken\x1b[2J");
  });

  const Ended ended = container({"start", "web"});

  CHECK(ended.code == 1);
  CHECK(ended.out.empty());
  CHECK(ended.err == "Error: port 80 is taken\\x1b[2J\n");
}

TEST_CASE("an answer that breaks off, or makes no sense, is a failure") {
  std::string answer;
  Daemon daemon([&](const Asked&, Talk& talk) {
    talk.begin_lines();
    talk.say(answer);
  });

  answer = R"({"type":"progress","kind":"step-started","step":1,"text":"x"})"
           "\n";
  CHECK(container({"start", "web"}).err.find("went away") != std::string::npos);
  answer = "no json\n";
  CHECK(container({"start", "web"}).code == 1);
  answer = R"({"type":"surprise"})"
           "\n";
  CHECK(container({"start", "web"}).err.find("surprise") != std::string::npos);
}

TEST_CASE("an image archive is sent whole, from a file and from a pipe") {
  std::string archive(300'000, 'x');
  std::vector<std::string> seen;
  Daemon daemon([&](const Asked& asked, Talk& talk) {
    seen.push_back(asked.raw_body);
    talk.answer(200, R"({"loaded":["localhost/hello:1"],"notes":["odd"]})");
  });
  const std::string file = daemon.folder() + "/archive.tar";
  REQUIRE(base::write_file_atomically(file, archive));

  const Ended ended = container({"image", "load", "-i", file});

  CHECK(ended.out == "localhost/hello:1\n");
  CHECK(ended.err == "odd\n");
  CHECK(seen[0] == archive);
}

TEST_CASE("a daemon that refuses an archive early is heard, however much is left to send") {
  Daemon daemon([](const Asked&, Talk& talk) {
    talk.answer(400, R"({"code":"no-space","message":"the disk is full"})");
  });
  Program program({"image", "load"});

  program.type(std::string(10, 'x'));
  program.end_stdin();

  const Ended ended = program.end();
  CHECK(ended.code == 1);
  CHECK(begins(ended.err, "Error: the disk is full"));
}

TEST_CASE("after the error of a full disk the command says what to do") {
  const auto failing = [](const char* message) {
    return [message](const Asked&, Talk& talk) {
      talk.answer(507, base::dump_json({{"code", "no-space"}, {"message", message}}));
    };
  };
  {
    Daemon daemon(failing("write '/a': No space left on device"));
    const Ended full = container({"inspect", "web"});
    CHECK(full.code == 1);
    CHECK(begins(full.err,
                 "Error: write '/a': No space left on device\nMake room on that disk, "
                 "then run the same command again; "));
  }
  Daemon daemon(failing("network 'n' has no free address; remove containers"));
  CHECK(container({"inspect", "web"}).err ==
        "Error: network 'n' has no free address; remove containers\n");
}
