#include "runtime/qemu/full_disk.h"

#include <algorithm>

#include <sys/statvfs.h>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace runtime::qemu {
namespace {

using base::Result;

constexpr size_t line_bytes_max = 1u << 20;
/// QEMU's name of the state after a write without room.
constexpr const char* stopped_by_disk = "io-error";

}  // namespace

bool has_room(const std::string& path) {
  struct statvfs disk {};
  if (::statvfs(path.c_str(), &disk) != 0) return false;
  return static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize >= full_disk_room_bytes;
}

Result<std::unique_ptr<FullDiskWatch>> FullDiskWatch::create(IoLoop& loop, base::UniqueFd monitor,
                                                             FullDiskOptions options) {
  std::unique_ptr<FullDiskWatch> made(new FullDiskWatch(std::move(options)));
  FullDiskWatch* self = made.get();
  made->timer_ = TRY(LoopTimer::create(loop, [self] { self->on_due(); }));
  made->socket_ =
      TRY(LoopSocket::create(loop, std::move(monitor),
                             {.on_bytes = [self](std::string_view bytes) { self->on_bytes(bytes); },
                              .on_closed = [self](const std::string&) { self->timer_->stop(); },
                              .on_drained = {}}));
  return made;
}

bool FullDiskWatch::look_now() {
  if (state_ != State::Stopped) return state_ == State::Settling;
  if (!options_.has_room()) return false;
  timer_->stop();
  execute("cont");
  return true;
}

void FullDiskWatch::on_bytes(std::string_view bytes) {
  incoming_.append(bytes);
  size_t begin = 0;
  for (size_t end = 0; (end = incoming_.find('\n', begin)) != std::string::npos; begin = end + 1)
    on_line(std::string_view(incoming_).substr(begin, end - begin));
  incoming_.erase(0, begin);
  if (incoming_.size() > line_bytes_max) incoming_.clear();
}

void FullDiskWatch::on_line(std::string_view line) {
  const auto json = base::parse_json(line);
  if (!json || !json->is_object()) return;
  const std::string event = base::json_string_or(*json, "event", "");
  if (json->contains("QMP")) {
    execute("qmp_capabilities");
    execute("query-status");
  } else if (event == "STOP") {
    execute("query-status");  // why, no event tells
  } else if (event == "RESUME" && state_ == State::Stopped) {
    state_ = State::Settling;
    timer_->start(options_.settle_ms);
  } else if (json->contains("error") && state_ == State::Stopped) {
    look_later();
  } else if (const auto answer = json->find("return");
             answer != json->end() && answer->is_object()) {
    on_status(base::json_string_or(*answer, "status", ""));
  }
}

void FullDiskWatch::on_status(const std::string& status) {
  if (status != stopped_by_disk || state_ == State::Stopped) return;
  const bool is_news = state_ == State::Running;
  state_ = State::Stopped;
  delay_ms_ = is_news ? options_.look_first_ms : delay_ms_;
  look_later();
  if (is_news) options_.on_change(true);
}

void FullDiskWatch::on_due() {
  if (state_ == State::Settling) {
    state_ = State::Running;
    return options_.on_change(false);
  }
  if (state_ == State::Stopped && !look_now()) look_later();
}

void FullDiskWatch::look_later() {
  timer_->start(delay_ms_);
  delay_ms_ = std::min(2 * delay_ms_, options_.look_max_ms);
}

void FullDiskWatch::execute(const char* command) {
  socket_->send(base::dump_json({{"execute", command}}) + "\n");
}

}  // namespace runtime::qemu
