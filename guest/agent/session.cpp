#include "guest/agent/session.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <nghttp2/nghttp2.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/text.h"
#include "guest/agent/limits.h"
#include "guest/protocol/protocol.h"

namespace agent {
namespace {

using base::Error;
using base::ErrorCode;

constexpr size_t outgoing_bytes_max = 256 * 1024;
constexpr size_t read_bytes = 64 * 1024;
constexpr size_t response_bytes_wanted = guest::frame_bytes_max;

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::InvalidArgument: return 400;
    case ErrorCode::NotFound: return 404;
    case ErrorCode::Exists:
    case ErrorCode::InvalidState:
    case ErrorCode::Busy: return 409;
    case ErrorCode::Timeout:
    case ErrorCode::Cancelled:
    case ErrorCode::Unsupported:
    case ErrorCode::NoSpace:
    case ErrorCode::Denied:
    case ErrorCode::Io:
    case ErrorCode::Internal: return 500;
  }
  return 500;
}

void split_target(std::string_view target, Request& request) {
  const size_t mark = target.find('?');
  request.path = target.substr(0, mark);
  if (mark == std::string_view::npos) return;
  std::string_view query = target.substr(mark + 1);
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    const size_t equals = pair.find('=');
    if (equals != std::string_view::npos)
      request.query[std::string(pair.substr(0, equals))] = pair.substr(equals + 1);
    if (end == std::string_view::npos) break;
    query.remove_prefix(end + 1);
  }
}

nghttp2_nv header(std::string_view name, std::string_view value) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          NGHTTP2_NV_FLAG_NONE};
}

class TextSource final : public BodySource {
 public:
  explicit TextSource(std::string text) : text_(std::move(text)) {}
  State fill(std::string& out, size_t bytes_max) override {
    const size_t count = std::min(bytes_max, text_.size() - given_);
    out.append(text_, given_, count);
    given_ += count;
    return given_ == text_.size() ? State::End : State::More;
  }

 private:
  std::string text_;
  size_t given_ = 0;
};

}  // namespace

