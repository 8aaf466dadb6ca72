/// Being a process's terminal, pipes and signals; and `up` that stays.

#include <algorithm>

#include "cli/attached_up.h"
#include "cli/test_daemon.h"
#include "planner/snapshot.h"

namespace {

using api::Frame;
using api::FrameKind;
using cli::test::Asked;
using cli::test::container;
using cli::test::Daemon;
using cli::test::Ended;
using cli::test::Program;
using cli::test::Talk;
using nlohmann::json;
using Words = std::vector<std::string>;

const Words exec_cat = {"exec", "-i", "web", "cat"};

/// A daemon whose `exec` is `talk`.
Daemon::Handler exec_is(std::function<void(Talk&)> process) {
  return [process = std::move(process)](const Asked& asked, Talk& talk) {
    if (asked.route != "POST /v1/containers/web/exec") return;
    talk.upgrade();
    process(talk);
  };
}

/// A stopped container `web`, whose main process is `process`.
Daemon::Handler start_is(std::function<void(Talk&)> process, bool success = true) {
  return [process = std::move(process), success](const Asked& asked, Talk& talk) {
    if (asked.route == "GET /v1/containers/web") {
      planner::ContainerRecord record;
      record.id = "web";
      return talk.answer(200, base::dump_json(planner::to_json(record)));
    }
    if (asked.route == "POST /v1/apply") {
      talk.begin_lines();
      return talk.result(success, "no such program");
    }
    talk.upgrade();
    process(talk);
  };
}

}  // namespace

TEST_CASE("output goes where it was written, and the exit code is the process's") {
  Daemon daemon(exec_is([](Talk& talk) {
    talk.frame(FrameKind::Stdout, "out\n");
    talk.frame(FrameKind::Stderr, "err\n");
    talk.exit(42);
  }));

  const Ended ended = container({"exec", "web", "true"});

  CHECK(ended.code == 42);
  CHECK(ended.out == "out\n");
  CHECK(ended.err == "err\n");
}

TEST_CASE("stdin is passed on with its end, only where it was asked for") {
  Daemon daemon(exec_is([](Talk& talk) {
    std::string heard;
    for (Frame frame = talk.next(); frame.kind == FrameKind::Stdin; frame = talk.next())
      heard += frame.payload;
    talk.frame(FrameKind::Stdout, heard);
    talk.exit(0);
  }));
  Program program(exec_cat);

  program.type("hello");
  program.end_stdin();

  CHECK(program.end().out == "hello");
}

TEST_CASE("a megabyte passes through unchanged") {
  const std::string bytes(1 << 20, '\xff');
  Daemon daemon(exec_is([&](Talk& talk) {
    talk.frame(FrameKind::Stdout, bytes);
    talk.exit(0);
  }));

  CHECK(container({"exec", "web", "yes"}).out == bytes);
}

TEST_CASE("signals reach the process, and its answer to them is ours") {
  int number = 0;
  Daemon daemon(exec_is([&](Talk& talk) {
    talk.frame(FrameKind::Stderr, "up\n");
    number = static_cast<int>(
        base::json_int_or(base::parse_json(talk.next().payload).value(), "signal", 0));
    talk.exit(7);
  }));
  Program program({"exec", "web", "sh"});
  daemon.await("POST /v1/containers/web/exec");

  program.signal(SIGTERM);

  CHECK(program.end().code == 7);
  CHECK(number == SIGTERM);
}

TEST_CASE("a process that ignores every signal can be left") {
  Daemon* marks = nullptr;
  Daemon daemon(exec_is([&](Talk& talk) {
    while (talk.next().kind == FrameKind::Signal) marks->mark("signal");
  }));
  marks = &daemon;
  Program program({"exec", "web", "sh"});
  daemon.await("POST /v1/containers/web/exec");

  program.signal(SIGINT);
  daemon.await("signal", 1);
  program.signal(SIGTERM);
  daemon.await("signal", 2);
  program.signal(SIGINT);

  const Ended ended = program.end();
  CHECK(ended.code == 1);
  CHECK(ended.err.find("given up") != std::string::npos);
}

TEST_CASE("a daemon that goes away in the middle is told, and no exit code made up") {
  Daemon daemon(exec_is([](Talk& talk) { talk.frame(FrameKind::Stdout, "half"); }));

  const Ended ended = container({"exec", "web", "sh"});

  CHECK(ended.code == 1);
  CHECK(ended.out == "half");
  CHECK(ended.err.find("the daemon went away") != std::string::npos);
}

