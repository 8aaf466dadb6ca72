#include "runtime/build_relay.h"

#include <cerrno>

#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"

namespace runtime {

using base::Deadline;
using base::Result;

namespace {

constexpr size_t piece_bytes = 32u << 10;
constexpr size_t connections_max = 64;  ///< At once, of one step.

Deadline call_deadline() { return Deadline::in_ms(base::limits::agent_call_timeout_ms); }

void copy_to_guest(int socket, AgentStream& stream) {
  std::string buffer(piece_bytes, '\0');
  for (;;) {
    const Result<size_t> count = base::read_some(socket, buffer);
    if (!count || *count == 0) break;
    if (!stream.write(std::string_view(buffer).substr(0, *count), Deadline::never())) break;
  }
  stream.finish_writing();
}

void copy_to_host(int socket, AgentStream& stream) {
  for (;;) {
    const Result<std::string> bytes = stream.read(Deadline::never());
    if (!bytes || bytes->empty()) break;
    if (!base::write_all(socket, *bytes)) break;
  }
  ::shutdown(socket, SHUT_WR);
}

}  // namespace

BuildRelay::BuildRelay(std::shared_ptr<Vm> vm, std::string step,
                       std::map<size_t, std::string> sockets)
    : vm_(std::move(vm)), step_(std::move(step)), sockets_(std::move(sockets)) {
  follower_ = std::thread([this] { follow(); });
}

BuildRelay::~BuildRelay() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (news_) news_->cancel();
  }
  follower_.join();
  for (Connection& each : connections_) {
    each.stream->cancel();
    ::shutdown(each.socket.get(), SHUT_RDWR);
    each.to_guest.join();
    each.to_host.join();
  }
}

void BuildRelay::follow() {
  const auto stream = vm_->open("GET", "/v1/steps/" + step_ + "/connections", false);
  if (!stream) return;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    news_ = *stream;
  }
  if (const Result<int> status = (*stream)->status(call_deadline()); !status || *status != 200)
    return;
  std::string pending;
  for (;;) {
    const Result<std::string> bytes = (*stream)->read(Deadline::never());
    if (!bytes || bytes->empty()) return;
    pending += *bytes;
    if (pending.size() > base::limits::agent_message_bytes_max) return;
    size_t end = 0;
    while ((end = pending.find('\n')) != std::string::npos) {
      take_line(std::string_view(pending).substr(0, end));
      pending.erase(0, end + 1);
    }
  }
}

void BuildRelay::take_line(std::string_view line) {
  const auto json = base::parse_json(line);
  if (!json) return;
  const auto connection = base::json_string(*json, "connection");
  const auto mount = base::json_int(*json, "mount");
  if (!connection || !mount || *mount < 0) return;
  const auto found = sockets_.find(static_cast<size_t>(*mount));
  if (found == sockets_.end() || connection->find('/') != std::string::npos) return;
  carry(*connection, found->second);
}

/// A socket nobody serves ends the connection in the guest: the program there says so.
void BuildRelay::carry(const std::string& connection, const std::string& path) {
  reap();
  if (connections_.size() >= connections_max) return;
  auto stream = vm_->open("POST", "/v1/connections/" + connection, true);
  if (!stream) return;
  auto socket = base::connect_unix(path);
  if (!socket) return;
  Connection& here = connections_.emplace_back();
  here.stream = std::move(*stream);
  here.socket = std::move(*socket);
  here.to_guest = std::thread([&here] {
    copy_to_guest(here.socket.get(), *here.stream);
    --here.running;
  });
  here.to_host = std::thread([&here] {
    copy_to_host(here.socket.get(), *here.stream);
    --here.running;
  });
}

void BuildRelay::reap() {
  for (auto each = connections_.begin(); each != connections_.end();) {
    if (each->running > 0) {
      ++each;
      continue;
    }
    each->to_guest.join();
    each->to_host.join();
    each = connections_.erase(each);
  }
}

}  // namespace runtime
