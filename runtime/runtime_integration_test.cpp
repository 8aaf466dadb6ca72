/// The driver against real virtual machines. Needs the guest's folder: CONTAINER_GUEST_DIR.

#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <set>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "base/file.h"
#include "base/process.h"
#include "base/text.h"
#include "runtime/driver.h"

namespace fs = std::filesystem;
using base::Deadline;
using reconciler::ContainerSetup;
using reconciler::VmEvent;
using reconciler::VmPhase;

namespace {

constexpr int event_timeout_ms = 60'000;

/// Ends of containers, as the driver tells them.
class Events {
 public:
  void add(const VmEvent& event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
    changed_.notify_all();
  }
  VmEvent await(const std::function<bool(const VmEvent&)>& wanted) {
    std::unique_lock lock(mutex_);
    const Deadline deadline = Deadline::in_ms(event_timeout_ms);
    for (;;) {
      for (const VmEvent& event : events_)
        if (wanted(event)) return event;
      REQUIRE_FALSE(deadline.passed());
      changed_.wait_for(lock, std::chrono::milliseconds(deadline.remaining_ms()));
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<VmEvent> events_;
};

/// One system with a busybox image; nothing is left of it afterwards.
struct System {
  fs::path folder;
  std::shared_ptr<Events> events = std::make_shared<Events>();
  std::unique_ptr<runtime::RuntimeDriver> driver;
  uint64_t epoch = 0;

  System() {
    std::string name = (fs::temp_directory_path() / "runtime-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder = name;
    make_layer();
    open();
  }
  ~System() {
    if (driver)  // a test that failed half-way may have left some
    {
      const auto left = driver->list();
      CHECK(left);
      for (const auto& seen : left.value_or(std::vector<reconciler::VmObservation>{})) {
        CHECK(driver->stop(seen.id, SIGKILL, 0));
        CHECK(driver->remove(seen.id));
      }
    }
    driver.reset();
    fs::remove_all(folder);
  }

  void open() {
    const char* guest = std::getenv("CONTAINER_GUEST_DIR");
    REQUIRE_MESSAGE(guest != nullptr, "CONTAINER_GUEST_DIR names the folder of vmlinux");
    driver.reset();
    driver = std::move(runtime::RuntimeDriver::open({.app_root = folder / "app",
                                                     .run_root = folder / "run",
                                                     .programs = CONTAINER_BINARY_DIR "/bin",
                                                     .guest = guest,
                                                     .epoch = ++epoch,
                                                     .accelerator = "tcg"})
                           .value());
    REQUIRE(driver->adopt([seen = events](const VmEvent& event) { seen->add(event); }));
  }

  void make_layer() const {
    const fs::path root = folder / "root";
    for (const char* part : {"bin", "tmp", "etc"}) fs::create_directories(root / part);
    fs::copy_file("/bin/busybox", root / "bin/busybox");
    for (const char* name :
         {"sh", "cat", "sleep", "id", "yes", "head", "stty", "ls", "seq", "od", "date", "grep"})
      fs::create_symlink("busybox", root / "bin" / name);
    const auto made =
        base::run_process({"/usr/bin/mkfs.erofs", "--quiet", "-T0", folder / "layer.erofs", root},
                          Deadline::in_ms(event_timeout_ms));
    REQUIRE(made);
    REQUIRE_MESSAGE(made->exit_code == 0, made->output);
  }

  reconciler::StartRequest request(const std::string& id, const std::string& script) const {
    reconciler::StartRequest request;
    request.setup.id = id;
    request.setup.service.command = {"/bin/sh", "-c", script};
    request.setup.service.memory_bytes = 128u << 20;
    request.setup.image.reference = "test";
    request.setup.image.layer_disks = {folder / "layer.erofs"};
    request.hosts = "127.0.0.1 localhost\n";
    return request;
  }

  void run(const std::string& id, const std::string& script) { run(request(id, script)); }
  void run(const reconciler::StartRequest& request) {
    REQUIRE(driver->create(request.setup));
    const auto started = driver->start(request);
    REQUIRE_MESSAGE(started, started.error().to_string());
  }

  std::string logs(const std::string& id) {
    std::string text;
    REQUIRE(driver->logs(id, {}, [&](int, std::string_view bytes) {
      text += bytes;
      return true;
    }));
    return text;
  }
};

/// Folders of templates that are whole.
std::vector<fs::path> templates_of(const System& system) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(system.folder / "app/templates/machines"))
    if (fs::exists(entry.path() / "template.json")) found.push_back(entry.path());
  return found;
}

/// Boots a container once, so that there is a template of its shape.
void make_template(System& system) {
  system.run("first", "exit 0");
  const auto settled = system.driver->settle(Deadline::in_ms(event_timeout_ms));
  REQUIRE_MESSAGE(settled, settled.error().to_string());
  REQUIRE(templates_of(system).size() == 1);
}

bool is_clone(System& system, const std::string& id) {
  const auto machines = system.driver->list().value();
  for (const auto& seen : machines) {
    if (seen.id != id) continue;
    const std::string path = fmt::format("/proc/{}/cmdline", seen.pid);
    return base::read_file(path, 1u << 20).value().find("-incoming") != std::string::npos;
  }
  FAIL("there is no machine " << id);
  return false;
}

bool is_exit(const VmEvent& event) { return event.kind == VmEvent::Kind::Exited; }

/// What a process printed, up to and with `text`.
std::string read_until(reconciler::ProcessSession& session, const std::string& text) {
  std::string seen;
  (void)session.run([&](int, std::string_view bytes) {
    seen += bytes;
    return seen.find(text) == std::string::npos;
  });
  return seen;
}

struct Collected {
  std::string out;
  std::string err;
  int32_t code = -1;
};

Collected collect(reconciler::ProcessSession& session) {
  Collected all;
  const auto code = session.run([&](int stream, std::string_view bytes) {
    (stream == 1 ? all.out : all.err) += bytes;
    return true;
  });
  REQUIRE_MESSAGE(code, code.error().to_string());
  all.code = *code;
  return all;
}

}  // namespace

TEST_CASE("what is attached before the start sees everything, in order, and the exit code") {
  System system;
  const auto request = system.request("one", "echo hello; echo oops >&2; exit 7");
  REQUIRE(system.driver->create(request.setup));
  const auto session = system.driver->attach("one", true).value();
  const auto started = system.driver->start(request);
  REQUIRE_MESSAGE(started, started.error().to_string());
  const Collected all = collect(*session);
  CHECK(all.out == "hello\n");
  CHECK(all.err == "oops\n");
  CHECK(all.code == 7);
  const VmEvent end = system.events->await(is_exit);
  CHECK(end.exit.code == 7);
  CHECK_FALSE(end.exit.vm_died);
  CHECK(system.driver->list().value().at(0).phase == VmPhase::Exited);
}

TEST_CASE("stdin, exec, its exit code and a terminal's size reach the processes") {
  System system;
  auto request = system.request("talk", "cat; sleep 1000");
  request.setup.service.stdin_open = true;
  system.run(request);
  const auto main = system.driver->attach("talk", true).value();
  REQUIRE(main->write_stdin("to main\n"));
  reconciler::ExecRequest exec;
  exec.arguments = {"sh", "-c", "stty size; cat; exit 5"};
  exec.terminal = true;
  exec.stdin_open = true;
  exec.rows = 33;
  exec.columns = 77;
  const auto session = system.driver->exec("talk", exec).value();
  REQUIRE(session->write_stdin("typed\n\x04"));
  const Collected all = collect(*session);
  CHECK(all.out.find("33 77") != std::string::npos);
  CHECK(all.out.find("typed") != std::string::npos);
  CHECK(all.code == 5);
  REQUIRE(main->close_stdin());
  CHECK(read_until(*main, "to main\n") == "to main\n");
}

TEST_CASE("stop gives a process its time, then ends it; the disk outlives it") {
  System system;
  system.run("polite",
             "trap 'echo bye; exit 3' TERM; echo kept > /kept; echo up; "
             "while :; do sleep 0.1; done");
  CHECK(read_until(*system.driver->attach("polite", true).value(), "up\n") == "up\n");
  const auto ended = system.driver->stop("polite", SIGTERM, 10'000);
  REQUIRE_MESSAGE(ended, ended.error().to_string());
  CHECK(ended->code == 3);
  CHECK(system.logs("polite") == "up\nbye\n");

  REQUIRE(system.driver->start(system.request("polite",
                                              "cat /kept; trap '' TERM; echo deaf; "
                                              "while :; do sleep 0.1; done")));
  CHECK(read_until(*system.driver->attach("polite", true).value(), "deaf\n") == "kept\ndeaf\n");
  CHECK(system.driver->stop("polite", SIGTERM, 300)->code == 137);
}

TEST_CASE("a slow attached reader loses nothing") {
  System system;
  constexpr size_t lines = 400'000;  // more than the log's segments hold
  auto request = system.request(
      "loud", fmt::format("i=0; while [ $i -lt 8 ]; do seq 1 {}; i=$((i+1)); done", lines / 8));
  REQUIRE(system.driver->create(request.setup));
  const auto session = system.driver->attach("loud", true).value();
  REQUIRE(system.driver->start(request));
  size_t count = 0;
  bool first = true;
  const auto code = session->run([&](int, std::string_view bytes) {
    // Slow: a whole other process comes and goes before the first bytes are taken.
    if (std::exchange(first, false)) {
      reconciler::ExecRequest pause;
      pause.arguments = {"seq", "1", "2000"};
      collect(*system.driver->exec("loud", pause).value());
    }
    count += static_cast<size_t>(std::count(bytes.begin(), bytes.end(), '\n'));
    return true;
  });
  CHECK(code == 0);
  CHECK(count == lines);
}

TEST_CASE("a machine outlives its driver: the next one has its output and its end") {
  System system;
  system.run("survivor", "echo before; sleep 3; echo after; exit 9");
  system.open();
  CHECK(system.driver->list().value().at(0).phase == VmPhase::Running);
  const auto exec = system.driver->exec("survivor", {.arguments = {"id", "-u"}}).value();
  CHECK(collect(*exec).out == "0\n");
  CHECK(system.events->await(is_exit).exit.code == 9);
  CHECK(system.logs("survivor") == "before\nafter\n");
}

TEST_CASE("an end that no driver saw is found, and a killed machine is a death") {
  System system;
  system.run("victim", "sleep 1000");
  const int64_t pid = system.driver->list().value().at(0).pid;
  REQUIRE(::kill(static_cast<pid_t>(pid), SIGKILL) == 0);
  const VmEvent end = system.events->await(is_exit);
  CHECK(end.exit.vm_died);
  CHECK(end.exit.code == 255);

  REQUIRE(system.driver->start(system.request("victim", "exit 4")));
  system.driver.reset();
  system.open();
  const Deadline deadline = Deadline::in_ms(event_timeout_ms);
  while (system.driver->list().value().at(0).phase != VmPhase::Exited)
    REQUIRE_FALSE(deadline.passed());
  CHECK(system.driver->list().value().at(0).exit->code == 4);
}

TEST_CASE("shared folders carry files both ways, read-only ones only in") {
  System system;
  fs::create_directories(system.folder / "share");
  fs::create_directories(system.folder / "locked");
  REQUIRE(base::write_file_atomically(system.folder / "share/in", "from the host\n"));
  auto request = system.request("shares",
                                "cat /data/in; echo back > /data/out; "
                                "echo no > /locked/x && echo wrong");
  request.setup.shares = {
      {.host_path = system.folder / "share", .target = "/data"},
      {.host_path = system.folder / "locked", .target = "/locked", .read_only = true}};
  REQUIRE(system.driver->create(request.setup));
  const auto session = system.driver->attach("shares", true).value();
  const auto started = system.driver->start(request);
  REQUIRE_MESSAGE(started, started.error().to_string());
  CHECK(collect(*session).out == "from the host\n");
  CHECK(base::read_file(system.folder / "share/out", 100).value() == "back\n");
  CHECK(fs::is_empty(system.folder / "locked"));
}

TEST_CASE("a health check's verdicts are told") {
  System system;
  auto request = system.request("ill", "sleep 2; echo ok > /ok; sleep 1000");
  request.setup.service.healthcheck =
      spec::HealthCheck{.test = {"cat", "/ok"}, .interval_ns = 300'000'000, .retries = 2};
  system.run(request);
  for (const auto verdict : {reconciler::Health::Unhealthy, reconciler::Health::Healthy})
    system.events->await([&](const VmEvent& event) {
      return event.kind == VmEvent::Kind::Health && event.health == verdict;
    });
  CHECK(system.driver->list().value().at(0).health == reconciler::Health::Healthy);
}

TEST_CASE("a program that does not exist fails the start and leaves nothing running") {
  System system;
  auto request = system.request("absent", "");
  request.setup.service.command = {"/no/such/program"};
  REQUIRE(system.driver->create(request.setup));
  const auto started = system.driver->start(request);
  REQUIRE_FALSE(started);
  CHECK(started.error().to_string().find("/no/such/program") != std::string::npos);
  CHECK(fs::is_empty(system.folder / "run/vms"));
}

TEST_CASE("after a cold start the next machine is a clone, unless the container wants it cold") {
  System system;
  make_template(system);
  system.run("clone", "echo up; sleep 1000");
  CHECK(is_clone(system, "clone"));
  CHECK(read_until(*system.driver->attach("clone", true).value(), "up\n") == "up\n");
  auto cold = system.request("cold", "sleep 1000");
  cold.setup.service.boot = spec::BootMode::Cold;
  system.run(cold);
  CHECK_FALSE(is_clone(system, "cold"));
}

TEST_CASE("clones share neither randomness nor boot id nor address, and their clocks are right") {
  System system;
  make_template(system);
  constexpr size_t clones = 6;
  std::set<std::string> random;
  std::set<std::string> boot_ids;
  std::set<std::string> layouts;
  for (size_t i = 0; i < clones; ++i) {
    const std::string id = fmt::format("clone{}", i);
    system.run(id,
               "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/boot_id; "
               "grep stack /proc/self/maps; date +%s; sleep 1000");
    CHECK(is_clone(system, id));
    const auto session = system.driver->attach(id, true).value();
    std::vector<std::string> lines;
    std::string seen;
    (void)session->run([&](int, std::string_view bytes) {
      seen += bytes;
      lines = base::split(seen, '\n');
      return lines.size() < 5;  // the last is what follows the last line's end
    });
    REQUIRE(lines.size() >= 4);
    random.insert(lines[0]);
    boot_ids.insert(lines[1]);
    layouts.insert(lines[2]);
    const int64_t there = std::stoll(lines[3]);
    const int64_t here = base::wall_time_ns() / 1'000'000'000;
    CHECK(std::abs(there - here) <= 5);
    REQUIRE(system.driver->stop(id, SIGKILL, 0));
  }
  CHECK(random.size() == clones);
  CHECK(boot_ids.size() == clones);
  CHECK(layouts.size() == clones);
}

TEST_CASE("a clone finds on its disk what an earlier machine of the container wrote") {
  System system;
  make_template(system);
  for (int run = 1; run <= 3; ++run) {
    auto request = system.request("diary", "echo again >> /diary; cat /diary; sleep 1000");
    REQUIRE(system.driver->create(request.setup));
    REQUIRE(system.driver->start(request));
    CHECK(is_clone(system, "diary"));
    std::string wanted;
    for (int i = 0; i < run; ++i) wanted += "again\n";
    CHECK(read_until(*system.driver->attach("diary", true).value(), wanted) == wanted);
    REQUIRE(system.driver->stop("diary", SIGKILL, 0));
  }
}

TEST_CASE("a template that was changed on disk is thrown away, and the container boots cold") {
  System system;
  make_template(system);
  const fs::path memory = templates_of(system).at(0) / "memory";
  REQUIRE(::chmod(memory.c_str(), 0600) == 0);
  {
    const auto file = base::open_file(memory, O_WRONLY).value();
    REQUIRE(::pwrite(file.get(), "changed", 7, 20 << 20) == 7);
  }
  system.open();
  system.run("careful", "sleep 1000");
  CHECK_FALSE(is_clone(system, "careful"));
}

TEST_CASE("a template that gives no clone costs the container nothing but time") {
  System system;
  make_template(system);
  system.run("good", "sleep 1000");  // it has been verified by now
  const fs::path state = templates_of(system).at(0) / "state";
  REQUIRE(::chmod(state.c_str(), 0600) == 0);
  REQUIRE(::truncate(state.c_str(), 100) == 0);
  system.run("stubborn", "sleep 1000");
  CHECK_FALSE(is_clone(system, "stubborn"));
  CHECK(templates_of(system).empty());
}

TEST_CASE("what a killed maker left is removed by the next program") {
  System system;
  const fs::path half = system.folder / "app/templates/machines/making-x";
  fs::create_directories(half);
  fs::create_directories(system.folder / "run/templates/some-uuid");
  system.open();
  CHECK_FALSE(fs::exists(half));
  CHECK(fs::is_empty(system.folder / "run/templates"));
}

TEST_CASE("machines of other shapes have templates of their own") {
  System system;
  make_template(system);
  auto larger = system.request("larger", "sleep 1000");
  larger.setup.service.memory_bytes = 200u << 20;
  system.run(larger);
  CHECK_FALSE(is_clone(system, "larger"));
  REQUIRE(system.driver->settle(Deadline::in_ms(event_timeout_ms)));
  CHECK(templates_of(system).size() == 2);
}
