/// What a client hears besides its process.

#include "api/process_frames.h"

#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <thread>

#include <doctest/doctest.h>

#include "base/fd.h"

namespace {

using api::Frame;
using api::FrameKind;
using base::Result;
using base::UniqueFd;

/// A process that writes when it is told to and ends when it is told to.
class Process final : public reconciler::ProcessSession {
 public:
  Result<int32_t> run(const reconciler::OutputSink& sink) override {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return ended_ || !unwritten_.empty(); });
      while (!unwritten_.empty()) {
        const std::string bytes = std::exchange(unwritten_, {});
        lock.unlock();
        (void)sink(1, bytes);
        lock.lock();
        written_ = true;
        changed_.notify_all();
      }
      if (ended_) return 7;
    }
  }
  Result<> write_stdin(std::string_view) override { return {}; }
  Result<> close_stdin() override { return {}; }
  Result<> signal(int) override { return {}; }
  Result<> resize(uint16_t, uint16_t) override { return {}; }
  void cancel() override { end(); }

  void write(std::string bytes) {
    const std::lock_guard lock(mutex_);
    unwritten_ = std::move(bytes);
    written_ = false;
    changed_.notify_all();
  }
  void await_written() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return written_; });
  }
  void end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string unwritten_;
  bool written_ = false;
  bool ended_ = false;
};

/// A client of container `web`.
class Client {
 public:
  explicit Client(api::AttachedClients& clients) {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    ours_ = UniqueFd(ends[0]);
    theirs_ = UniqueFd(ends[1]);
    serving_ = std::thread([this, &clients] {
      api::serve_process(theirs_.get(), {}, process, {clients, "web"});
      theirs_.reset();
    });
  }
  ~Client() {
    process.end();
    ours_.reset();
    serving_.join();
  }

  Frame next() {
    for (;;) {
      auto frame = decoder_.next();
      REQUIRE(frame);
      if (*frame) return **frame;
      char buffer[4096];
      const ssize_t count = ::recv(ours_.get(), buffer, sizeof buffer, 0);
      REQUIRE(count > 0);
      decoder_.feed(std::string_view(buffer, static_cast<size_t>(count)));
    }
  }

  Process process;

 private:
  UniqueFd ours_, theirs_;
  std::thread serving_;
  api::FrameDecoder decoder_;
};

}  // namespace

TEST_CASE("who is attached to a container hears what happens to it, others do not") {
  api::AttachedClients clients;
  Client client(clients);
  client.process.write("one");
  CHECK(client.next().payload == "one");
  clients.tell("db", "not for this one");
  clients.tell("web", "it is paused");
  const Frame heard = client.next();
  CHECK(heard.kind == FrameKind::Notice);
  CHECK(heard.payload == R"({"text":"it is paused"})");
  client.process.end();
  CHECK(client.next().kind == FrameKind::Exit);
}

TEST_CASE("a client that does not read holds nobody up, and misses nothing once it reads") {
  api::AttachedClients clients;
  Client client(clients);
  // Far more than a socket holds: the process is in the middle of it when the notice comes.
  const std::string much(8u << 20, 'x');
  client.process.write(much);
  size_t received = client.next().payload.size();
  clients.tell("web", "first");
  clients.tell("web", "second");
  std::vector<std::string> notices;
  while (received < much.size() || notices.size() < 2) {
    const Frame frame = client.next();
    if (frame.kind == FrameKind::Notice)
      notices.push_back(frame.payload);
    else
      received += frame.payload.size();
  }
  CHECK(notices == std::vector<std::string>{R"({"text":"first"})", R"({"text":"second"})"});
  client.process.await_written();
  client.process.end();
  CHECK(client.next().kind == FrameKind::Exit);
}

TEST_CASE("who has left is told nothing") {
  api::AttachedClients clients;
  std::vector<std::string> heard;
  {
    const api::AttachedClients::Seat seat(clients, "web",
                                          [&](const std::string& text) { heard.push_back(text); });
    clients.tell("web", "in time");
  }
  clients.tell("web", "too late");
  CHECK(heard == std::vector<std::string>{"in time"});
}
