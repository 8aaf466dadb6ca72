#pragma once
/// For tests: a daemon that says what a test tells it to, at a real socket, and the real
/// `container` program talking to it.

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "api/paths.h"
#include "api/wire.h"
#include "base/deadline.h"
#include "base/file.h"
#include "base/json.h"
#include "base/process.h"

namespace cli::test {

inline constexpr int patience_ms = 20'000;

struct Asked {
  std::string route;  ///< `POST /v1/apply`; without the query.
  std::string target;
  nlohmann::json body;
  std::string raw_body;
};

/// One connection, for the handler.
class Talk {
 public:
  explicit Talk(int socket) : socket_(socket) {}
  int socket() const { return socket_; }
  void say(std::string_view bytes) const { (void)base::write_all(socket_, bytes); }
  void answer(int status, const std::string& body) const {
    say(fmt::format("HTTP/1.1 {} X\r\nContent-Length: {}\r\n\r\n{}", status, body.size(), body));
  }
  void begin_lines() const { say("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"); }
  void line(const nlohmann::json& value) const { say(base::dump_json(value) + "\n"); }
  void result(bool success, std::string message = "") const {
    nlohmann::json value = {{"type", "result"}, {"success", success}, {"ids", {"web"}}};
    if (!success) value["message"] = std::move(message);
    line(value);
  }
  void upgrade() const {
    say("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: container-frames\r\n\r\n");
  }
  void frame(api::FrameKind kind, std::string_view payload) const {
    std::string bytes;
    api::append_frame(bytes, kind, payload);
    say(bytes);
  }
  void exit(int code) const {
    frame(api::FrameKind::Exit, fmt::format("{{\"exit_code\":{}}}", code));
  }
  /// The next frame of the command; Failure with an empty payload once it has hung up.
  api::Frame next() {
    for (;;) {
      if (auto frame = decoder_.next(); frame && *frame) return **frame;
      char buffer[4096];
      const ssize_t count = ::recv(socket_, buffer, sizeof buffer, 0);
      if (count <= 0) return {};
      decoder_.feed(std::string_view(buffer, static_cast<size_t>(count)));
    }
  }

 private:
  int socket_;
  api::FrameDecoder decoder_;
};

class Daemon {
 public:
  using Handler = std::function<void(const Asked&, Talk&)>;

  explicit Daemon(Handler handler) : handler_(std::move(handler)) {
    // Commands hang up on purpose; the daemon's write then fails, and nothing else.
    (void)std::signal(SIGPIPE, SIG_IGN);
    REQUIRE(::mkdtemp(folder_.data()) != nullptr);
    REQUIRE(base::make_directories(folder_ + "/run"));
    ::setenv("CONTAINER_APP_ROOT", (folder_ + "/app").c_str(), 1);
    ::setenv("XDG_RUNTIME_DIR", (folder_ + "/run").c_str(), 1);
    const std::string socket = api::find_paths().value().api_socket();
    REQUIRE(base::make_directories(socket.substr(0, socket.rfind('/'))));
    listening_ = base::listen_unix(socket).value();
    accepting_ = std::thread([this] { accept(); });
  }
  ~Daemon() {
    ::shutdown(listening_.get(), SHUT_RDWR);
    accepting_.join();
    for (std::thread& talking : talking_) talking.join();
    CHECK(base::remove_tree(folder_));
  }

  const std::string& folder() const { return folder_; }
  /// Routes in the order they were asked for; applied commands by name: `apply create`.
  std::vector<std::string> asked() {
    const std::lock_guard lock(mutex_);
    return asked_;
  }
  /// Waits until `what` has been asked for so many times.
  void await(const std::string& what, size_t times = 1) {
    std::unique_lock lock(mutex_);
    const bool came = changed_.wait_for(lock, std::chrono::milliseconds(patience_ms), [&] {
      return static_cast<size_t>(std::count(asked_.begin(), asked_.end(), what)) >= times;
    });
    CHECK_MESSAGE(came, "nobody asked for ", what);
  }
  /// A mark of a handler, seen by `await`.
  void mark(const std::string& text) {
    const std::lock_guard lock(mutex_);
    asked_.push_back(text);
    changed_.notify_all();
  }

 private:
  void accept() {
    for (;;) {
      const int connection = ::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) return;
      talking_.emplace_back([this, connection] { serve(connection); });
    }
  }

