#include "api/http_server.h"

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "base/limits.h"

namespace fs = std::filesystem;
using api::ByteStream;
using api::HttpReply;
using api::HttpRequest;
using base::Result;

namespace {

struct Fixture {
  static constexpr int idle_timeout_s = 1;
  fs::path folder;
  std::shared_ptr<ByteStream> endless = ByteStream::create(1024).value();
  std::atomic<size_t> uploaded = 0;
  std::unique_ptr<api::HttpServer> server;

  Fixture() {
    std::string name = (fs::temp_directory_path() / "http-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    folder = name;
    std::vector<api::Route> routes;
    routes.push_back(
        {.method = "GET",
         .pattern = "/v1/things/*",
         .handler = [](const HttpRequest& request) -> Result<HttpReply> {
           if (request.segments[0] == "none")
             return base::fail(base::ErrorCode::NotFound, "no thing 'none'");
           return api::json_reply({{"thing", request.segments[0]}, {"all", request.flag("all")}});
         },
         .upload = {}});
    routes.push_back({.method = "POST",
                      .pattern = "/v1/echo",
                      .handler = [](const HttpRequest& request) -> Result<HttpReply> {
                        return HttpReply{
                            .status = 200, .body = request.body, .stream = {}, .upgrade = {}};
                      },
                      .upload = {}});
    routes.push_back({.method = "GET",
                      .pattern = "/v1/stream",
                      .handler = [this](const HttpRequest&) -> Result<HttpReply> {
                        return HttpReply{
                            .status = 200, .body = {}, .stream = endless, .upgrade = {}};
                      },
                      .upload = {}});
    routes.push_back({.method = "POST",
                      .pattern = "/v1/upload",
                      .handler = {},
                      .upload = [this](const HttpRequest&, ByteStream& body) -> Result<HttpReply> {
                        char buffer[4096];
                        while (const size_t count = body.read(buffer, -1)) uploaded += count;
                        return api::json_reply({{"bytes", uploaded.load()}});
                      }});
    routes.push_back({.method = "POST",
                      .pattern = "/v1/upgrade",
                      .handler = [](const HttpRequest&) -> Result<HttpReply> {
                        HttpReply reply;
                        reply.upgrade = [](int socket, std::string first) {
                          char buffer[64];
                          while (first.size() < 4) {
                            const ssize_t count = ::recv(socket, buffer, sizeof buffer, 0);
                            if (count <= 0) return;
                            first.append(buffer, static_cast<size_t>(count));
                          }
                          (void)base::write_all(socket, "pong");
                        };
                        return reply;
                      },
                      .upload = {}});
    server =
        std::move(api::HttpServer::start(base::listen_unix(path()).value(), std::move(routes),
                                         {.protocol = "frames", .idle_timeout_s = idle_timeout_s})
                      .value());
  }
  ~Fixture() {
    server.reset();
    fs::remove_all(folder);
  }
  std::string path() const { return folder / "api.sock"; }

  base::UniqueFd send(const std::string& text) const {
    base::UniqueFd socket = base::connect_unix(path()).value();
    REQUIRE(base::write_all(socket.get(), text));
    return socket;
  }
  static std::string receive(const base::UniqueFd& socket) {
    std::string all;
    char buffer[4096];
    while (true) {
      const ssize_t count = ::recv(socket.get(), buffer, sizeof buffer, 0);
      if (count <= 0) return all;
      all.append(buffer, static_cast<size_t>(count));
    }
  }
  std::string ask(const std::string& head, const std::string& body = "") const {
    return receive(
        send(fmt::format("{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                         "Content-Length: {}\r\n\r\n{}",
                         head, body.size(), body)));
  }
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a route answers with what its pattern and its query matched") {
  const Fixture fixture;
  const std::string answer = fixture.ask("GET /v1/things/a%20b?all=1");
  CHECK(contains(answer, "200 OK"));
  CHECK(contains(answer, R"({"all":true,"thing":"a b"})"));
}

TEST_CASE("errors carry their code and a status") {
  const Fixture fixture;
  const std::string missing = fixture.ask("GET /v1/things/none");
  CHECK(contains(missing, "404"));
  CHECK(contains(missing, R"("code":"not-found")"));
  CHECK(contains(fixture.ask("GET /v1/nowhere"), "404"));
  CHECK(contains(fixture.ask("DELETE /v1/echo"), "400"));
}

TEST_CASE("a body comes back whole; one that is too large is refused") {
  const Fixture fixture;
  const std::string body(300'000, 'x');
  CHECK(contains(fixture.ask("POST /v1/echo", body), body));
  const std::string huge(base::limits::api_request_bytes_max + 1, 'x');
  CHECK(contains(fixture.ask("POST /v1/echo", huge), "more than"));
}

TEST_CASE("an upload is taken while it arrives") {
  Fixture fixture;
  const std::string answer = fixture.ask("POST /v1/upload", std::string(5'000'000, 'u'));
  CHECK(contains(answer, R"({"bytes":5000000})"));
}

TEST_CASE("who hangs up ends the stream that was for him") {
  Fixture fixture;
  std::promise<void> told;
  fixture.endless->on_close([&] { told.set_value(); });
  REQUIRE(fixture.endless->write("line\n"));
  base::UniqueFd socket = fixture.send("GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n");
  char buffer[4096];
  REQUIRE(::recv(socket.get(), buffer, sizeof buffer, 0) > 0);
  socket.reset();
  // The writer blocks in a full stream until the hang-up is seen.
  while (fixture.endless->write(std::string(512, 'z'))) {
  }
  CHECK(fixture.endless->closed());
  CHECK(told.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready);
}

TEST_CASE("a stream may have nothing to say for longer than a client may be silent") {
  Fixture fixture;
  const base::UniqueFd socket = fixture.send("GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n");
  REQUIRE(fixture.endless->write("first\n"));
  std::string seen;
  char buffer[4096];
  while (!contains(seen, "first")) {
    const ssize_t count = ::recv(socket.get(), buffer, sizeof buffer, 0);
    REQUIRE(count > 0);
    seen.append(buffer, static_cast<size_t>(count));
  }
  pollfd silence{.fd = socket.get(), .events = POLLIN, .revents = 0};
  CHECK(::poll(&silence, 1, Fixture::idle_timeout_s * 1000 + 1500) == 0);

  REQUIRE(fixture.endless->write("second\n"));
  fixture.endless->finish();

  CHECK(contains(Fixture::receive(socket), "second"));
}

TEST_CASE("a client that stops in the middle of its request is let go") {
  const Fixture fixture;
  const base::UniqueFd socket = fixture.send("GET /v1/things/one HTTP/1.1\r\n");
  pollfd end{.fd = socket.get(), .events = POLLIN, .revents = 0};
  CHECK(::poll(&end, 1, 10'000) == 1);
}

TEST_CASE("a connection becomes another protocol") {
  const Fixture fixture;
  const base::UniqueFd socket = fixture.send(
      "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
      "Upgrade: frames\r\nContent-Length: 0\r\n\r\n");
  char buffer[4096];
  const ssize_t head = ::recv(socket.get(), buffer, sizeof buffer, 0);
  REQUIRE(head > 0);
  CHECK(contains(std::string(buffer, static_cast<size_t>(head)), "101"));
  REQUIRE(base::write_all(socket.get(), "ping"));
  CHECK(Fixture::receive(socket) == "pong");
}

TEST_CASE("what is no HTTP, or only half of it, harms nobody") {
  const Fixture fixture;
  for (const char* text : {"\r\n\r\n", "garbage\n\n", "GET / HTTP/9.9\r\n\r\n", "POST /v1/echo HT",
                           "GET /v1/things/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n"}) {
    base::UniqueFd socket = fixture.send(text);
    ::shutdown(socket.get(), SHUT_WR);
    (void)Fixture::receive(socket);
  }
  CHECK(contains(fixture.ask("GET /v1/things/still"), "still"));
}

TEST_CASE("many connections at once are all answered") {
  const Fixture fixture;
  std::atomic<int> answered = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < 64; ++i)
    clients.emplace_back([&, i] {
      if (contains(fixture.ask(fmt::format("GET /v1/things/{}", i)), fmt::format("\"{}\"", i)))
        ++answered;
    });
  for (std::thread& client : clients) client.join();
  CHECK(answered == 64);
}

TEST_CASE("stopping ends streams and upgrades that still run") {
  Fixture fixture;
  const base::UniqueFd stream = fixture.send("GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n");
  const base::UniqueFd upgrade = fixture.send(
      "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
      "Upgrade: frames\r\nContent-Length: 0\r\n\r\n");
  char buffer[64];
  REQUIRE(::recv(upgrade.get(), buffer, sizeof buffer, 0) > 0);
  REQUIRE(fixture.endless->write("x"));
  REQUIRE(::recv(stream.get(), buffer, sizeof buffer, 0) > 0);
  fixture.server.reset();
  CHECK(fixture.endless->closed());
}