/// One nghttp2 session, and its streams.
class ControlPort::Session : public std::enable_shared_from_this<Session> {
 public:
  explicit Session(ControlPort& port) : port_(&port) {}
  ~Session() { nghttp2_session_del(handle_); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  bool begin();
  /// False: the peer does not speak HTTP/2.
  bool receive(std::string_view bytes) {
    const ssize_t used = nghttp2_session_mem_recv(
        handle_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    return used == static_cast<ssize_t>(bytes.size());
  }
  bool collect(std::string& out, size_t bytes_max);
  /// Ends all streams: the port goes on without this session.
  void detach();

 private:
  struct Stream;
  class StreamReply;

  static int on_begin_headers(nghttp2_session*, const nghttp2_frame*, void*);
  static int on_header(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t,
                       const uint8_t*, size_t, uint8_t, void*);
  static int on_data(nghttp2_session*, uint8_t, int32_t, const uint8_t*, size_t, void*);
  static int on_frame(nghttp2_session*, const nghttp2_frame*, void*);
  static int on_close(nghttp2_session*, int32_t, uint32_t, void*);
  static ssize_t on_fill(nghttp2_session*, int32_t, uint8_t*, size_t, uint32_t*,
                         nghttp2_data_source*, void*);

  static ssize_t frame_room(nghttp2_session*, uint8_t, int32_t, int32_t, int32_t, uint32_t, void*);

  void headers_done(Stream& stream);
  void body_done(Stream& stream);
  void respond(int32_t id, int status, std::shared_ptr<BodySource> source);
  void close(int32_t id);
  Stream* find(int32_t id) {
    const auto found = streams_.find(id);
    return found == streams_.end() ? nullptr : found->second.get();
  }

  ControlPort* port_;  // null once detached
  nghttp2_session* handle_ = nullptr;
  std::map<int32_t, std::unique_ptr<Stream>> streams_;
  size_t body_bytes_ = 0;  // collected in all streams
};

struct ControlPort::Session::Stream {
  int32_t id = 0;
  Request request;
  std::string target;
  std::shared_ptr<StreamReply> reply;
  std::shared_ptr<BodySink> sink;
  std::shared_ptr<BodySource> source;
  std::string pending;  // made by the source
  size_t pending_sent = 0;
  std::string failure;
  bool source_ended = false;
  bool responded = false;
  bool handled = false;
};

class ControlPort::Session::StreamReply final : public Reply {
 public:
  StreamReply(std::weak_ptr<Session> session, int32_t id) : session_(std::move(session)), id_(id) {}

  void send(const nlohmann::json& body) override {
    respond(200, std::make_shared<TextSource>(base::dump_json(body)));
  }
  void fail(const Error& error) override {
    respond(status_of(error.code()),
            std::make_shared<TextSource>(base::dump_json(
                {{"code", base::error_code_name(error.code())}, {"message", error.to_string()}})));
  }
  void stream(std::shared_ptr<BodySource> source) override { respond(200, std::move(source)); }
  void resume() override {
    if (const auto session = session_.lock(); session && session->port_) {
      nghttp2_session_resume_data(session->handle_, id_);
      session->port_->schedule_write();
    }
  }
  void consumed(size_t bytes) override {
    if (const auto session = session_.lock(); session && session->port_) {
      nghttp2_session_consume(session->handle_, id_, bytes);
      session->port_->schedule_write();
    }
  }
  void set_window(int32_t bytes) override {
    if (const auto session = session_.lock(); session && session->port_)
      nghttp2_session_set_local_window_size(session->handle_, NGHTTP2_FLAG_NONE, id_, bytes);
  }
  void on_closed(std::function<void()> call) override { closed_ = std::move(call); }
  void closed() {
    if (const auto call = std::exchange(closed_, nullptr)) call();
  }

 private:
  void respond(int status, std::shared_ptr<BodySource> source) {
    if (const auto session = session_.lock(); session && session->port_)
      session->respond(id_, status, std::move(source));
  }
  std::weak_ptr<Session> session_;
  int32_t id_;
  std::function<void()> closed_;
};

bool ControlPort::Session::begin() {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_option* options = nullptr;
  if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&options) != 0)
    return false;
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
  nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, frame_room);
  nghttp2_option_set_no_auto_window_update(options, 1);
  const int made = nghttp2_session_server_new2(&handle_, callbacks, this, options);
  nghttp2_option_del(options);
  nghttp2_session_callbacks_del(callbacks);
  if (made != 0) return false;
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits::streams_max},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, guest::frame_bytes_max},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits::stream_window_bytes}};
  nghttp2_submit_settings(handle_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(handle_, NGHTTP2_FLAG_NONE, 0,
                                        limits::connection_window_bytes);
  return true;
}

bool ControlPort::Session::collect(std::string& out, size_t bytes_max) {
  while (out.size() < bytes_max) {
    const uint8_t* data = nullptr;
    const ssize_t count = nghttp2_session_mem_send(handle_, &data);
    if (count < 0) return false;
    if (count == 0) return true;
    out.append(reinterpret_cast<const char*>(data), static_cast<size_t>(count));
  }
  return true;
}

void ControlPort::Session::detach() {
  port_ = nullptr;
  auto streams = std::exchange(streams_, {});
  for (auto& [id, stream] : streams) stream->reply->closed();
}

int ControlPort::Session::on_begin_headers(nghttp2_session*, const nghttp2_frame* frame,
                                           void* user) {
  auto& self = *static_cast<Session*>(user);
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  auto stream = std::make_unique<Stream>();
  stream->id = frame->hd.stream_id;
  stream->reply = std::make_shared<StreamReply>(self.weak_from_this(), stream->id);
  self.streams_[stream->id] = std::move(stream);
  return 0;
}

