#pragma once
/// For tests: an HTTP/1.1 server on loopback whose every byte a test decides.

#include <algorithm>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/fd.h"

namespace registry_test {

struct Seen {
  std::string method;
  std::string target;
  std::map<std::string, std::string> headers;  ///< Names in lower case.
  std::string body;
  std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
  }
};

/// What a handler answers with: bytes as they go over the wire.
class Wire {
 public:
  explicit Wire(int socket) : socket_(socket) {}
  /// False once the client has hung up.
  bool raw(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(count));
    }
    return true;
  }
  void answer(int status, std::string_view body = "", std::string_view headers = "") const {
    raw(fmt::format("HTTP/1.1 {} X\r\nContent-Length: {}\r\n{}\r\n{}", status, body.size(), headers,
                    body));
  }
  /// Until the client hangs up.
  void hang() const {
    pollfd waiting{.fd = socket_, .events = POLLRDHUP, .revents = 0};
    (void)::poll(&waiting, 1, 20'000);
  }
  /// The connection ends here.
  void cut() const { ::shutdown(socket_, SHUT_RDWR); }
  /// Nothing more is sent, but the client is still heard.
  void end() const { ::shutdown(socket_, SHUT_WR); }
  /// Breaks the connection without a farewell. What was sent stays readable for the client.
  void reset() const {
    // Connecting a socket to nowhere resets it, and leaves the descriptor to its owner.
    const sockaddr nowhere{.sa_family = AF_UNSPEC, .sa_data = {}};
    (void)::connect(socket_, &nowhere, sizeof nowhere);
  }

 private:
  int socket_;
};

class Server {
 public:
  using Handler = std::function<void(const Seen&, const Wire&)>;
  explicit Server(Handler handler) : handler_(std::move(handler)) {
    listening_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    (void)::bind(listening_.get(), reinterpret_cast<sockaddr*>(&address), size);
    (void)::listen(listening_.get(), 64);
    (void)::getsockname(listening_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    accepting_ = std::thread([this] { accept(); });
  }
  ~Server() {
    ::shutdown(listening_.get(), SHUT_RDWR);
    accepting_.join();
    {
      const std::lock_guard lock(mutex_);
      for (const int connection : connections_) ::shutdown(connection, SHUT_RDWR);
    }
    for (std::thread& thread : threads_) thread.join();
  }
  uint16_t port() const { return port_; }
  std::string authority() const { return fmt::format("127.0.0.1:{}", port_); }
  std::string url(std::string_view path = "") const {
    return fmt::format("http://{}{}", authority(), path);
  }
  std::vector<Seen> seen() const {
    const std::lock_guard lock(mutex_);
    return seen_;
  }

 private:
  void accept() {
    for (;;) {
      const int connection = ::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) return;
      const std::lock_guard lock(mutex_);
      connections_.push_back(connection);
      threads_.emplace_back([this, connection] { serve(connection); });
    }
  }
  void serve(int connection) {
    std::string text;
    while (auto request = next(connection, text)) {
      {
        const std::lock_guard lock(mutex_);
        seen_.push_back(*request);
      }
      handler_(*request, Wire(connection));
    }
    const std::lock_guard lock(mutex_);
    std::erase(connections_, connection);
    ::close(connection);
  }
  static std::optional<Seen> next(int connection, std::string& text) {
    const auto more = [&] {
      char buffer[16384];
      const ssize_t count = ::recv(connection, buffer, sizeof buffer, 0);
      if (count > 0) text.append(buffer, static_cast<size_t>(count));
      return count > 0;
    };
    size_t end = std::string::npos;
    while ((end = text.find("\r\n\r\n")) == std::string::npos)
      if (!more()) return std::nullopt;
    Seen request;
    const std::string head = text.substr(0, end);
    text.erase(0, end + 4);
    size_t at = head.find("\r\n");
    const std::string first = head.substr(0, at);
    request.method = first.substr(0, first.find(' '));
    request.target = first.substr(request.method.size() + 1);
    request.target.resize(request.target.rfind(' '));
    while (at != std::string::npos && at + 2 < head.size()) {
      const size_t next_line = head.find("\r\n", at + 2);
      std::string line = head.substr(at + 2, next_line - at - 2);
      const size_t colon = line.find(": ");
      std::string name = line.substr(0, colon);
      std::transform(name.begin(), name.end(), name.begin(),
                     [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      if (colon != std::string::npos) request.headers[name] = line.substr(colon + 2);
      at = next_line;
    }
    const size_t length = std::strtoul(request.header("content-length").c_str(), nullptr, 10);
    while (text.size() < length)
      if (!more()) return std::nullopt;
    request.body = text.substr(0, length);
    text.erase(0, length);
    return request;
  }

  const Handler handler_;
  base::UniqueFd listening_;
  uint16_t port_ = 0;
  std::thread accepting_;
  mutable std::mutex mutex_;
  std::vector<Seen> seen_;
  std::vector<int> connections_;
  std::vector<std::thread> threads_;
};

}  // namespace registry_test