TEST_CASE("frames that make no sense end the talk") {
  Daemon daemon(exec_is([](Talk& talk) { talk.say(std::string(64, '\x7f')); }));

  const Ended ended = container({"exec", "web", "sh"});

  CHECK(ended.code == 1);
  CHECK(ended.err.find("unknown frame kind") != std::string::npos);
}

TEST_CASE("when nobody reads our output any more, the process is told as in a pipeline") {
  std::vector<int64_t> signals;
  Daemon daemon(exec_is([&](Talk& talk) {
    talk.frame(FrameKind::Stdout, "first");
    for (Frame frame = talk.next(); frame.kind == FrameKind::Signal; frame = talk.next()) {
      signals.push_back(base::json_int_or(base::parse_json(frame.payload).value(), "signal", 0));
      if (signals.back() == SIGKILL) return talk.exit(137);
    }
  }));
  Program program({"exec", "web", "yes"});
  program.close_stdout();

  CHECK(program.end().code == 128 + SIGPIPE);
  CHECK(signals == std::vector<int64_t>{SIGPIPE, SIGKILL});
}

TEST_CASE("attach comes before start, so that the first byte is seen") {
  Daemon daemon(start_is([](Talk& talk) {
    talk.frame(FrameKind::Stdout, "first\n");
    talk.exit(3);
  }));

  const Ended ended = container({"start", "-a", "web"});

  CHECK(ended.code == 3);
  CHECK(ended.out == "first\n");
  CHECK(daemon.asked() ==
        Words{"GET /v1/containers/web", "POST /v1/containers/web/attach", "apply start"});
}

TEST_CASE("a start that fails says why, whatever the attached end says") {
  Daemon daemon(start_is(
      [](Talk& talk) {
        talk.frame(FrameKind::Failure, R"({"code":"internal","message":"nothing to attach to"})");
      },
      false));

  const Ended ended = container({"start", "-a", "web"});

  CHECK(ended.code == 1);
  CHECK(ended.err == "Error: no such program\n");
}

TEST_CASE("run makes, attaches and starts in one request") {
  json asked;
  Daemon daemon([&](const Asked& request, Talk& talk) {
    asked = request.body;
    talk.upgrade();
    talk.frame(FrameKind::Started, "{}");
    talk.frame(FrameKind::Stdout, "hello\n");
    talk.exit(3);
  });

  const Ended ended = container({"run", "--rm", "--name", "web", "hello:1"});

  CHECK(ended.code == 3);
  CHECK(ended.out == "hello\n");
  CHECK(ended.err.empty());
  CHECK(daemon.asked() == Words{"apply create"});
  CHECK(asked.at("attach") == true);
  CHECK(asked.at("start") == true);
  CHECK_FALSE(asked.contains("trace"));
}

TEST_CASE("a run whose process was never there says why, and takes back what was made") {
  Daemon daemon([](const Asked& request, Talk& talk) {
    if (base::json_string_or(request.body, "command", "") == "remove") {
      talk.begin_lines();
      return talk.result(true);
    }
    talk.upgrade();
    talk.frame(FrameKind::Failure, R"({"code":"not-found","message":"no such program"})");
  });

  const Ended ended = container({"run", "--name", "web", "hello:1", "nonsense"});

  CHECK(ended.code == 1);
  CHECK(ended.err == "Error: no such program\n");
  CHECK(daemon.asked() == Words{"apply create", "apply remove"});
}

TEST_CASE("a run that lost its daemon after the start leaves the container alone") {
  Daemon daemon([](const Asked&, Talk& talk) {
    talk.upgrade();
    talk.frame(FrameKind::Started, "{}");
  });

  const Ended ended = container({"run", "--name", "web", "hello:1"});

  CHECK(ended.code == 1);
  CHECK(ended.err.find("the container runs on") != std::string::npos);
  CHECK(daemon.asked() == Words{"apply create"});
}

TEST_CASE("the id file is there as soon as the process is") {
  Daemon* marks = nullptr;
  Daemon daemon([&](const Asked&, Talk& talk) {
    talk.upgrade();
    talk.frame(FrameKind::Started, "{}");
    marks->await("seen");
    talk.exit(0);
  });
  marks = &daemon;
  const std::string file = daemon.folder() + "/id";

  Program program({"run", "--name", "web", "--cidfile", file, "hello:1"});
  program.end_stdin();
  const base::Deadline deadline = base::Deadline::in_ms(cli::test::patience_ms);
  while (base::read_file(file, 100).value_or("") != "web" && !deadline.passed())
    std::this_thread::yield();
  daemon.mark("seen");

  CHECK(program.end().code == 0);
  CHECK(base::read_file(file, 100).value_or("") == "web");
}

