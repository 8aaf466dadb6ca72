#include "api/store.h"

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "api/lock.h"
#include "base/file.h"

namespace {

using api::SqliteStore;

struct Folder {
  Folder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Folder() { CHECK(base::remove_tree(path)); }
  std::string file() const { return path + "/state.db"; }
  std::string path = "/tmp/container-store-test-XXXXXX";
};

std::unique_ptr<SqliteStore> open_store(const std::string& file) {
  auto store = SqliteStore::open({.path = file, .wall_ns = 1, .reserve_bytes = 65536});
  REQUIRE_MESSAGE(store, (store ? "" : store.error().to_string()));
  return std::move(*store);
}

planner::ContainerRecord container(const std::string& id) {
  planner::ContainerRecord record;
  record.id = id;
  record.applied.image = "docker.io/library/busybox:latest";
  record.image_digest = "sha256:" + std::string(64, 'a');
  return record;
}

planner::Plan stop_plan(const std::string& id) {
  planner::Plan plan;
  plan.command = "stop";
  plan.lineage = "l";
  plan.steps.push_back({.id = {1},
                        .address = "container." + id,
                        .operation = planner::StopContainer{.id = id},
                        .reason = "asked to stop it"});
  return plan;
}

/// Runs `work` in a child process and gives its wait status.
template <class Work>
int in_child(const Work& work) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    work();
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

std::vector<std::string> files_beside(const std::string& file, const std::string& infix) {
  std::vector<std::string> found;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(file).parent_path()))
    if (entry.path().filename().string().find(infix) != std::string::npos)
      found.push_back(entry.path().string());
  return found;
}

}  // namespace

TEST_CASE("records come back after the store was closed and opened") {
  const Folder folder;
  std::string lineage;
  {
    auto store = open_store(folder.file());
    lineage = store->load()->lineage;
    REQUIRE(store->put_container(container("web")));
    REQUIRE(store->put_network({.name = "front", .subnet = "10.0.0.0/24"}));
    REQUIRE(store->put_volume({.name = "data"}));
    REQUIRE(store->put_container(container("gone")));
    REQUIRE(store->erase_container("gone"));
  }
  auto store = open_store(folder.file());

  const auto state = store->load();

  REQUIRE(state);
  CHECK(state->lineage == lineage);
  CHECK(lineage.size() == 36);
  CHECK(state->serial == 5);
  REQUIRE(state->containers.size() == 1);
  CHECK(state->containers[0].id == "web");
  CHECK(state->containers[0].applied.image == "docker.io/library/busybox:latest");
  REQUIRE(state->networks.size() == 1);
  CHECK(state->networks[0].subnet == "10.0.0.0/24");
  CHECK(state->volumes.size() == 1);
  CHECK(store->notes().empty());
}

TEST_CASE("every opening is a new epoch") {
  const Folder folder;
  CHECK(open_store(folder.file())->epoch() == 1);
  CHECK(open_store(folder.file())->epoch() == 2);
}

TEST_CASE("an unfinished plan comes back with what is known of its steps") {
  const Folder folder;
  uint64_t id = 0;
  {
    auto store = open_store(folder.file());
    REQUIRE(store->begin_plan(stop_plan("done"), "stop by pid 1", 41));
    id = store->begin_plan(stop_plan("web"), "stop by pid 2", 42).value();
    REQUIRE(store->record_step(
        id, {.step = {1}, .outcome = reconciler::StepOutcome::Started, .error = ""}));
    REQUIRE(store->record_step(
        id, {.step = {1}, .outcome = reconciler::StepOutcome::Failed, .error = "no"}));
    REQUIRE(store->finish_plan(id - 1));
  }
  auto store = open_store(folder.file());

  const auto state = store->load();

  REQUIRE(state->open_plans.size() == 1);
  const reconciler::JournalPlan& open = state->open_plans[0];
  CHECK(open.id == id);
  CHECK(open.owner == "stop by pid 2");
  CHECK(open.started_wall_ns == 42);
  REQUIRE(open.steps.size() == 1);
  CHECK(open.steps[0].outcome == reconciler::StepOutcome::Failed);
  CHECK(open.steps[0].error == "no");
}

TEST_CASE("numbers of plans are never used twice") {
  const Folder folder;
  auto store = open_store(folder.file());
  const uint64_t first = store->begin_plan(stop_plan("a"), "x", 1).value();
  REQUIRE(store->finish_plan(first));

  CHECK(store->begin_plan(stop_plan("b"), "x", 1).value() > first);
}

TEST_CASE("what was acknowledged before a kill is there afterwards") {
  const Folder folder;
  // The child tells each acknowledged write through the pipe, and is killed in the middle.
  auto pipe = base::make_pipe().value();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    auto store = SqliteStore::open({.path = folder.file(), .reserve_bytes = 65536});
    for (int n = 0; store; ++n) {
      if (!(*store)->put_container(container(fmt::format("c{}", n)))) ::_exit(1);
      if (!base::write_all(pipe.writer.get(), "x")) ::_exit(1);
    }
    ::_exit(1);
  }
  pipe.writer.reset();
  size_t acknowledged = 0;
  char buffer[64];
  while (acknowledged < 40) acknowledged += base::read_some(pipe.reader.get(), buffer).value();
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  for (size_t more = 1; more > 0; acknowledged += more)
    more = base::read_some(pipe.reader.get(), buffer).value();

  auto store = open_store(folder.file());
  const auto state = store->load();

  REQUIRE(state);
  CHECK(state->containers.size() >= acknowledged);
  CHECK(state->containers.size() <= acknowledged + 1);
  CHECK(state->serial == state->containers.size());
  CHECK(store->epoch() == 2);
  CHECK(store->notes().empty());
}

