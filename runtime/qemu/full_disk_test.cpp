#include "runtime/qemu/full_disk.h"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace {

using base::Result;
using runtime::IoLoop;
using runtime::qemu::FullDiskWatch;

/// A QEMU that says what the test tells it to, and hears what it is told.
struct Qemu {
  explicit Qemu(uint64_t settle_ms = 1) : loop(std::move(IoLoop::create().value())) {
    int ends[2] = {-1, -1};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    ours.reset(ends[0]);
    base::UniqueFd theirs(ends[1]);
    loop->run([&] {
      watch = std::move(FullDiskWatch::create(*loop, std::move(theirs),
                                              {.has_room = [this] { return looked(); },
                                               .on_change = [this](bool full) { noted(full); },
                                               .look_first_ms = 1,
                                               .look_max_ms = 4,
                                               .settle_ms = settle_ms})
                            .value());
    });
    say("{\"QMP\": {}}");
    REQUIRE(hear() == "{\"execute\":\"qmp_capabilities\"}");
    REQUIRE(hear() == "{\"execute\":\"query-status\"}");
  }
  ~Qemu() {
    loop->run([this] { watch.reset(); });
  }

  bool looked() {
    const std::lock_guard lock(mutex);
    ++looks;
    changed.notify_all();
    return room;
  }
  void noted(bool full) {
    const std::lock_guard lock(mutex);
    changes.push_back(full);
    changed.notify_all();
  }
  void say(const std::string& line) {
    const std::string text = line + "\r\n";
    REQUIRE(::send(ours.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  }
  void say_status(const std::string& status) {
    say("{\"return\": {\"status\": \"" + status + "\", \"running\": false}}");
  }
  /// As QEMU does at a write without room.
  void stop() {
    say("{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"nospace\": true, \"action\": \"stop\"}}");
    say("{\"event\": \"STOP\"}");
    REQUIRE(hear() == "{\"execute\":\"query-status\"}");
    say_status("io-error");
  }
  std::string hear() {
    size_t end = 0;
    while ((end = heard.find('\n')) == std::string::npos) {
      pollfd ready{ours.get(), POLLIN, 0};
      if (::poll(&ready, 1, 5'000) != 1) return "nothing";
      char buffer[4096];
      const ssize_t count = ::recv(ours.get(), buffer, sizeof buffer, 0);
      if (count <= 0) return "the end";
      heard.append(buffer, static_cast<size_t>(count));
    }
    std::string line = heard.substr(0, end);
    heard.erase(0, end + 1);
    return line;
  }
  bool is_silent() {
    pollfd ready{ours.get(), POLLIN, 0};
    return heard.empty() && ::poll(&ready, 1, 0) == 0;
  }
  template <class Ready>
  bool wait(const Ready& ready) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(5), ready);
  }
  std::vector<bool> told() {
    const std::lock_guard lock(mutex);
    return changes;
  }
  void make_room() {
    const std::lock_guard lock(mutex);
    room = true;
  }

  std::unique_ptr<IoLoop> loop;
  base::UniqueFd ours;
  std::unique_ptr<FullDiskWatch> watch;
  std::string heard;
  std::mutex mutex;
  std::condition_variable changed;
  bool room = false;
  int looks = 0;
  std::vector<bool> changes;
};

}  // namespace

TEST_CASE("a machine that a full disk stopped goes on once there is room, and both are told") {
  Qemu qemu;
  qemu.say_status("running");

  qemu.stop();

  CHECK(qemu.wait([&] { return qemu.looks > 3; }));
  CHECK(qemu.told() == std::vector{true});
  CHECK(qemu.is_silent());
  qemu.make_room();
  CHECK(qemu.hear() == "{\"execute\":\"cont\"}");
  qemu.say("{\"return\": {}}");
  qemu.say("{\"event\": \"RESUME\"}");
  CHECK(qemu.wait([&] { return qemu.changes.size() == 2; }));
  CHECK(qemu.told() == std::vector{true, false});
}

TEST_CASE("a machine that stops again at once is not told of as going on") {
  Qemu qemu(60'000);
  qemu.make_room();
  qemu.stop();
  REQUIRE(qemu.hear() == "{\"execute\":\"cont\"}");

  qemu.say("{\"return\": {}}");
  qemu.say("{\"event\": \"RESUME\"}\r\n{\"event\": \"STOP\"}");
  const std::string asked = qemu.hear();
  qemu.say_status("io-error");

  CHECK(asked == "{\"execute\":\"query-status\"}");
  CHECK(qemu.hear() == "{\"execute\":\"cont\"}");
  CHECK(qemu.told() == std::vector{true});
}

TEST_CASE("a machine that was stopped before anybody watched is found") {
  Qemu qemu;
  qemu.make_room();

  qemu.say_status("io-error");

  CHECK(qemu.hear() == "{\"execute\":\"cont\"}");
  CHECK(qemu.told() == std::vector{true});
}

TEST_CASE("a machine that somebody else stopped is left alone") {
  Qemu qemu;
  qemu.make_room();
  qemu.say_status("running");

  qemu.say("{\"event\": \"STOP\"}");
  REQUIRE(qemu.hear() == "{\"execute\":\"query-status\"}");
  qemu.say_status("paused");
  qemu.say("{\"event\": \"STOP\"}");

  CHECK(qemu.hear() == "{\"execute\":\"query-status\"}");
  CHECK(qemu.looks == 0);
  CHECK(qemu.told().empty());
}

TEST_CASE("whoever cannot wait has it looked at now") {
  Qemu qemu;
  qemu.say_status("io-error");
  REQUIRE(qemu.wait([&] { return !qemu.changes.empty(); }));

  bool without_room = true;
  qemu.loop->run([&] { without_room = qemu.watch->look_now(); });
  qemu.make_room();
  bool with_room = false;
  qemu.loop->run([&] { with_room = qemu.watch->look_now(); });

  CHECK_FALSE(without_room);
  CHECK(with_room);
  CHECK(qemu.hear() == "{\"execute\":\"cont\"}");
}
