#include "runtime/agent/client.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>

#include <nghttp2/nghttp2.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "guest/protocol/protocol.h"

namespace runtime {
namespace {

using base::Deadline;
using base::Error;
using base::ErrorCode;
using base::fail;
using base::Result;

constexpr size_t upload_queued_bytes_max = 256 * 1024;
constexpr size_t socket_queued_bytes_max = 256 * 1024;
constexpr int32_t stream_window_bytes = 256 * 1024;
constexpr int32_t connection_window_bytes = 16 * 1024 * 1024;
constexpr size_t greeting_bytes_max = 64 * 1024;
constexpr uint64_t greeting_repeat_ms = 1000;
constexpr uint64_t reconnect_first_ms = 20;
constexpr uint64_t reconnect_max_ms = 1000;

/// Waits for `ready` under `lock`; false if the deadline passed first.
template <class Ready>
bool wait_until(std::condition_variable& changed, std::unique_lock<std::mutex>& lock,
                const Deadline& deadline, Ready&& ready) {
  while (!ready()) {
    if (deadline.is_never()) {
      changed.wait(lock);
    } else {
      if (deadline.passed()) return false;
      changed.wait_for(lock, std::chrono::milliseconds(deadline.remaining_ms()));
    }
  }
  return true;
}

/// What a stream's user and the loop share, under one mutex.
struct StreamState {
  std::mutex mutex;
  std::condition_variable changed;
  std::string method;
  std::string path;
  bool upload = false;
  int32_t id = -1;  // loop thread only
  int status = 0;
  std::string incoming;
  std::string outgoing;
  bool writing_done = false;
  bool response_done = false;
  bool over = false;  // both ways
  std::optional<Error> failure;

  /// Under the mutex. A response that has ended is a refusal only if it says so: the other way of a
  /// stream may go on.
  bool refuses_more() const { return failure || over || (response_done && status != 200); }

  void fail_with(const Error& error) {
    const std::lock_guard lock(mutex);
    if (!failure && !response_done) failure = error;
    over = true;
    changed.notify_all();
  }
};
using StreamPtr = std::shared_ptr<StreamState>;

nghttp2_nv header(std::string_view name, std::string_view value) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          NGHTTP2_NV_FLAG_NONE};
}

class Client;

class Stream final : public AgentStream {
 public:
  Stream(std::shared_ptr<Client> client, StreamPtr state)
      : client_(std::move(client)), state_(std::move(state)) {}
  ~Stream() override { reset(); }
  Result<int> status(const Deadline& deadline) override;
  Result<std::string> read(const Deadline& deadline) override;
  Result<> write(std::string_view bytes, const Deadline& deadline) override;
  void finish_writing() override;
  void cancel() override;

 private:
  void reset();
  std::shared_ptr<Client> client_;
  StreamPtr state_;
};

class Client final : public AgentClient, public std::enable_shared_from_this<Client> {
 public:
  Client(IoLoop& loop, AgentOptions options) : loop_(loop), options_(std::move(options)) {}
  ~Client() override;

  Result<> begin();
  Result<> await_connected(const Deadline& deadline) override;
  Result<std::string> call(const std::string& method, const std::string& path,
                           const std::string& body, const Deadline& deadline) override;
  Result<std::shared_ptr<AgentStream>> open(const std::string& method, const std::string& path,
                                            bool upload, const Deadline& deadline) override;
  void close(const std::string& reason) override;
  bool closed() const override {
    const std::lock_guard lock(mutex_);
    return close_reason_.has_value();
  }
  int64_t heard_ns() const override { return heard_ns_; }

  IoLoop& loop() { return loop_; }
  void resume_upload(const StreamPtr& state);
  void consume(const StreamPtr& state, size_t bytes);
  void reset_stream(const StreamPtr& state);

 private:
  static int on_header(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t,
                       const uint8_t*, size_t, uint8_t, void*);
  static int on_data(nghttp2_session*, uint8_t, int32_t, const uint8_t*, size_t, void*);
  static int on_frame(nghttp2_session*, const nghttp2_frame*, void*);
  static int on_stream_close(nghttp2_session*, int32_t, uint32_t, void*);
  static ssize_t on_upload(nghttp2_session*, int32_t, uint8_t*, size_t, uint32_t*,
                           nghttp2_data_source*, void*);
  static ssize_t frame_room(nghttp2_session*, uint8_t, int32_t, int32_t, int32_t, uint32_t, void*);

