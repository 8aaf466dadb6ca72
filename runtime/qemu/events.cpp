#include "runtime/qemu/events.h"

#include <chrono>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace runtime::qemu {
namespace {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;

constexpr size_t line_bytes_max = 1u << 20;

}  // namespace

Result<std::shared_ptr<Monitor>> Monitor::connect(IoLoop& loop, const std::string& socket,
                                                  const Deadline& deadline) {
  std::shared_ptr<Monitor> made(new Monitor(loop));
  base::UniqueFd fd = TRY(base::connect_unix(socket));
  Result<> attached;
  const std::weak_ptr<Monitor> weak = made;
  loop.run([&] {
    auto opened = LoopSocket::create(loop, std::move(fd),
                                     {.on_bytes =
                                          [weak](std::string_view bytes) {
                                            if (const auto self = weak.lock())
                                              self->on_bytes(bytes);
                                          },
                                      .on_closed =
                                          [weak](const std::string& reason) {
                                            if (const auto self = weak.lock())
                                              self->on_closed(reason);
                                          },
                                      .on_drained = {}});
    if (opened)
      made->socket_ = std::move(*opened);
    else
      attached = tl::unexpected(std::move(opened.error()));
  });
  TRY(std::move(attached));
  Result<std::string> agreed = made->execute("qmp_capabilities", deadline);
  if (!agreed) {
    made->close();
    return tl::unexpected(std::move(agreed.error()).during("talk to QEMU"));
  }
  return made;
}

Result<std::string> Monitor::execute(const std::string& command, const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  const auto wait = [&](auto&& ready) {
    while (!ready() && !closed_) {
      if (deadline.passed()) return false;
      changed_.wait_for(lock, std::chrono::milliseconds(deadline.remaining_ms()));
    }
    return true;
  };
  if (!wait([&] { return greeted_; }))
    return fail(ErrorCode::Timeout, "QEMU's monitor did not greet in time");
  const uint64_t id = next_id_++;
  answers_[id] = std::nullopt;
  const std::string line = base::dump_json({{"execute", command}, {"id", id}}) + "\n";
  loop_.post([self = shared_from_this(), line] {
    if (self->socket_) self->socket_->send(line);
  });
  const bool in_time = wait([&] { return answers_[id].has_value(); });
  auto answer = std::move(answers_[id]);
  answers_.erase(id);
  if (answer) return std::move(*answer);
  if (!in_time) return fail(ErrorCode::Timeout, "QEMU did not answer '{}' in time", command);
  return fail(ErrorCode::Io, "QEMU's monitor is closed: {}", *closed_);
}

std::string Monitor::last_words() const {
  const std::lock_guard lock(mutex_);
  return last_words_;
}

void Monitor::close() {
  on_closed("closed by us");
  loop_.run([this] { socket_.reset(); });
}

void Monitor::on_closed(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (!closed_) closed_ = reason;
  changed_.notify_all();
}

void Monitor::on_bytes(std::string_view bytes) {
  incoming_.append(bytes);
  size_t begin = 0;
  for (size_t end = 0; (end = incoming_.find('\n', begin)) != std::string::npos; begin = end + 1)
    on_line(std::string_view(incoming_).substr(begin, end - begin));
  incoming_.erase(0, begin);
  if (incoming_.size() <= line_bytes_max) return;
  incoming_.clear();
  on_closed("a line longer than a mebibyte");
}

void Monitor::on_line(std::string_view line) {
  const auto json = base::parse_json(line);
  if (!json || !json->is_object()) return;
  const std::lock_guard lock(mutex_);
  if (json->contains("QMP")) {
    greeted_ = true;
  } else if (const std::string event = base::json_string_or(*json, "event", ""); !event.empty()) {
    const auto data = json->find("data");
    const std::string reason =
        data != json->end() && data->is_object() ? base::json_string_or(*data, "reason", "") : "";
    if (event == "SHUTDOWN" || event == "GUEST_PANICKED" || event == "RESET")
      last_words_ = reason.empty() ? event : reason;
  } else {
    const auto found = answers_.find(static_cast<uint64_t>(base::json_int_or(*json, "id", 0)));
    if (found == answers_.end()) return;
    if (const auto value = json->find("return"); value != json->end())
      found->second = base::dump_json(*value);
    else
      found->second = fail(ErrorCode::Io, "QEMU refused: {}", base::dump_json(*json));
  }
  changed_.notify_all();
}

}  // namespace runtime::qemu
