#include "base/file.h"

#include <cstdlib>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "base/fd.h"
#include "base/process.h"

namespace {

struct Folder {
  Folder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Folder() { CHECK(base::remove_tree(path)); }
  std::string path = "/tmp/container-base-test-XXXXXX";
};

}  // namespace

TEST_CASE("a file is replaced whole and keeps its mode") {
  const Folder folder;
  const std::string path = folder.path + "/state";
  REQUIRE(base::write_file_atomically(path, "old"));
  REQUIRE(base::write_file_atomically(path, "new", 0640));

  CHECK(base::read_file(path, 100).value() == "new");
  struct stat info {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0640);
}

TEST_CASE("a file that may be lost with the power is replaced whole, too") {
  const Folder folder;
  const std::string path = folder.path + "/state";
  REQUIRE(base::write_file_atomically(path, "old", 0640));
  REQUIRE(base::replace_file(path, "new"));

  CHECK(base::read_file(path, 100).value() == "new");
  struct stat info {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  const auto lost = base::replace_file(folder.path + "/absent/state", "new");
  REQUIRE_FALSE(lost);
  CHECK(lost.error().to_string().find("/absent/state") != std::string::npos);
}

TEST_CASE("reading stops at the bound") {
  const Folder folder;
  REQUIRE(base::write_file_atomically(folder.path + "/big", std::string(1000, 'x')));
  CHECK_FALSE(base::read_file(folder.path + "/big", 999));
  CHECK(base::read_file(folder.path + "/big", 1000).value().size() == 1000);
}

TEST_CASE("removing a tree does not follow its links") {
  const Folder folder;
  REQUIRE(base::make_directories(folder.path + "/outside"));
  REQUIRE(base::write_file_atomically(folder.path + "/outside/kept", "kept"));
  REQUIRE(base::make_directories(folder.path + "/tree/deep"));
  REQUIRE(::symlink((folder.path + "/outside").c_str(), (folder.path + "/tree/link").c_str()) == 0);

  CHECK(base::remove_tree(folder.path + "/tree"));

  CHECK_FALSE(base::path_exists(folder.path + "/tree"));
  CHECK(base::path_exists(folder.path + "/outside/kept"));
}

TEST_CASE("a socket in a folder deeper than sun_path can be listened on and reached") {
  const Folder folder;
  const std::string deep = folder.path + "/" + std::string(120, 'd');
  REQUIRE(base::make_directories(deep));
  const auto listening = base::listen_unix(deep + "/a.sock");
  REQUIRE(listening);
  CHECK(base::connect_unix(deep + "/a.sock"));
  CHECK(base::connect_unix(deep + "/b.sock").error().code() == base::ErrorCode::NotFound);
}

TEST_CASE("a process is run with just what it is given, and its output collected") {
  const auto finished = base::run_process({"/bin/sh", "-c", "echo out; echo err >&2; exit 3"},
                                          base::Deadline::in_ms(10'000));
  REQUIRE(finished);
  CHECK(finished->exit_code == 3);
  CHECK(finished->output == "out\nerr\n");
}

TEST_CASE("a process that does not finish is ended at the deadline") {
  const auto finished =
      base::run_process({"/bin/sh", "-c", "exec tail -f /dev/null"}, base::Deadline::in_ms(50));
  REQUIRE_FALSE(finished);
  CHECK(finished.error().code() == base::ErrorCode::Timeout);
}

TEST_CASE("a program that is not there is a NotFound, not a strange exit code") {
  const auto started =
      base::spawn({.arguments = {"/nonexistent/program"}, .environment = {}, .descriptors = {}});
  REQUIRE_FALSE(started);
  CHECK(started.error().code() == base::ErrorCode::NotFound);
}

TEST_CASE("descriptors land on the numbers asked for, even when they cross") {
  base::Pipe first = base::make_pipe().value();
  base::Pipe second = base::make_pipe().value();
  const auto child =
      base::spawn({.arguments = {"/bin/sh", "-c", "echo a >&5; echo b >&6"},
                   .environment = {},
                   .descriptors = {{first.writer.get(), 5}, {second.writer.get(), 6}}});
  REQUIRE(child);
  first.writer.reset();
  second.writer.reset();
  const base::UniqueFd pidfd = base::open_process(*child).value();
  CHECK(base::await_process(pidfd.get(), child->pid, base::Deadline::in_ms(5'000)));

  char buffer[16];
  CHECK(std::string(buffer, base::read_some(first.reader.get(), buffer).value()) == "a\n");
  CHECK(std::string(buffer, base::read_some(second.reader.get(), buffer).value()) == "b\n");
}

TEST_CASE("a pid that was reused is not taken for the process we knew") {
  base::ProcessIdentity stranger = base::identify_process(::getpid()).value();
  CHECK(base::open_process(stranger));
  stranger.start_ticks += 1;
  CHECK(base::open_process(stranger).error().code() == base::ErrorCode::NotFound);
}