  void serve(int connection) {
    const base::UniqueFd socket(connection);
    const timeval limit{.tv_sec = patience_ms / 1000, .tv_usec = 0};
    ::setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    std::string text;
    char buffer[4096];
    size_t end = std::string::npos;
    const auto more = [&] {
      const size_t count = base::read_some(connection, buffer).value_or(0);
      text.append(buffer, count);
      return count > 0;
    };
    while ((end = text.find("\r\n\r\n")) == std::string::npos)
      if (!more()) return;
    const size_t length_at = text.find("Content-Length: ");
    const size_t length =
        length_at < end ? std::strtoul(text.c_str() + length_at + 16, nullptr, 10) : 0;
    while (text.size() < end + 4 + length)
      if (!more()) return;
    Asked asked;
    asked.target = text.substr(0, text.find(" HTTP/"));
    asked.route = asked.target.substr(0, asked.target.find('?'));
    asked.raw_body = text.substr(end + 4, length);
    asked.body = base::parse_json(asked.raw_body).value_or(nlohmann::json());
    // What most tests are not about: every image is here.
    if (asked.route == "POST /v1/images/present")
      return Talk(connection).answer(200, R"({"present":true})");
    const std::string command =
        asked.body.is_object() ? base::json_string_or(asked.body, "command", "") : "";
    mark(command.empty() ? asked.route : "apply " + command);
    Talk talk(connection);
    handler_(asked, talk);
  }

  const Handler handler_;
  std::string folder_ = "/tmp/container-cli-test-XXXXXX";
  base::UniqueFd listening_;
  std::thread accepting_;
  std::vector<std::thread> talking_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> asked_;
};

struct Ended {
  int code = -1;
  std::string out;
  std::string err;
};

/// The program, with pipes for its streams.
class Program {
 public:
  explicit Program(std::vector<std::string> words, const std::string& folder = "/") {
    base::Pipe in = base::make_pipe().value();
    base::Pipe out = base::make_pipe().value();
    base::Pipe err = base::make_pipe().value();
    std::vector<std::string> arguments = {"/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", folder,
                                          std::string(CONTAINER_BINARY_DIR) + "/bin/container"};
    arguments.insert(arguments.end(), words.begin(), words.end());
    std::vector<std::string> environment = {"PATH=/usr/bin:/bin", "HOME=/tmp"};
    for (const char* name :
         {"CONTAINER_APP_ROOT", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "COMPOSE_FILE"})
      if (const char* value = std::getenv(name))
        environment.push_back(fmt::format("{}={}", name, value));
    process_ =
        base::spawn(
            {.arguments = std::move(arguments),
             .environment = std::move(environment),
             .descriptors = {{in.reader.get(), 0}, {out.writer.get(), 1}, {err.writer.get(), 2}}})
            .value();
    stdin_ = std::move(in.writer);
    stdout_ = std::move(out.reader);
    stderr_ = std::move(err.reader);
  }

  /// A program that has ended already does not mind.
  void type(std::string_view text) { (void)base::write_all(stdin_.get(), text); }
  void end_stdin() { stdin_.reset(); }
  void close_stdout() { stdout_.reset(); }
  void signal(int number) const { ::kill(static_cast<pid_t>(process_.pid), number); }

  Ended end() {
    Ended ended;
    const base::Deadline deadline = base::Deadline::in_ms(patience_ms);
    while ((stdout_ || stderr_) && !deadline.passed()) {
      pollfd slots[] = {{.fd = stdout_ ? stdout_.get() : -1, .events = POLLIN, .revents = 0},
                        {.fd = stderr_ ? stderr_.get() : -1, .events = POLLIN, .revents = 0}};
      (void)::poll(slots, 2, deadline.remaining_ms());
      if (slots[0].revents != 0) drain(stdout_, ended.out);
      if (slots[1].revents != 0) drain(stderr_, ended.err);
    }
    const auto process = base::open_process(process_);
    const auto status =
        process ? base::await_process(process->get(), process_.pid, deadline) : std::nullopt;
    if (!status) ::kill(static_cast<pid_t>(process_.pid), SIGKILL);
    REQUIRE_MESSAGE(status, "the program did not end; stderr: ", ended.err);
    if (*status)
      ended.code = WIFEXITED(**status) ? WEXITSTATUS(**status) : 128 + WTERMSIG(**status);
    return ended;
  }

 private:
  static void drain(base::UniqueFd& fd, std::string& into) {
    char buffer[64 * 1024];
    const size_t count = base::read_some(fd.get(), buffer).value_or(0);
    into.append(buffer, count);
    if (count == 0) fd.reset();
  }

  base::ProcessIdentity process_;
  base::UniqueFd stdin_;
  base::UniqueFd stdout_;
  base::UniqueFd stderr_;
};

/// Runs the program to its end.
inline Ended container(std::vector<std::string> words, const std::string& folder = "/") {
  Program program(std::move(words), folder);
  program.end_stdin();
  return program.end();
}

}  // namespace cli::test