TEST_CASE("a file that is no database is set aside, whole, and a new store begun") {
  const Folder folder;
  REQUIRE(base::write_file_atomically(folder.file(), std::string(9000, 'x')));

  auto store = open_store(folder.file());

  CHECK(store->load()->containers.empty());
  REQUIRE(store->notes().size() == 1);
  const auto aside = files_beside(folder.file(), ".unreadable-1970-01-01T00-00-00Z");
  REQUIRE(aside.size() == 1);
  CHECK(base::read_file(aside[0], 10000).value() == std::string(9000, 'x'));
  CHECK(store->notes()[0].find(aside[0]) != std::string::npos);
}

TEST_CASE("a database of a newer format, or of another program, is set aside") {
  const Folder folder;
  {
    auto database = api::Database::open(folder.file()).value();
    REQUIRE(database.execute("CREATE TABLE theirs (x); PRAGMA user_version=7"));
  }

  auto store = open_store(folder.file());

  REQUIRE(store->notes().size() == 1);
  CHECK(store->notes()[0].find("format 7") != std::string::npos);
  CHECK(files_beside(folder.file(), ".unreadable-").size() == 1);
}

TEST_CASE("a file we may not read stops the start and is left alone") {
  const Folder folder;
  REQUIRE(base::make_directories(folder.file()));

  const auto store = SqliteStore::open({.path = folder.file(), .reserve_bytes = 65536});

  REQUIRE(!store);
  CHECK(files_beside(folder.file(), ".unreadable-").empty());
}

TEST_CASE("a row that changed under us goes to the quarantine, the others stay") {
  const Folder folder;
  {
    auto store = open_store(folder.file());
    REQUIRE(store->put_container(container("web")));
    REQUIRE(store->put_container(container("db")));
  }
  {
    auto database = api::Database::open(folder.file()).value();
    REQUIRE(
        database.execute("UPDATE containers SET content = replace(content, 'busybox', "
                         "'evilbox') WHERE key = 'db'"));
  }
  auto store = open_store(folder.file());

  const auto state = store->load();

  REQUIRE(state);
  REQUIRE(state->containers.size() == 1);
  CHECK(state->containers[0].id == "web");
  CHECK(store->notes() ==
        std::vector<std::string>{"'db' in containers cannot be read (its checksum does not match); "
                                 "it was moved to the quarantine"});
  CHECK(store->load()->containers.size() == 1);
}

TEST_CASE("a byte flipped anywhere is noticed or harmless, and never ends the daemon") {
  const Folder folder;
  {
    auto store = open_store(folder.file());
    for (int n = 0; n < 20; ++n) REQUIRE(store->put_container(container(fmt::format("c{}", n))));
    REQUIRE(store->begin_plan(stop_plan("c1"), "x", 1));
  }
  const std::string good = base::read_file(folder.file(), 16 << 20).value();
  size_t noticed = 0;
  size_t silent_losses = 0;
  constexpr size_t probes = 200;

  for (size_t probe = 0; probe < probes; ++probe) {
    const Folder copy;
    std::string bytes = good;
    bytes[(probe * 7919) % bytes.size()] ^= 0x5a;
    std::ofstream(copy.file(), std::ios::binary) << bytes;
    const int status = in_child([&] {
      auto store = SqliteStore::open({.path = copy.file(), .wall_ns = 1, .reserve_bytes = 65536});
      if (!store) ::_exit(2);
      const auto state = (*store)->load();
      if (!state || !(*store)->notes().empty()) ::_exit(2);
      if (!(*store)->put_container(container("new"))) ::_exit(2);
      ::_exit(state->containers.size() == 20 && state->open_plans.size() == 1 ? 0 : 3);
    });
    REQUIRE(WIFEXITED(status));
    noticed += WEXITSTATUS(status) == 2;
    silent_losses += WEXITSTATUS(status) == 3;
  }

  CHECK(noticed > 0);
  CHECK(silent_losses == 0);
}

TEST_CASE("a file cut off anywhere is set aside or readable") {
  const Folder folder;
  {
    auto store = open_store(folder.file());
    for (int n = 0; n < 20; ++n) REQUIRE(store->put_container(container(fmt::format("c{}", n))));
  }
  const std::string good = base::read_file(folder.file(), 16 << 20).value();

  for (size_t part = 0; part < 40; ++part) {
    const Folder copy;
    std::ofstream(copy.file(), std::ios::binary) << good.substr(0, good.size() * part / 40);
    const int status = in_child([&] {
      auto store = SqliteStore::open({.path = copy.file(), .wall_ns = 1, .reserve_bytes = 65536});
      ::_exit(store && (*store)->load() ? 0 : 1);
    });
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
}

TEST_CASE("a second daemon is refused and told who is there") {
  const Folder folder;
  const auto first = api::lock_app_root(folder.path);
  REQUIRE(first);

  const auto second = api::lock_app_root(folder.path);

  REQUIRE(!second);
  CHECK(second.error().code() == base::ErrorCode::Busy);
  CHECK(second.error().to_string().find(fmt::format("pid {}", ::getpid())) != std::string::npos);
}

TEST_CASE("the lock of a killed daemon is free") {
  const Folder folder;
  const int status = in_child([&] {
    const auto held = api::lock_app_root(folder.path);
    ::kill(::getpid(), SIGKILL);
  });
  REQUIRE(WIFSIGNALED(status));

  CHECK(api::lock_app_root(folder.path));
}
