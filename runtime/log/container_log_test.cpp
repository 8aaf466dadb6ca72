#include "runtime/log/container_log.h"

#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/file.h"

using runtime::ContainerLog;
using runtime::LogReader;
using runtime::LogReaderKind;
using runtime::LogStart;

namespace {

struct Folder {
  std::string path;
  Folder() {
    char name[] = "/tmp/log-test-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Folder() { (void)base::remove_tree(path); }
};

std::shared_ptr<ContainerLog> open(const Folder& folder, runtime::LogLimits limits = {}) {
  return ContainerLog::open(folder.path + "/log", limits).value();
}

/// Everything `reader` gives until it ends.
std::string drain(LogReader& reader, LogReader::Wait wait = LogReader::Wait::Never) {
  std::string all;
  for (;;) {
    auto chunk = reader.next(wait, {});
    REQUIRE(chunk);
    if (!*chunk) return all;
    all += (*chunk)->bytes;
  }
}

std::string last_lines(const std::shared_ptr<ContainerLog>& log, uint64_t lines) {
  const auto counter = log->read(LogStart::Oldest, LogReaderKind::Follower);
  const uint64_t begun = runtime::count_lines(*counter, {}).value();
  runtime::LineFilter filter(begun > lines ? begun - lines : 0);
  const auto reader = log->read(LogStart::Oldest, LogReaderKind::Follower);
  std::string all;
  for (;;) {
    auto chunk = reader->next(LogReader::Wait::Never, {});
    REQUIRE(chunk);
    if (!*chunk) return all;
    filter.pass(**chunk, [&](int, std::string_view bytes) {
      all += bytes;
      return true;
    });
  }
}

}  // namespace

TEST_CASE("what was appended is read back, byte for byte, by stream") {
  const Folder folder;
  const auto log = open(folder);
  REQUIRE(log->begin_run("r1").value() == 0);
  REQUIRE(log->append(1, 0, 7, std::string("out\0\xff", 5)));
  REQUIRE(log->append(2, 5, 8, "err"));

  const auto reader = log->read(LogStart::Oldest, LogReaderKind::Follower);
  const auto first = reader->next(LogReader::Wait::Never, {}).value();
  const auto second = reader->next(LogReader::Wait::Never, {}).value();

  REQUIRE(first);
  CHECK(first->bytes == std::string("out\0\xff", 5));
  CHECK(first->wall_ns == 7);
  REQUIRE(second);
  CHECK(second->stream == 2);
  CHECK(second->bytes == "err");
}

TEST_CASE("bytes that are sent again after a reconnect are stored once") {
  const Folder folder;
  const auto log = open(folder);
  REQUIRE(log->begin_run("r1"));
  REQUIRE(log->append(1, 0, 0, "hello "));
  REQUIRE(log->append(1, 0, 0, "hello world"));
  CHECK(drain(*log->read(LogStart::Oldest, LogReaderKind::Follower)) == "hello world");
}

TEST_CASE("a log opened again knows how much of the run it has") {
  const Folder folder;
  {
    const auto log = open(folder);
    REQUIRE(log->begin_run("r1"));
    REQUIRE(log->append(1, 0, 0, "12345"));
  }
  CHECK(open(folder)->begin_run("r1").value() == 5);
  CHECK(open(folder)->begin_run("r2").value() == 0);
}

TEST_CASE("a record torn by a crash is cut off, and what was whole stays") {
  const Folder folder;
  {
    const auto log = open(folder);
    REQUIRE(log->begin_run("r1"));
    REQUIRE(log->append(1, 0, 0, "whole\n"));
    REQUIRE(log->append(1, 6, 0, "torn\n"));
  }
  const std::string segment = folder.path + "/log/0000000001.log";
  const std::string content = base::read_file(segment, 1u << 20).value();
  REQUIRE(::truncate(segment.c_str(), static_cast<off_t>(content.size() - 3)) == 0);

  const auto log = open(folder);
  CHECK(log->begin_run("r1").value() == 6);
  REQUIRE(log->append(1, 6, 0, "again\n"));
  CHECK(drain(*log->read(LogStart::Oldest, LogReaderKind::Follower)) == "whole\nagain\n");
}

TEST_CASE("rotation keeps the size bounded, and the oldest kept line is whole") {
  const Folder folder;
  const auto log = open(folder, {.segment_bytes_max = 1000, .segments_max = 3});
  REQUIRE(log->begin_run("r1"));
  uint64_t offset = 0;
  for (int i = 0; i < 500; ++i) {
    const std::string line = fmt::format("line {:05}\n", i);
    REQUIRE(log->append(1, offset, 0, line.substr(0, 4)));
    REQUIRE(log->append(1, offset + 4, 0, line.substr(4)));
    offset += line.size();
  }
  const std::string kept = drain(*log->read(LogStart::Oldest, LogReaderKind::Follower));
  CHECK(kept.size() < 3000);
  CHECK(kept.starts_with("line "));
  CHECK(kept.ends_with("line 00499\n"));
}

TEST_CASE("the last lines are whole lines, an unfinished one among them") {
  const Folder folder;
  const auto log = open(folder);
  REQUIRE(log->begin_run("r1"));
  REQUIRE(log->append(1, 0, 0, "a\nb\nc"));
  CHECK(last_lines(log, 2) == "b\nc");
  CHECK(last_lines(log, 0) == "");
  CHECK(last_lines(log, 9) == "a\nb\nc");
}

TEST_CASE("lines of two streams are counted apart, so none is torn") {
  const Folder folder;
  const auto log = open(folder);
  REQUIRE(log->begin_run("r1"));
  REQUIRE(log->append(1, 0, 0, "o1 "));
  REQUIRE(log->append(2, 3, 0, "e1\n"));
  REQUIRE(log->append(1, 6, 0, "o1\n"));
  CHECK(last_lines(log, 1) == "e1\n");
  CHECK(last_lines(log, 2) == "o1 e1\no1\n");
}

TEST_CASE("a reader attached before the start sees all of that run, and its exit code") {
  const Folder folder;
  const auto log = open(folder);
  REQUIRE(log->begin_run("r0"));
  REQUIRE(log->append(1, 0, 0, "older run\n"));
  log->end_run({.exit_code = 1, .error = {}});
  const auto reader = log->read(LogStart::Run, LogReaderKind::Attached);

  std::string seen;
  std::thread reading([&] { seen = drain(*reader, LogReader::Wait::ForRunEnd); });
  REQUIRE(log->begin_run("r1"));
  REQUIRE(log->append(1, 0, 0, "new run\n"));
  log->end_run({.exit_code = 42, .error = {}});
  reading.join();

  CHECK(seen == "new run\n");
  CHECK(reader->end().exit_code == 42);
}

TEST_CASE("a start that fails ends those attached to it with its reason") {
  const Folder folder;
  const auto log = open(folder);
  const auto reader = log->read(LogStart::Run, LogReaderKind::Attached);
  log->end_run({.exit_code = std::nullopt, .error = "no kernel"});
  CHECK(drain(*reader, LogReader::Wait::ForRunEnd) == "");
  CHECK(reader->end().error == "no kernel");
}

TEST_CASE("an attached reader holds the writer back and loses nothing") {
  const Folder folder;
  const auto log = open(folder, {.segment_bytes_max = 4096, .segments_max = 3});
  const auto reader = log->read(LogStart::Run, LogReaderKind::Attached);
  REQUIRE(log->begin_run("r1"));
  constexpr uint64_t total = 1u << 20;
  std::atomic<uint64_t> written{0};
  std::thread writer([&] {
    const std::string block(1000, 'x');
    while (written < total) {
      if (!log->append(1, written, 0, block)) return;
      written += block.size();
    }
    log->end_run({.exit_code = 0, .error = {}});
  });

  const auto first = reader->next(LogReader::Wait::ForRunEnd, {}).value();
  REQUIRE(first);
  uint64_t seen = first->bytes.size();
  CHECK(written <= 4 * 4096);
  seen += drain(*reader, LogReader::Wait::ForRunEnd).size();
  writer.join();

  CHECK(seen == written);
}

TEST_CASE("an attached reader that is let go no longer stops the writer") {
  const Folder folder;
  const auto log = open(folder, {.segment_bytes_max = 1000, .segments_max = 2});
  const auto reader = log->read(LogStart::Run, LogReaderKind::Attached);
  REQUIRE(log->begin_run("r1"));
  log->let_go();
  for (uint64_t i = 0; i < 20; ++i) REQUIRE(log->append(1, i * 500, 0, std::string(500, 'y')));
  CHECK(log->run_goes_on());
}

TEST_CASE("a reader keeps what it needs after the container was removed") {
  const Folder folder;
  const auto log = open(folder);
  const auto reader = log->read(LogStart::Run, LogReaderKind::Attached);
  REQUIRE(log->begin_run("r1"));
  REQUIRE(log->append(1, 0, 0, "last words\n"));
  log->end_run({.exit_code = 0, .error = {}});
  REQUIRE(log->erase());
  CHECK(drain(*reader, LogReader::Wait::ForRunEnd) == "last words\n");
  CHECK_FALSE(base::path_exists(folder.path + "/log"));
}

TEST_CASE("a waiting reader can be cancelled") {
  const Folder folder;
  const auto log = open(folder);
  const auto reader = log->read(LogStart::Run, LogReaderKind::Attached);
  const auto stopped = reader->next(LogReader::Wait::ForRunEnd, [] { return true; });
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code() == base::ErrorCode::Cancelled);
}
