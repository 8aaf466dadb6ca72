#include "cli/http_client.h"

#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <sys/socket.h>

#include <doctest/doctest.h>

#include "base/file.h"

using base::ErrorCode;
using base::Result;

namespace {

/// Accepts one connection, notes what is asked, and answers with the given pieces.
class OneAnswer {
 public:
  explicit OneAnswer(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {
    REQUIRE(::mkdtemp(folder_.data()) != nullptr);
    listening_ = base::listen_unix(path()).value();
    thread_ = std::thread([this] { serve(); });
  }
  ~OneAnswer() {
    if (thread_.joinable()) thread_.join();
    CHECK(base::remove_tree(folder_));
  }
  std::string path() const { return folder_ + "/api.sock"; }
  const std::string& asked() {
    thread_.join();
    return asked_;
  }

 private:
  void serve() {
    const base::UniqueFd connection(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    char buffer[4096];
    asked_.assign(buffer, base::read_some(connection.get(), buffer).value_or(0));
    for (const std::string& piece : pieces_)
      if (!base::write_all(connection.get(), piece)) return;
  }

  std::vector<std::string> pieces_;
  std::string folder_ = "/tmp/container-cli-test-XXXXXX";
  base::UniqueFd listening_;
  std::string asked_;
  std::thread thread_;
};

}  // namespace

TEST_CASE("a request carries its body's length, and the answer's body comes back") {
  OneAnswer daemon({"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "{}"});

  const Result<std::string> answer = cli::HttpClient(daemon.path())
                                         .call({.method = "POST",
                                                .target = "/v1/plan",
                                                .body = R"({"command":"up"})",
                                                .upgrade = ""});

  REQUIRE(answer);
  CHECK(*answer == "{}");
  CHECK(daemon.asked() ==
        "POST /v1/plan HTTP/1.1\r\nHost: container\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"command\":\"up\"}");
}

TEST_CASE("chunks reach the sink without their framing, however they are cut") {
  OneAnswer daemon({"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r", "\nabc\r\n2\r\nd",
                    "e\r\n0\r\n\r\n"});
  std::string received;

  const Result<> done =
      cli::HttpClient(daemon.path()).stream({.target = "/v1/notices"}, [&](std::string_view piece) {
        received += piece;
        return Result<>();
      });

  CHECK(done);
  CHECK(received == "abcde");
}

TEST_CASE("the daemon's error keeps its code and its message") {
  OneAnswer daemon(
      {"HTTP/1.1 404 Not Found\r\nContent-Length: 55\r\n\r\n"
       R"({"code":"not-found","message":"container not found: x"})"});

  const auto answer = cli::HttpClient(daemon.path()).call({.target = "/v1/containers/x"});

  REQUIRE_FALSE(answer);
  CHECK(answer.error().code() == ErrorCode::NotFound);
  CHECK(answer.error().to_string() == "container not found: x");
}

TEST_CASE("a sink that fails ends the exchange with its own error") {
  OneAnswer daemon({"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"});

  const auto done =
      cli::HttpClient(daemon.path()).stream({.target = "/"}, [](std::string_view) -> Result<> {
        return base::fail(ErrorCode::NoSpace, "disk full");
      });

  REQUIRE_FALSE(done);
  CHECK(done.error().code() == ErrorCode::NoSpace);
}

TEST_CASE("a daemon that dies in the middle of an answer is reported, not taken for the end") {
  OneAnswer daemon({"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"});

  const auto answer = cli::HttpClient(daemon.path()).call({.target = "/v1/ping"});

  REQUIRE_FALSE(answer);
  CHECK(answer.error().to_string().find("went away") != std::string::npos);
}

TEST_CASE("an answer that is no HTTP is an error") {
  OneAnswer daemon({"SSH-2.0-nonsense\r\n"});
  CHECK_FALSE(cli::HttpClient(daemon.path()).call({.target = "/v1/ping"}));
}

TEST_CASE("nobody at the socket says how to start the system") {
  const auto answer = cli::HttpClient("/nonexistent/api.sock").call({.target = "/v1/ping"});

  REQUIRE_FALSE(answer);
  CHECK(answer.error().to_string().find("`container system start`") != std::string::npos);
}

TEST_CASE("after a switch of protocols the bytes behind the head are kept") {
  OneAnswer daemon(
      {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
       "Upgrade: container-frames\r\n\r\nfirst"});

  const auto upgraded = cli::HttpClient(daemon.path())
                            .upgrade({.method = "POST",
                                      .target = "/v1/containers/x/exec",
                                      .body = "{}",
                                      .upgrade = "container-frames"});

  REQUIRE(upgraded);
  CHECK(upgraded->first_bytes == "first");
  CHECK(upgraded->socket);
}

TEST_CASE("a refused switch of protocols is the daemon's error") {
  OneAnswer daemon(
      {"HTTP/1.1 409 Conflict\r\nContent-Length: 65\r\n\r\n"
       R"({"code":"invalid-state","message":"container x is not running"}  )"});

  const auto upgraded =
      cli::HttpClient(daemon.path())
          .upgrade({.method = "POST", .target = "/x", .body = "", .upgrade = "container-frames"});

  REQUIRE_FALSE(upgraded);
  CHECK(upgraded.error().code() == ErrorCode::InvalidState);
}

TEST_CASE("what could change a target's meaning is encoded") {
  CHECK(cli::percent_encode("a b/c?d=e&f%") == "a%20b%2Fc%3Fd%3De%26f%25");
  CHECK(cli::percent_encode("localhost-1_a.b~") == "localhost-1_a.b~");
}