  void connect();
  void greet();
  void on_bytes(std::string_view bytes);
  void on_greeting_bytes(std::string_view bytes);
  void on_session_bytes(std::string_view bytes);
  bool start_session();
  void lost(const std::string& reason);
  void flush();
  void submit(const StreamPtr& state);
  StreamPtr find(int32_t id);

  IoLoop& loop_;
  const AgentOptions options_;
  std::atomic<int64_t> heard_ns_ = 0;

  // Loop thread only.
  std::unique_ptr<LoopSocket> socket_;
  std::unique_ptr<LoopTimer> timer_;
  nghttp2_session* session_ = nullptr;
  std::string hello_;
  std::string greeting_;
  bool first_bytes_ = false;
  uint64_t reconnect_ms_ = reconnect_first_ms;
  std::map<int32_t, StreamPtr> streams_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool connected_ = false;
  std::optional<std::string> close_reason_;
};

// ---- the user's side of a stream -------------------------------------------------------------

Result<int> Stream::status(const Deadline& deadline) {
  std::unique_lock lock(state_->mutex);
  if (!wait_until(state_->changed, lock, deadline,
                  [&] { return state_->status != 0 || state_->failure; }))
    return fail(ErrorCode::Timeout, "the agent did not answer {} {} in time", state_->method,
                state_->path);
  if (state_->failure) return tl::unexpected(*state_->failure);
  return state_->status;
}

Result<std::string> Stream::read(const Deadline& deadline) {
  std::string bytes;
  {
    std::unique_lock lock(state_->mutex);
    if (!wait_until(state_->changed, lock, deadline, [&] {
          return !state_->incoming.empty() || state_->response_done || state_->failure;
        }))
      return fail(ErrorCode::Timeout, "the agent sent nothing for {} {} in time", state_->method,
                  state_->path);
    if (state_->incoming.empty() && state_->failure) return tl::unexpected(*state_->failure);
    bytes.swap(state_->incoming);
  }
  // Only now may the guest send as many bytes again.
  if (!bytes.empty())
    client_->loop().post([client = client_, state = state_, count = bytes.size()] {
      client->consume(state, count);
    });
  return bytes;
}

Result<> Stream::write(std::string_view bytes, const Deadline& deadline) {
  while (!bytes.empty()) {
    {
      std::unique_lock lock(state_->mutex);
      if (!wait_until(state_->changed, lock, deadline, [&] {
            return state_->outgoing.size() < upload_queued_bytes_max || state_->refuses_more();
          }))
        return fail(ErrorCode::Timeout, "the agent did not take more of {} {} in time",
                    state_->method, state_->path);
      if (state_->failure) return tl::unexpected(*state_->failure);
      if (state_->refuses_more())
        return fail(ErrorCode::InvalidState, "the agent does not take more of {} {}",
                    state_->method, state_->path);
      const size_t room = upload_queued_bytes_max - state_->outgoing.size();
      state_->outgoing.append(bytes.substr(0, room));
      bytes.remove_prefix(std::min(room, bytes.size()));
    }
    client_->loop().post([client = client_, state = state_] { client->resume_upload(state); });
  }
  return {};
}

void Stream::finish_writing() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->writing_done = true;
  }
  client_->loop().post([client = client_, state = state_] { client->resume_upload(state); });
}

void Stream::cancel() {
  state_->fail_with(Error(ErrorCode::Cancelled, "cancelled"));
  reset();
}

void Stream::reset() {
  client_->loop().post([client = client_, state = state_] { client->reset_stream(state); });
}

// ---- nghttp2 ---------------------------------------------------------------------------------

StreamPtr Client::find(int32_t id) {
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : found->second;
}