int ControlPort::Session::on_header(nghttp2_session*, const nghttp2_frame* frame,
                                    const uint8_t* name, size_t name_size, const uint8_t* value,
                                    size_t value_size, uint8_t, void* user) {
  Stream* stream = static_cast<Session*>(user)->find(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  const std::string_view key(reinterpret_cast<const char*>(name), name_size);
  const std::string_view text(reinterpret_cast<const char*>(value), value_size);
  if (key == ":method") stream->request.method = text;
  if (key == ":path") stream->target = text.substr(0, limits::path_bytes_max);
  return 0;
}

int ControlPort::Session::on_data(nghttp2_session* handle, uint8_t, int32_t id, const uint8_t* data,
                                  size_t size, void* user) {
  auto& self = *static_cast<Session*>(user);
  Stream* stream = self.find(id);
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (stream != nullptr && stream->sink) {
    // Keeps it alive while it is called: the call may end the stream.
    const std::shared_ptr<BodySink> sink = stream->sink;
    sink->bytes(bytes);
    return 0;
  }
  nghttp2_session_consume(handle, id, size);
  if (stream == nullptr || stream->handled) return 0;
  if (stream->request.body.size() + size > base::limits::agent_message_bytes_max ||
      self.body_bytes_ + size > limits::bodies_bytes_max) {
    stream->handled = true;
    stream->reply->fail(Error(ErrorCode::InvalidArgument, "the request is too large"));
    return 0;
  }
  self.body_bytes_ += size;
  stream->request.body += bytes;
  return 0;
}

int ControlPort::Session::on_frame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
  auto& self = *static_cast<Session*>(user);
  const bool ends = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (frame->hd.type == NGHTTP2_HEADERS)
    if (Stream* stream = self.find(frame->hd.stream_id)) self.headers_done(*stream);
  if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) && ends)
    if (Stream* stream = self.find(frame->hd.stream_id)) self.body_done(*stream);
  return 0;
}

void ControlPort::Session::headers_done(Stream& stream) {
  if (stream.handled || stream.sink) return;
  split_target(stream.target, stream.request);
  stream.sink = port_->handler_.upload(stream.request, stream.reply);
}

void ControlPort::Session::body_done(Stream& stream) {
  if (stream.sink) {
    const std::shared_ptr<BodySink> sink = stream.sink;
    sink->end();
    return;
  }
  if (std::exchange(stream.handled, true)) return;
  body_bytes_ -= std::min(body_bytes_, stream.request.body.size());
  const Request request = std::move(stream.request);
  const ReplyPtr reply = stream.reply;
  port_->handler_.request(request, reply);
}

void ControlPort::Session::respond(int32_t id, int status, std::shared_ptr<BodySource> source) {
  Stream* stream = find(id);
  if (stream == nullptr || std::exchange(stream->responded, true)) return;
  stream->source = std::move(source);
  const std::string text = std::to_string(status);
  const nghttp2_nv headers[] = {header(":status", text)};
  nghttp2_data_provider provider{};
  provider.read_callback = on_fill;
  nghttp2_submit_response(handle_, id, headers, std::size(headers), &provider);
  port_->schedule_write();
}