TEST_CASE("a traced run shows what the daemon knows, after everything else") {
  Daemon daemon([](const Asked& request, Talk& talk) {
    if (request.route == "GET /v1/containers/web/trace")
      return talk.answer(200, R"([{"where":"guest","what":"wakes up","begin_ns":1,"end_ns":2}])");
    talk.upgrade();
    talk.exit(0);
  });

  const Ended ended = container({"run", "--rm", "--trace", "--name", "web", "hello:1"});

  CHECK(ended.code == 0);
  CHECK(ended.err.starts_with("timeline of web in ms"));
  CHECK(ended.err.find("guest    wakes up\n") != std::string::npos);
  CHECK(container({"run", "--trace", "-d", "hello:1"}).code == 64);
}

TEST_CASE("lines get their container's name, also when they come in pieces") {
  cli::PrefixedLines lines("web-1", "", false);

  CHECK(lines.feed("hel", 5).empty());
  CHECK(lines.feed("lo\nwor", 7) == "web-1    | hello\n");
  CHECK(lines.finish(5) == "web-1  | wor\n");
  CHECK(lines.finish(5).empty());
}

TEST_CASE("an endless line is shown in pieces instead of being kept") {
  cli::PrefixedLines lines("a", "", false);

  const std::string shown = lines.feed(std::string(200'000, 'x'), 1);

  CHECK(std::count(shown.begin(), shown.end(), '\n') == 3);
}

TEST_CASE("on a terminal a container may colour its lines, and do nothing else") {
  cli::PrefixedLines lines("a", "", true);

  CHECK(lines.feed("\x1b[31mred\x1b[0m\x1b[2J\n", 1) == "a  | \x1b[31mred\x1b[0m\\x1b[2J\n");
}

namespace {

/// A stack of one service that writes a line, for `up`.
class Stack {
 public:
  explicit Stack(Daemon& daemon) : folder_(daemon.folder() + "/shop") {
    REQUIRE(base::make_directories(folder_));
    write("sleep 1");
  }
  const std::string& folder() const { return folder_; }
  void write(const std::string& command) const {
    REQUIRE(base::write_file_atomically(
        folder_ + "/compose.yaml",
        fmt::format("name: shop\nservices: {{web: {{image: hello, command: {}, network_mode: "
                    "none}}}}\n",
                    command)));
  }

 private:
  const std::string folder_;
};

planner::ContainerRecord shop_web(planner::Phase phase) {
  planner::ContainerRecord record;
  record.id = "shop-web-1";
  record.project = "shop";
  record.service = "web";
  record.phase = phase;
  return record;
}

/// Notices stay open until the daemon ends; the one container ends when `process` does.
struct Shop {
  Daemon* daemon = nullptr;
  std::function<void(Talk&)> process;
  std::function<void(Talk&)> next_run = [](Talk& talk) { (void)talk.next(); };
  std::vector<json> early_notices = {};

  void operator()(const Asked& asked, Talk& talk) const {
    if (asked.route == "GET /v1/containers")
      return talk.answer(
          200, base::dump_json(json::array({planner::to_json(shop_web(planner::Phase::Created))})));
    if (asked.route == "GET /v1/notices") {
      talk.begin_lines();
      talk.line({{"type", "ready"}});
      for (const json& notice : early_notices) talk.line(notice);
      daemon->await("over");
      talk.line(
          {{"type", "exited"}, {"container", planner::to_json(shop_web(planner::Phase::Exited))}});
      daemon->mark("told");
      (void)talk.next();
      return;
    }
    if (asked.route == "POST /v1/apply") {
      talk.begin_lines();
      if (base::json_string_or(asked.body, "command", "") == "stop") daemon->await("killed");
      return talk.result(true);
    }
    talk.upgrade();
    if (std::ranges::count(daemon->asked(), "POST /v1/containers/shop-web-1/attach") > 1)
      return next_run(talk);
    process(talk);
  }
};

}  // namespace

TEST_CASE("up makes, attaches, starts, shows every line, and ends with the last service") {
  Shop shop;
  Daemon daemon([&](const Asked& asked, Talk& talk) { shop(asked, talk); });
  shop.daemon = &daemon;
  shop.process = [&](Talk& talk) {
    talk.frame(FrameKind::Stdout, "ready\n");
    talk.exit(5);
    daemon.mark("over");
  };
  const Stack stack(daemon);

  const Ended ended = container({"up"}, stack.folder());

  CHECK(ended.code == 0);
  CHECK(ended.out == "web-1  | ready\n");
  CHECK(ended.err.find("web-1 exited with code 5\n") != std::string::npos);
  const Words asked = daemon.asked();
  const auto attached = std::ranges::find(asked, "POST /v1/containers/shop-web-1/attach");
  CHECK(std::count(attached, asked.end(), "apply up") >= 1);
  CHECK(std::ranges::count(asked, "apply up") == 2);
}

TEST_CASE("what happens to the machine is told beside the output of its process") {
  Daemon daemon(exec_is([](Talk& talk) {
    talk.frame(FrameKind::Stdout, "out\n");
    talk.frame(FrameKind::Notice,
               R"({"text":"container 'web' is paused: the disk\u001b is full"})");
    talk.exit(0);
  }));
  const Ended ended = container({"exec", "web", "true"});

  CHECK(ended.code == 0);
  CHECK(ended.out == "out\n");
  CHECK(ended.err == "Warning: container 'web' is paused: the disk\\x1b is full\n");
}

TEST_CASE("up tells of a service that is held, why, and that it goes on") {
  Shop shop;
  Daemon daemon([&](const Asked& asked, Talk& talk) { shop(asked, talk); });
  shop.daemon = &daemon;
  planner::ContainerRecord held = shop_web(planner::Phase::Running);
  held.paused_reason = "the host's disk is full";
  shop.early_notices = {
      {{"type", "paused"}, {"container", planner::to_json(held)}},
      {{"type", "resumed"}, {"container", planner::to_json(shop_web(planner::Phase::Running))}}};
  shop.process = [&](Talk& talk) {
    talk.exit(0);
    daemon.mark("over");
  };
  const Stack stack(daemon);

  const std::string told = container({"up"}, stack.folder()).err;

  CHECK(told.find("web-1 is paused: the host's disk is full\nweb-1 goes on\n") !=
        std::string::npos);
}

TEST_CASE("the end of a run is told once, also when its container is removed afterwards") {
  Shop shop;
  Daemon daemon([&](const Asked& asked, Talk& talk) { shop(asked, talk); });
  shop.daemon = &daemon;
  shop.process = [&](Talk& talk) {
    talk.frame(FrameKind::Stdout, "ready\n");
    talk.exit(5);
    daemon.mark("over");
  };
  shop.next_run = [&](Talk& talk) {
    daemon.await("told");
    talk.exit(5);
  };
  const Stack stack(daemon);

  const std::string told = container({"up"}, stack.folder()).err;

  const std::string line = "web-1 exited with code 5\n";
  CHECK(told.find(line) != std::string::npos);
  CHECK(told.find(line) == told.rfind(line));
}

TEST_CASE("Ctrl-C stops the services by a plan, and a second one kills them past it") {
  Shop shop;
  Daemon daemon([&](const Asked& asked, Talk& talk) { shop(asked, talk); });
  shop.daemon = &daemon;
  int64_t signal = 0;
  shop.process = [&](Talk& talk) {
    daemon.mark("running");
    signal = base::json_int_or(base::parse_json(talk.next().payload).value(), "signal", 0);
    daemon.mark("killed");
    talk.exit(137);
    daemon.mark("over");
  };
  const Stack stack(daemon);
  Program program({"up"}, stack.folder());
  daemon.await("apply up", 2);
  daemon.await("running");

  program.signal(SIGINT);
  daemon.await("apply stop");
  program.signal(SIGINT);

  const Ended ended = program.end();
  CHECK(ended.code == 130);
  CHECK(signal == SIGKILL);
  CHECK(ended.err.find("press Ctrl+C again to force") != std::string::npos);
}

TEST_CASE("up --watch follows the file, and keeps what runs when the file is broken") {
  Shop shop;
  Daemon daemon([&](const Asked& asked, Talk& talk) { shop(asked, talk); });
  shop.daemon = &daemon;
  shop.process = [&](Talk& talk) { (void)talk.next(); };
  const Stack stack(daemon);
  Program program({"up", "--watch"}, stack.folder());
  daemon.await("apply up", 2);

  stack.write("[broken");
  stack.write("sleep 2");
  daemon.await("apply up", 4);

  daemon.mark("killed");
  program.signal(SIGINT);
  const Ended ended = program.end();
  CHECK(ended.code == 0);
  daemon.mark("over");
}