int Client::on_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name,
                      size_t name_size, const uint8_t* value, size_t value_size, uint8_t,
                      void* user) {
  auto* self = static_cast<Client*>(user);
  const StreamPtr state = self->find(frame->hd.stream_id);
  const std::string_view key(reinterpret_cast<const char*>(name), name_size);
  if (state && key == guest::failure_trailer)
    state->fail_with(
        Error(ErrorCode::Io, std::string(reinterpret_cast<const char*>(value), value_size)));
  if (!state || key != ":status" || value_size != 3) return 0;
  int status = 0;
  for (size_t i = 0; i < value_size; ++i) status = status * 10 + (value[i] - '0');
  const std::lock_guard lock(state->mutex);
  state->status = status;
  state->changed.notify_all();
  return 0;
}

int Client::on_data(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t size,
                    void* user) {
  auto* self = static_cast<Client*>(user);
  // The connection's window is given back at once, so that one held-back stream stops no other;
  // the stream's own only when its reader has taken the bytes.
  ::nghttp2_session_consume_connection(session, size);
  const StreamPtr state = self->find(id);
  if (!state) {
    ::nghttp2_session_consume_stream(session, id, size);
    return 0;
  }
  const std::lock_guard lock(state->mutex);
  state->incoming.append(reinterpret_cast<const char*>(data), size);
  state->changed.notify_all();
  return 0;
}

int Client::on_frame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
  auto* self = static_cast<Client*>(user);
  if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return 0;
  if (const StreamPtr state = self->find(frame->hd.stream_id)) {
    const std::lock_guard lock(state->mutex);
    state->response_done = true;
    state->changed.notify_all();
  }
  return 0;
}

int Client::on_stream_close(nghttp2_session*, int32_t id, uint32_t code, void* user) {
  auto* self = static_cast<Client*>(user);
  const StreamPtr state = self->find(id);
  if (!state) return 0;
  self->streams_.erase(id);
  state->fail_with(Error(ErrorCode::Io, fmt::format("the agent reset {} {} ({})", state->method,
                                                    state->path, ::nghttp2_http2_strerror(code))));
  return 0;
}

ssize_t Client::on_upload(nghttp2_session*, int32_t, uint8_t* buffer, size_t size, uint32_t* flags,
                          nghttp2_data_source* source, void*) {
  auto* state = static_cast<StreamState*>(source->ptr);
  const std::lock_guard lock(state->mutex);
  const size_t count = std::min(size, state->outgoing.size());
  if (count == 0 && !state->writing_done) return NGHTTP2_ERR_DEFERRED;
  std::copy_n(state->outgoing.data(), count, reinterpret_cast<char*>(buffer));
  state->outgoing.erase(0, count);
  if (state->outgoing.empty() && state->writing_done) *flags |= NGHTTP2_DATA_FLAG_EOF;
  state->changed.notify_all();
  return static_cast<ssize_t>(count);
}

ssize_t Client::frame_room(nghttp2_session*, uint8_t, int32_t, int32_t session_window,
                           int32_t stream_window, uint32_t frame_max, void*) {
  return std::min({session_window, stream_window, static_cast<int32_t>(frame_max),
                   static_cast<int32_t>(guest::frame_bytes_max)});
}

bool Client::start_session() {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_option* option = nullptr;
  if (::nghttp2_session_callbacks_new(&callbacks) != 0) return false;
  if (::nghttp2_option_new(&option) != 0) {
    ::nghttp2_session_callbacks_del(callbacks);
    return false;
  }
  ::nghttp2_option_set_no_auto_window_update(option, 1);
  ::nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  ::nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  ::nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  ::nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
  ::nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, frame_room);
  const int made = ::nghttp2_session_client_new2(&session_, callbacks, this, option);
  ::nghttp2_option_del(option);
  ::nghttp2_session_callbacks_del(callbacks);
  if (made != 0) return false;
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, guest::frame_bytes_max},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<uint32_t>(stream_window_bytes)}};
  ::nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  ::nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, connection_window_bytes);
  return true;
}

void Client::flush() {
  if (!session_ || !socket_) return;
  while (socket_->queued() < socket_queued_bytes_max) {
    const uint8_t* bytes = nullptr;
    const ssize_t count = ::nghttp2_session_mem_send(session_, &bytes);
    if (count < 0) return lost(::nghttp2_strerror(static_cast<int>(count)));
    if (count == 0) return;
    socket_->send({reinterpret_cast<const char*>(bytes), static_cast<size_t>(count)});
  }
}