ssize_t ControlPort::Session::on_fill(nghttp2_session* handle, int32_t id, uint8_t* buffer,
                                      size_t room, uint32_t* flags, nghttp2_data_source*,
                                      void* user) {
  Stream* stream = static_cast<Session*>(user)->find(id);
  if (stream == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  if (stream->pending_sent == stream->pending.size() && !stream->source_ended) {
    stream->pending.clear();
    stream->pending_sent = 0;
    const auto state = stream->source->fill(stream->pending, response_bytes_wanted);
    if (state == BodySource::State::Wait && stream->pending.empty()) return NGHTTP2_ERR_DEFERRED;
    stream->source_ended = state == BodySource::State::End || state == BodySource::State::Broken;
    if (state == BodySource::State::Broken)
      stream->failure = base::escape_controls(stream->source->failure());
  }
  const size_t count = std::min(room, stream->pending.size() - stream->pending_sent);
  std::memcpy(buffer, stream->pending.data() + stream->pending_sent, count);
  stream->pending_sent += count;
  if (!stream->source_ended || stream->pending_sent < stream->pending.size())
    return static_cast<ssize_t>(count);
  *flags |= NGHTTP2_DATA_FLAG_EOF;
  if (stream->failure.empty()) return static_cast<ssize_t>(count);
  *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
  const nghttp2_nv trailer[] = {header(guest::failure_trailer, stream->failure)};
  nghttp2_submit_trailer(handle, id, trailer, std::size(trailer));
  return static_cast<ssize_t>(count);
}

/// As much as the host takes at once, instead of the library's 16 KiB.
ssize_t ControlPort::Session::frame_room(nghttp2_session*, uint8_t, int32_t, int32_t session_window,
                                         int32_t stream_window, uint32_t frame_max, void*) {
  return std::min({session_window, stream_window, static_cast<int32_t>(frame_max),
                   static_cast<int32_t>(guest::frame_bytes_max)});
}

int ControlPort::Session::on_close(nghttp2_session*, int32_t id, uint32_t, void* user) {
  static_cast<Session*>(user)->close(id);
  return 0;
}

void ControlPort::Session::close(int32_t id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  const std::unique_ptr<Stream> stream = std::move(found->second);
  streams_.erase(found);
  if (!stream->handled) body_bytes_ -= std::min(body_bytes_, stream->request.body.size());
  stream->reply->closed();
}

ControlPort::ControlPort(Loop& loop, int fd, RequestHandler& handler)
    : loop_(loop), fd_(fd), handler_(handler), read_buffer_(read_bytes) {}

ControlPort::~ControlPort() {
  drop_session();
  loop_.forget(fd_);
  loop_.cancel(silence_);
}

/// Edge-triggered, because a port whose host side is closed reports a hang-up without end.
base::Result<> ControlPort::start() {
  TRY(loop_.watch(fd_, EPOLLIN | EPOLLOUT | EPOLLET, [this](uint32_t) { on_ready(); }));
  on_ready();
  return {};
}

void ControlPort::on_ready() {
  while (read_some()) {
  }
  write_some();
}

bool ControlPort::read_some() {
  const ssize_t count = ::read(fd_, read_buffer_.data(), read_buffer_.size());
  if (count <= 0) return count < 0 && errno == EINTR;
  take({read_buffer_.data(), static_cast<size_t>(count)});
  return true;
}

void ControlPort::take(std::string_view bytes) {
  loop_.cancel(silence_);
  while (const auto piece = splitter_.next(bytes)) {
    if (piece->greeting) {
      greet(*piece->greeting);
    } else if (session_) {
      // The session may be dropped by what it receives.
      const std::shared_ptr<Session> session = session_;
      if (!session->receive(piece->bytes)) {
        drop_session();
        splitter_.expect_greeting();
      }
      schedule_write();
    }
  }
  if (splitter_.greeting_at_end())
    silence_ = loop_.after_ms(limits::greeting_silence_ms, [this] {
      if (const auto greeting = splitter_.greeting_at_end()) greet(*greeting);
    });
}

void ControlPort::greet(const guest::Greeting& greeting) {
  if (greeting.epoch < highest_epoch_) {
    // An older daemon must not take the VM from a newer one; it waits in vain.
    if (!session_) splitter_.expect_greeting();
    return;
  }
  // Sent again before our answer had arrived: answering twice would be noise in the session.
  if (session_ && greeting == current_) return;
  const bool later = greeting.epoch > highest_epoch_ && highest_epoch_ != 0;
  highest_epoch_ = greeting.epoch;
  current_ = greeting;
  drop_session();
  if (later) handler_.new_daemon();
  outgoing_ = guest::format_greeting(greeting);
  outgoing_sent_ = 0;
  session_ = std::make_shared<Session>(*this);
  if (session_->begin()) {
    splitter_.session_begins();
  } else {
    session_.reset();
    splitter_.expect_greeting();
  }
  schedule_write();
}

void ControlPort::drop_session() {
  if (const auto session = std::exchange(session_, nullptr)) session->detach();
}

/// Not at once: we may be inside a callback of the session.
void ControlPort::schedule_write() {
  if (std::exchange(write_scheduled_, true)) return;
  loop_.soon([this] {
    write_scheduled_ = false;
    write_some();
  });
}

void ControlPort::write_some() {
  for (;;) {
    if (outgoing_sent_ == outgoing_.size()) {
      outgoing_.clear();
      outgoing_sent_ = 0;
      const std::shared_ptr<Session> session = session_;
      if (session && !session->collect(outgoing_, outgoing_bytes_max)) drop_session();
      if (outgoing_.empty()) return;
    }
    const ssize_t count =
        ::write(fd_, outgoing_.data() + outgoing_sent_, outgoing_.size() - outgoing_sent_);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;  // Ready again, or greeted anew: either is told by the loop.
    outgoing_sent_ += static_cast<size_t>(count);
  }
}

}  // namespace agent
