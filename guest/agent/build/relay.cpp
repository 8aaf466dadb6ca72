#include "guest/agent/build/relay.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "guest/agent/limits.h"

namespace agent {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

// ---- one connection ----

/// Edge-triggered: both directions are tried whenever anything has changed.
Result<> RelayedConnection::carry(const ReplyPtr& reply) {
  reply_ = reply;
  return loop_.watch(socket_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                     [self = weak_from_this()](uint32_t) {
                       const auto connection = self.lock();
                       if (!connection) return;
                       connection->flush();
                       if (const auto reader = connection->reply_.lock()) reader->resume();
                     });
}

void RelayedConnection::write(std::string_view bytes) {
  unwritten_ += bytes;  // bounded by the stream's window
  flush();
}

void RelayedConnection::finish_writing() {
  finishing_ = true;
  flush();
}

void RelayedConnection::flush() {
  size_t done = 0;
  while (socket_ && done < unwritten_.size()) {
    const ssize_t count = ::send(socket_.get(), unwritten_.data() + done, unwritten_.size() - done,
                                 MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count < 0) {  // Nobody reads it any more.
      done = unwritten_.size();
      break;
    }
    done += static_cast<size_t>(count);
  }
  if (!socket_) done = unwritten_.size();
  unwritten_.erase(0, done);
  if (const auto reply = reply_.lock(); reply && done > 0) reply->consumed(done);
  if (finishing_ && unwritten_.empty() && socket_) ::shutdown(socket_.get(), SHUT_WR);
}

BodySource::State RelayedConnection::read(std::string& out, size_t bytes_max) {
  if (!socket_) return BodySource::State::End;
  const size_t before = out.size();
  out.resize(before + bytes_max);
  const ssize_t count = ::recv(socket_.get(), out.data() + before, bytes_max, MSG_DONTWAIT);
  out.resize(before + (count > 0 ? static_cast<size_t>(count) : 0));
  if (count > 0) return BodySource::State::More;
  const bool later = count < 0 && (errno == EAGAIN || errno == EINTR);
  return later ? BodySource::State::Wait : BodySource::State::End;
}

void RelayedConnection::close() {
  if (!socket_) return;
  loop_.forget(socket_.get());
  socket_.reset();
}

namespace {

class ToStep final : public BodySink {
 public:
  explicit ToStep(std::shared_ptr<RelayedConnection> connection)
      : connection_(std::move(connection)) {}
  void bytes(std::string_view piece) override { connection_->write(piece); }
  void end() override { connection_->finish_writing(); }

 private:
  std::shared_ptr<RelayedConnection> connection_;
};

class FromStep final : public BodySource {
 public:
  explicit FromStep(std::shared_ptr<RelayedConnection> connection)
      : connection_(std::move(connection)) {}
  State fill(std::string& out, size_t bytes_max) override {
    return connection_->read(out, bytes_max);
  }

 private:
  std::shared_ptr<RelayedConnection> connection_;
};

}  // namespace

// ---- all of them ----

/// The lines about new connections; ends when the step has gone.
class Relay::News final : public BodySource {
 public:
  explicit News(std::weak_ptr<Step> step) : step_(std::move(step)) {}
  State fill(std::string& out, size_t) override {
    const auto step = step_.lock();
    if (!step) return State::End;
    if (step->news.empty()) return State::Wait;
    while (!step->news.empty()) {
      out += step->news.front();
      step->news.pop_front();
    }
    return State::More;
  }

 private:
  std::weak_ptr<Step> step_;
};

Relay::~Relay() {
  while (!steps_.empty()) end_step(std::string(steps_.begin()->first));
}

void Relay::listen(const std::string& step, size_t mount, UniqueFd socket) {
  const auto found = steps_.find(step);
  if (found == steps_.end() || !base::set_nonblocking(socket.get(), true)) return;
  const int fd = socket.get();
  if (!loop_.watch(fd, EPOLLIN, [this, step, mount, fd](uint32_t) { accept(step, mount, fd); }))
    return;
  found->second->listening.push_back(std::move(socket));
}

void Relay::accept(const std::string& step, size_t mount, int socket) {
  UniqueFd made(::accept4(socket, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  const auto found = steps_.find(step);
  if (!made || found == steps_.end()) return;
  Step& here = *found->second;
  // One more than anybody needs is closed: its process sees the end of the connection.
  if (here.waiting.size() >= limits::relayed_connections_max) return;
  const std::string name = std::to_string(++last_connection_);
  here.waiting[name] = std::make_shared<RelayedConnection>(loop_, std::move(made));
  here.news.push_back(base::dump_json({{"connection", name}, {"mount", mount}}) + "\n");
  if (const auto reader = here.reader.lock()) reader->resume();
}

void Relay::end_step(const std::string& step) {
  const auto found = steps_.find(step);
  if (found == steps_.end()) return;
  const std::shared_ptr<Step> here = std::move(found->second);
  steps_.erase(found);
  for (const UniqueFd& socket : here->listening) loop_.forget(socket.get());
  const auto reader = here->reader.lock();
  // The reader finds the step gone.
  if (reader) loop_.soon([reader] { reader->resume(); });
}

Result<> Relay::tell(const std::string& step, const ReplyPtr& reply) {
  const auto found = steps_.find(step);
  if (found == steps_.end()) return fail(ErrorCode::NotFound, "no step '{}' runs", step);
  found->second->reader = reply;
  reply->stream(std::make_shared<News>(found->second));
  return {};
}

Result<std::shared_ptr<BodySink>> Relay::carry(const std::string& connection,
                                               const ReplyPtr& reply) {
  for (auto& [step, here] : steps_) {
    const auto found = here->waiting.find(connection);
    if (found == here->waiting.end()) continue;
    const std::shared_ptr<RelayedConnection> taken = std::move(found->second);
    here->waiting.erase(found);
    TRY(taken->carry(reply));
    reply->stream(std::make_shared<FromStep>(taken));
    return std::shared_ptr<BodySink>(std::make_shared<ToStep>(taken));
  }
  return fail(ErrorCode::NotFound, "no connection '{}' waits", connection);
}

}  // namespace agent