void Client::submit(const StreamPtr& state) {
  if (!session_) return state->fail_with(Error(ErrorCode::Io, "the agent's connection was lost"));
  const nghttp2_nv headers[] = {header(":method", state->method), header(":scheme", "http"),
                                header(":authority", "agent"), header(":path", state->path)};
  nghttp2_data_provider provider{};
  provider.source.ptr = state.get();
  provider.read_callback = on_upload;
  const int32_t id = ::nghttp2_submit_request(session_, nullptr, headers, std::size(headers),
                                              state->upload ? &provider : nullptr, nullptr);
  if (id < 0) return state->fail_with(Error(ErrorCode::Io, ::nghttp2_strerror(id)));
  state->id = id;
  streams_.emplace(id, state);
  flush();
}

void Client::resume_upload(const StreamPtr& state) {
  if (!session_ || find(state->id) != state) return;
  ::nghttp2_session_resume_data(session_, state->id);
  flush();
}

void Client::consume(const StreamPtr& state, size_t bytes) {
  if (!session_ || find(state->id) != state) return;
  ::nghttp2_session_consume_stream(session_, state->id, bytes);
  flush();
}

void Client::reset_stream(const StreamPtr& state) {
  if (!session_ || find(state->id) != state) return;
  ::nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, state->id, NGHTTP2_CANCEL);
  streams_.erase(state->id);
  flush();
}

// ---- the connection --------------------------------------------------------------------------

Client::~Client() {
  if (session_) ::nghttp2_session_del(session_);
}

Result<> Client::begin() {
  Result<> made;
  loop_.run([&] {
    // The timer serves two ends: greeting again, and connecting again.
    auto timer = LoopTimer::create(loop_, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->socket_ ? self->greet() : self->connect();
    });
    if (!timer) {
      made = tl::unexpected(std::move(timer.error()));
      return;
    }
    timer_ = std::move(*timer);
    connect();
  });
  return made;
}

void Client::connect() {
  if (closed()) return;
  auto fd = base::connect_unix(options_.socket_path);
  if (!fd) return lost(fd.error().to_string());
  const std::weak_ptr<Client> weak = weak_from_this();
  auto socket = LoopSocket::create(loop_, std::move(*fd),
                                   {.on_bytes =
                                        [weak](std::string_view bytes) {
                                          if (const auto self = weak.lock()) self->on_bytes(bytes);
                                        },
                                    .on_closed =
                                        [weak](const std::string& reason) {
                                          if (const auto self = weak.lock()) self->lost(reason);
                                        },
                                    .on_drained =
                                        [weak] {
                                          if (const auto self = weak.lock()) self->flush();
                                        }});
  if (!socket) return lost(socket.error().to_string());
  socket_ = std::move(*socket);
  greeting_.clear();
  hello_ = fmt::format("{}{} {}\n", guest::hello_prefix, base::random_hex(16), options_.epoch);
  greet();
}

void Client::greet() {
  if (session_) return;
  // A guest that has not opened its port yet reads nothing; what is queued is enough then.
  if (socket_->queued() == 0) socket_->send(hello_);
  timer_->start(greeting_repeat_ms);
}

void Client::on_bytes(std::string_view bytes) {
  heard_ns_ = base::boottime_ns();
  session_ ? on_session_bytes(bytes) : on_greeting_bytes(bytes);
}

void Client::on_greeting_bytes(std::string_view bytes) {
  greeting_.append(bytes);
  const size_t at = greeting_.find(hello_);
  if (at == std::string::npos) {
    // Remnants of an older session; only a tail that may begin our answer is worth keeping.
    if (greeting_.size() > greeting_bytes_max) greeting_.erase(0, greeting_.size() - hello_.size());
    return;
  }
  const std::string rest = greeting_.substr(at + hello_.size());
  greeting_.clear();
  timer_->stop();
  if (!start_session()) return lost("out of memory for an HTTP/2 session");
  first_bytes_ = true;
  reconnect_ms_ = reconnect_first_ms;
  {
    const std::lock_guard lock(mutex_);
    connected_ = true;
    changed_.notify_all();
  }
  flush();
  if (session_ && !rest.empty()) on_session_bytes(rest);
}

void Client::on_session_bytes(std::string_view bytes) {
  std::string joined;
  if (first_bytes_) {
    // A greeting sent twice is answered twice: further answers come before the first frame.
    greeting_.append(bytes);
    while (greeting_.starts_with(hello_)) greeting_.erase(0, hello_.size());
    if (greeting_.empty() || hello_.starts_with(greeting_)) return;
    joined.swap(greeting_);
    bytes = joined;
    first_bytes_ = false;
  }
  const ssize_t used = ::nghttp2_session_mem_recv(
      session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (used < 0) return lost(::nghttp2_strerror(static_cast<int>(used)));
  flush();
  if (session_ && !::nghttp2_session_want_read(session_) && !::nghttp2_session_want_write(session_))
    lost("the agent ended the session");
}

void Client::lost(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    connected_ = false;
    changed_.notify_all();
  }
  if (session_) ::nghttp2_session_del(std::exchange(session_, nullptr));
  socket_.reset();
  std::map<int32_t, StreamPtr> streams;
  streams.swap(streams_);
  for (const auto& [id, state] : streams)
    state->fail_with(
        Error(ErrorCode::Io, fmt::format("the connection to the agent was lost: {}", reason)));
  if (closed() || !timer_) return;
  timer_->start(reconnect_ms_);
  reconnect_ms_ = std::min(reconnect_ms_ * 2, reconnect_max_ms);
}

void Client::close(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (close_reason_) return;
    close_reason_ = reason;
    connected_ = false;
    changed_.notify_all();
  }
  loop_.run([&] {
    lost(reason);
    timer_.reset();
  });
}

Result<> Client::await_connected(const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  const bool ready =
      wait_until(changed_, lock, deadline, [&] { return connected_ || close_reason_; });
  if (close_reason_) return fail(ErrorCode::InvalidState, "{}", *close_reason_);
  if (!ready) return fail(ErrorCode::Timeout, "the agent in the VM did not answer in time");
  return {};
}

Result<std::shared_ptr<AgentStream>> Client::open(const std::string& method,
                                                  const std::string& path, bool upload,
                                                  const Deadline& deadline) {
  TRY(await_connected(deadline));
  auto state = std::make_shared<StreamState>();
  state->method = method;
  state->path = path;
  state->upload = upload;
  loop_.post([self = shared_from_this(), state] { self->submit(state); });
  return std::make_shared<Stream>(shared_from_this(), state);
}

Result<std::string> Client::call(const std::string& method, const std::string& path,
                                 const std::string& body, const Deadline& deadline) {
  const auto stream = TRY(open(method, path, !body.empty(), deadline));
  if (!body.empty()) {
    TRY(stream->write(body, deadline));
    stream->finish_writing();
  }
  AgentReply reply;
  reply.status = TRY(stream->status(deadline));
  for (;;) {
    const std::string more = TRY(stream->read(deadline));
    if (more.empty()) break;
    if (reply.body.size() + more.size() > base::limits::agent_message_bytes_max)
      return fail(ErrorCode::Io, "the agent's answer to {} is longer than {} bytes", path,
                  base::limits::agent_message_bytes_max);
    reply.body += more;
  }
  if (reply.status >= 400) return tl::unexpected(error_of_reply(reply, path));
  return std::move(reply.body);
}

}  // namespace

Error error_of_reply(const AgentReply& reply, const std::string& path) {
  const auto json = base::parse_json(reply.body);
  if (json && json->is_object() && json->contains("code"))
    return Error(base::error_code_from_name(base::json_string_or(*json, "code", "internal")),
                 base::json_string_or(*json, "message", "the agent gave no reason"));
  return Error(ErrorCode::Io,
               fmt::format("the agent answered {} with status {}", path, reply.status));
}

Result<std::shared_ptr<AgentClient>> AgentClient::create(IoLoop& loop, AgentOptions options) {
  auto client = std::make_shared<Client>(loop, std::move(options));
  TRY(client->begin());
  return std::shared_ptr<AgentClient>(std::move(client));
}

}  // namespace runtime
