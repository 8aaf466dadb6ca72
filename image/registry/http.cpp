#include "image/registry/http.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/lower_case.h"
#include "base/text.h"
#include "base/uv.h"
#include "image/registry/curl_on_demand.h"

namespace image::registry {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;

constexpr long receive_buffer_bytes = 512L << 10;
constexpr size_t wake_bytes = 128u << 10;  ///< Readers are woken for this much at least.
constexpr size_t head_bytes_max = 256u << 10;

bool is_loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto* four = reinterpret_cast<const sockaddr_in*>(address);
    const uint32_t value = ntohl(four->sin_addr.s_addr);
    return value >> 24 == 127 || value == 0;
  }
  if (address->sa_family != AF_INET6) return true;  // unix sockets and the like: never of a peer
  const in6_addr& six = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&six)) return six.s6_addr[12] == 127 || six.s6_addr[12] == 0;
  return IN6_IS_ADDR_LOOPBACK(&six) || IN6_IS_ADDR_UNSPECIFIED(&six);
}

bool is_link_local(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto* four = reinterpret_cast<const sockaddr_in*>(address);
    return ntohl(four->sin_addr.s_addr) >> 16 == 0xA9FE;  // 169.254.0.0/16
  }
  if (address->sa_family != AF_INET6) return false;
  const in6_addr& six = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&six)) return six.s6_addr[12] == 169 && six.s6_addr[13] == 254;
  return IN6_IS_ADDR_LINKLOCAL(&six);
}

}  // namespace

// ---- giving up ---------------------------------------------------------------------------------

struct Cancel::State {
  mutable std::mutex mutex;
  mutable std::condition_variable changed;
  bool cancelled = false;
  uint64_t last_token = 0;
  std::map<uint64_t, std::function<void()>> calls;
};

Cancel::Cancel() : state_(std::make_unique<State>()) {}
Cancel::~Cancel() = default;

void Cancel::cancel() {
  const std::lock_guard lock(state_->mutex);
  if (std::exchange(state_->cancelled, true)) return;
  state_->changed.notify_all();
  for (const auto& [token, call] : state_->calls) call();
  state_->calls.clear();
}

bool Cancel::cancelled() const {
  const std::lock_guard lock(state_->mutex);
  return state_->cancelled;
}

Result<> Cancel::wait_ms(int64_t milliseconds) const {
  std::unique_lock lock(state_->mutex);
  if (state_->changed.wait_for(lock, std::chrono::milliseconds(milliseconds),
                               [&] { return state_->cancelled; }))
    return fail(ErrorCode::Cancelled, "given up by whoever asked for it");
  return {};
}

uint64_t Cancel::on_cancel(std::function<void()> call) {
  const std::lock_guard lock(state_->mutex);
  if (state_->cancelled) {
    call();
    return 0;
  }
  state_->calls.emplace(++state_->last_token, std::move(call));
  return state_->last_token;
}

void Cancel::forget(uint64_t token) {
  const std::lock_guard lock(state_->mutex);
  state_->calls.erase(token);
}

// ---- one transfer ------------------------------------------------------------------------------

namespace {

class Loop;

/// What the loop's thread and the reader share.
struct Transfer {
  Transfer(Loop& owner, HttpRequest wanted) : loop(owner), request(std::move(wanted)) {}

  Loop& loop;
  HttpRequest request;
  size_t sent = 0;       ///< Of request.body.
  CURL* easy = nullptr;  ///< The loop's alone; null before and after.
  curl_slist* headers = nullptr;
  std::string problem = std::string(CURL_ERROR_SIZE, '\0');
  std::string refused;  ///< Why a connection was not even tried.

  std::mutex mutex;
  std::condition_variable changed;
  HttpHead parsed;
  size_t head_bytes = 0;
  bool head_done = false;
  std::deque<std::string> pieces;
  std::vector<std::string> spare;  ///< Pieces that were read, for the next ones.
  size_t buffered = 0;
  size_t first_taken = 0;  ///< Of pieces.front().
  bool paused = false;
  bool reader_waits = false;
  bool finished = false;
  std::optional<base::Error> error;

  std::string next_piece() {
    std::string piece;
    if (!spare.empty()) {
      piece = std::move(spare.back());
      spare.pop_back();
      piece.clear();
    }
    return piece;
  }
};
using TransferPtr = std::shared_ptr<Transfer>;

/// The thread with the loop. Everything of libcurl happens on it.
class Loop {
 private:
  struct Pool;
  /// A socket of libcurl's in the loop.
  struct Watch {
    Pool* pool = nullptr;
    curl_socket_t socket = -1;
    int events = 0;
    base::UvHandle<uv_poll_t> poll;
  };

 public:
  explicit Loop(HttpOptions options) : options_(options) {}
  ~Loop();
  Result<> open();

  void add(TransferPtr transfer) { post({.kind = Order::Add, .transfer = std::move(transfer)}); }
  void resume(TransferPtr transfer) {
    post({.kind = Order::Resume, .transfer = std::move(transfer)});
  }
  void drop(TransferPtr transfer) { post({.kind = Order::Drop, .transfer = std::move(transfer)}); }

 private:
  /// Connections are reused within one pool only: what one request may not reach, another's open
  /// connection must not lead it to.
  struct Pool {
    Loop* loop = nullptr;
    CURLM* multi = nullptr;
    base::UvHandle<uv_timer_t> timer;
    std::map<curl_socket_t, std::unique_ptr<Watch>> watches;
  };
  struct Order {
    enum Kind { Add, Resume, Drop, Stop };
    Kind kind = Stop;
    TransferPtr transfer;
  };
  void post(Order order);
  void carry_out_orders();
  void begin(const TransferPtr& transfer);
  void set_up(CURL* easy, Transfer& transfer);
  void set_up_body(CURL* easy, Transfer& transfer);
  void set_up_security(CURL* easy, const Transport& transport);
  void end(const TransferPtr& transfer, std::optional<base::Error> error);
  Result<> open_pool(Pool& pool);
  Pool& pool_of(const Transfer& transfer);
  void collect(Pool& pool);
  void act(Pool& pool, curl_socket_t socket, int events);
  static void watch_for(Watch& watch);
  void notice(Pool& pool, curl_socket_t socket, int status, int events);
  base::Error error_of(CURLcode code, Transfer& transfer) const;

  static int on_socket(CURL*, curl_socket_t socket, int what, void* pool, void*);
  static int on_timer(CURLM*, long milliseconds, void* pool);
  static size_t on_header(char* bytes, size_t, size_t count, void* transfer);
  static size_t on_body(char* bytes, size_t, size_t count, void* transfer);
  static size_t on_read(char* bytes, size_t size, size_t count, void* transfer);
  static int on_seek(void* transfer, curl_off_t offset, int origin);
  static curl_socket_t on_open(void* transfer, curlsocktype, curl_sockaddr* address);

  const HttpOptions options_;
  uv_loop_t loop_{};
  bool loop_open_ = false;
  base::UvHandle<uv_async_t> wake_;
  std::array<Pool, 4> pools_;  ///< By Reach.
  std::map<CURL*, TransferPtr> running_;
  std::mutex mutex_;
  std::deque<Order> orders_;  ///< Guarded by mutex_.
  std::thread thread_;
};

Result<> Loop::open() {
  TRY(load_curl());
  if (::uv_loop_init(&loop_) != 0) return fail(ErrorCode::Io, "cannot make an event loop");
  loop_open_ = true;
  wake_ = TRY(base::make_handle<uv_async_t>([&](uv_async_t* made) {
    return ::uv_async_init(&loop_, made, [](uv_async_t* async) {
      if (auto* self = static_cast<Loop*>(async->data)) self->carry_out_orders();
    });
  }));
  wake_->data = this;
  for (Pool& pool : pools_) TRY(open_pool(pool));
  thread_ = std::thread([this] { ::uv_run(&loop_, UV_RUN_DEFAULT); });
  return {};
}

Result<> Loop::open_pool(Pool& pool) {
  pool.loop = this;
  pool.timer = TRY(base::make_handle<uv_timer_t>(
      [&](uv_timer_t* made) { return ::uv_timer_init(&loop_, made); }));
  pool.timer->data = &pool;
  pool.multi = ::curl_multi_init();
  if (pool.multi == nullptr) return fail(ErrorCode::Internal, "libcurl does not start");
  ::curl_multi_setopt(pool.multi, CURLMOPT_SOCKETFUNCTION, &Loop::on_socket);
  ::curl_multi_setopt(pool.multi, CURLMOPT_SOCKETDATA, &pool);
  ::curl_multi_setopt(pool.multi, CURLMOPT_TIMERFUNCTION, &Loop::on_timer);
  ::curl_multi_setopt(pool.multi, CURLMOPT_TIMERDATA, &pool);
  return {};
}

Loop::Pool& Loop::pool_of(const Transfer& transfer) {
  const Reach& reach = transfer.request.reach;
  return pools_[(reach.loopback ? 1u : 0u) + (reach.link_local ? 2u : 0u)];
}

Loop::~Loop() {
  if (thread_.joinable()) {
    post({.kind = Order::Stop, .transfer = {}});
    thread_.join();
  }
  while (!running_.empty())
    end(running_.begin()->second, base::Error(ErrorCode::Cancelled, "the client was closed"));
  for (Pool& pool : pools_) {
    if (pool.multi != nullptr) ::curl_multi_cleanup(pool.multi);
    pool.watches.clear();
    pool.timer.reset();
  }
  wake_.reset();
  if (!loop_open_) return;
  while (::uv_run(&loop_, UV_RUN_NOWAIT) != 0) {
  }
  ::uv_loop_close(&loop_);
}

void Loop::post(Order order) {
  const std::lock_guard lock(mutex_);
  orders_.push_back(std::move(order));
  ::uv_async_send(wake_.get());
}

void Loop::carry_out_orders() {
  std::deque<Order> orders;
  {
    const std::lock_guard lock(mutex_);
    orders.swap(orders_);
  }
  for (Order& order : orders) {
    if (order.kind == Order::Stop) {
      ::uv_stop(&loop_);
      continue;
    }
    if (order.kind == Order::Add) {
      begin(order.transfer);
      continue;
    }
    if (order.transfer->easy == nullptr) continue;  // it has ended meanwhile
    if (order.kind == Order::Drop)
      end(order.transfer, base::Error(ErrorCode::Cancelled, "given up by whoever asked for it"));
    else
      ::curl_easy_pause(order.transfer->easy, CURLPAUSE_CONT);
  }
  for (Pool& pool : pools_) collect(pool);
}

void Loop::set_up_security(CURL* easy, const Transport& transport) {
  ::curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  ::curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  ::curl_easy_setopt(easy, CURLOPT_PROXY, transport.proxy.c_str());
  ::curl_easy_setopt(easy, CURLOPT_NOPROXY, "");  // decided by whoever made the request
  ::curl_easy_setopt(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  ::curl_easy_setopt(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (transport.insecure) {
    ::curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
    ::curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
  }
  const auto blob = [&](CURLoption option, const std::string& pem) {
    if (pem.empty()) return;
    curl_blob value{};
    value.data = const_cast<char*>(pem.data());  // copied, as the flag says
    value.len = pem.size();
    value.flags = CURL_BLOB_COPY;
    ::curl_easy_setopt(easy, option, &value);
  };
  blob(CURLOPT_CAINFO_BLOB, transport.ca);
  blob(CURLOPT_SSLCERT_BLOB, transport.client_certificate);
  blob(CURLOPT_SSLKEY_BLOB, transport.client_key);
}

void Loop::set_up_body(CURL* easy, Transfer& transfer) {
  const HttpRequest& request = transfer.request;
  ::curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  if (request.method == "HEAD") {
    ::curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    return;
  }
  const uint64_t size = request.upload ? request.upload_bytes : request.body.size();
  const bool sends =
      request.method == "POST" || request.method == "PUT" || request.method == "PATCH";
  if (!sends) return;
  ::curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
  ::curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(size));
  ::curl_easy_setopt(easy, CURLOPT_READFUNCTION, &Loop::on_read);
  ::curl_easy_setopt(easy, CURLOPT_READDATA, &transfer);
  ::curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, &Loop::on_seek);
  ::curl_easy_setopt(easy, CURLOPT_SEEKDATA, &transfer);
  ::curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, receive_buffer_bytes);
}

void Loop::set_up(CURL* easy, Transfer& transfer) {
  ::curl_easy_setopt(easy, CURLOPT_URL, transfer.request.url.c_str());
  ::curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  ::curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer.problem.data());
  ::curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
  ::curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, receive_buffer_bytes);
  ::curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     static_cast<long>(options_.connect_timeout_ms));
  ::curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, limits::bytes_per_s_min);
  ::curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, static_cast<long>(options_.idle_timeout_s));
  ::curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &Loop::on_header);
  ::curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
  ::curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Loop::on_body);
  ::curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
  ::curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, &Loop::on_open);
  ::curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, &transfer);
  // The answer's bytes are what digests are about: no transparent decoding.
  ::curl_easy_setopt(easy, CURLOPT_HTTP_CONTENT_DECODING, 0L);
  set_up_security(easy, transfer.request.transport);
  set_up_body(easy, transfer);
  for (const std::string& header : transfer.request.headers)
    transfer.headers = ::curl_slist_append(transfer.headers, header.c_str());
  transfer.headers = ::curl_slist_append(transfer.headers, "Expect:");
  ::curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer.headers);
}

void Loop::begin(const TransferPtr& transfer) {
  CURL* easy = ::curl_easy_init();
  if (easy == nullptr) {
    const std::lock_guard lock(transfer->mutex);
    transfer->error = base::Error(ErrorCode::Internal, "libcurl has no memory");
    transfer->finished = true;
    transfer->changed.notify_all();
    return;
  }
  transfer->easy = easy;
  running_.emplace(easy, transfer);
  set_up(easy, *transfer);
  const CURLMcode added = ::curl_multi_add_handle(pool_of(*transfer).multi, easy);
  if (added != CURLM_OK)
    end(transfer, base::Error(ErrorCode::Internal, ::curl_multi_strerror(added)));
}

void Loop::end(const TransferPtr& transfer, std::optional<base::Error> error) {
  const TransferPtr keep = transfer;
  running_.erase(keep->easy);
  ::curl_multi_remove_handle(pool_of(*keep).multi, keep->easy);
  ::curl_easy_cleanup(keep->easy);
  ::curl_slist_free_all(keep->headers);
  keep->easy = nullptr;  // its memory may soon be another's
  keep->headers = nullptr;
  const std::lock_guard lock(keep->mutex);
  keep->finished = true;
  if (!keep->error) keep->error = std::move(error);
  keep->changed.notify_all();
}

base::Error Loop::error_of(CURLcode code, Transfer& transfer) const {
  const std::string url = without_query(transfer.request.url);
  if (!transfer.refused.empty()) return {ErrorCode::Denied, transfer.refused};
  const char* detail = transfer.problem.c_str();
  const std::string text =
      base::escape_controls(*detail != '\0' ? detail : curl_easy_strerror(code));
  if (code == CURLE_OPERATION_TIMEDOUT)
    return {ErrorCode::Timeout, fmt::format("{}: too slow or silent, given up after {} s ({})", url,
                                            options_.idle_timeout_s, text)};
  if (code == CURLE_PEER_FAILED_VERIFICATION)
    return {ErrorCode::Denied,
            fmt::format("{}: its certificate is not trusted ({}); name its authority with `ca` for "
                        "this host in config.toml, or `insecure = true`",
                        url, text)};
  if (code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY)
    return {ErrorCode::NotFound, fmt::format("{}: {}", url, text)};
  return {ErrorCode::Io, fmt::format("{}: {}", url, text)};
}

void Loop::collect(Pool& pool) {
  int left = 0;
  while (CURLMsg* message = ::curl_multi_info_read(pool.multi, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    const auto found = running_.find(message->easy_handle);
    if (found == running_.end()) continue;
    const TransferPtr transfer = found->second;
    end(transfer, code == CURLE_OK ? std::optional<base::Error>() : error_of(code, *transfer));
  }
}

void Loop::act(Pool& pool, curl_socket_t socket, int events) {
  int running = 0;
  ::curl_multi_socket_action(pool.multi, socket, events, &running);
  collect(pool);
}

int Loop::on_socket(CURL*, curl_socket_t socket, int what, void* self, void*) {
  auto& pool = *static_cast<Pool*>(self);
  if (what == CURL_POLL_REMOVE) {
    pool.watches.erase(socket);
    return 0;
  }
  std::unique_ptr<Watch>& watch = pool.watches[socket];
  if (!watch) {
    auto poll = base::make_handle<uv_poll_t>(
        [&](uv_poll_t* made) { return ::uv_poll_init_socket(&pool.loop->loop_, made, socket); });
    if (!poll) {
      pool.watches.erase(socket);
      return -1;
    }
    watch = std::make_unique<Watch>();
    watch->pool = &pool;
    watch->socket = socket;
    watch->poll = std::move(*poll);
    watch->poll->data = watch.get();
  }
  watch->events = ((what & CURL_POLL_IN) != 0 ? UV_READABLE : 0) |
                  ((what & CURL_POLL_OUT) != 0 ? UV_WRITABLE : 0);
  watch_for(*watch);
  return 0;
}

void Loop::watch_for(Watch& watch) {
  ::uv_poll_start(watch.poll.get(), watch.events, [](uv_poll_t* poll, int status, int seen) {
    if (auto* found = static_cast<Watch*>(poll->data))
      found->pool->loop->notice(*found->pool, found->socket, status, seen);
  });
}

/// A socket in error may still hold bytes that came before. Told of the error alone, libcurl drops
/// them; so it is told to go on, meets the error behind them, and the watch that libuv has stopped
/// is set again until then.
void Loop::notice(Pool& pool, curl_socket_t socket, int status, int events) {
  if (status < 0) events = pool.watches.at(socket)->events;
  act(pool, socket,
      ((events & UV_READABLE) != 0 ? CURL_CSELECT_IN : 0) |
          ((events & UV_WRITABLE) != 0 ? CURL_CSELECT_OUT : 0));
  const auto watch = pool.watches.find(socket);
  if (status < 0 && watch != pool.watches.end()) watch_for(*watch->second);
}

int Loop::on_timer(CURLM*, long milliseconds, void* self) {
  auto& pool = *static_cast<Pool*>(self);
  if (milliseconds < 0) {
    ::uv_timer_stop(pool.timer.get());
    return 0;
  }
  // A timer that fires early finds nothing due and is not set again: the loop's clock is brought up
  // to date first, and the rest of the millisecond is waited for.
  ::uv_update_time(&pool.loop->loop_);
  // Never from inside this call: libcurl forbids it to call back into itself.
  ::uv_timer_start(
      pool.timer.get(),
      [](uv_timer_t* timer) {
        if (auto* found = static_cast<Pool*>(timer->data))
          found->loop->act(*found, CURL_SOCKET_TIMEOUT, 0);
      },
      static_cast<uint64_t>(milliseconds) + 1, 0);
  return 0;
}

namespace {

/// Where the connection leads, also if it was kept from an earlier request and not opened for this.
void note_peer(Transfer& transfer) {
  const char* text = nullptr;
  if (!transfer.request.transport.proxy.empty() ||
      ::curl_easy_getinfo(transfer.easy, CURLINFO_PRIMARY_IP, &text) != CURLE_OK || text == nullptr)
    return;
  sockaddr_in four{};
  four.sin_family = AF_INET;
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  const sockaddr* address = nullptr;
  if (::inet_pton(AF_INET, text, &four.sin_addr) == 1)
    address = reinterpret_cast<const sockaddr*>(&four);
  else if (::inet_pton(AF_INET6, text, &six.sin6_addr) == 1)
    address = reinterpret_cast<const sockaddr*>(&six);
  if (address == nullptr) return;
  transfer.parsed.reached.loopback = transfer.parsed.reached.loopback || is_loopback(address);
  transfer.parsed.reached.link_local = transfer.parsed.reached.link_local || is_link_local(address);
}

}  // namespace

/// Lines of the answer's head; those of an interim answer (1xx) are forgotten.
size_t Loop::on_header(char* bytes, size_t, size_t count, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  std::string_view line(bytes, count);
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
  const std::lock_guard lock(transfer.mutex);
  transfer.head_bytes += count;
  if (transfer.head_bytes > head_bytes_max) return 0;
  if (line.starts_with("HTTP/")) {
    const Reach reached = transfer.parsed.reached;
    transfer.parsed = HttpHead{.reached = reached};
    return count;
  }
  if (line.empty()) {
    long status = 0;
    ::curl_easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &status);
    transfer.parsed.status = static_cast<int>(status);
    if (status < 200 || transfer.head_done) return count;  // interim, or a trailer
    note_peer(transfer);
    transfer.head_done = true;
    transfer.changed.notify_all();
    return count;
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return count;
  const std::string name = base::lower_case(line.substr(0, colon));
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  if (name == "www-authenticate") transfer.parsed.challenges.emplace_back(value);
  transfer.parsed.headers[name] = std::string(value);
  return count;
}

size_t Loop::on_body(char* bytes, size_t, size_t count, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  const std::lock_guard lock(transfer.mutex);
  if (transfer.buffered >= transfer.request.buffer_bytes) {
    transfer.paused = true;
    transfer.changed.notify_all();
    return CURL_WRITEFUNC_PAUSE;
  }
  if (transfer.pieces.empty() || transfer.pieces.back().size() + count > wake_bytes) {
    transfer.pieces.push_back(transfer.next_piece());
    transfer.pieces.back().reserve(std::max(count, wake_bytes));
  }
  transfer.pieces.back().append(bytes, count);
  transfer.buffered += count;
  if (transfer.reader_waits &&
      transfer.buffered >= std::min(wake_bytes, transfer.request.buffer_bytes))
    transfer.changed.notify_all();
  return count;
}

size_t Loop::on_read(char* bytes, size_t size, size_t count, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  const std::span<char> into(bytes, size * count);
  if (!transfer.request.upload) {
    const size_t copied = transfer.request.body.copy(into.data(), into.size(), transfer.sent);
    transfer.sent += copied;
    return copied;
  }
  Result<size_t> filled = transfer.request.upload(into);
  if (filled) return *filled;
  const std::lock_guard lock(transfer.mutex);
  transfer.error = std::move(filled.error());
  return CURL_READFUNC_ABORT;
}

/// A kept connection that was closed meanwhile is found out only when the body is on its way.
int Loop::on_seek(void* self, curl_off_t offset, int origin) {
  auto& transfer = *static_cast<Transfer*>(self);
  if (offset != 0 || origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
  if (transfer.request.upload && !transfer.request.rewind) return CURL_SEEKFUNC_CANTSEEK;
  if (transfer.request.rewind) transfer.request.rewind();
  transfer.sent = 0;
  return CURL_SEEKFUNC_OK;
}

curl_socket_t Loop::on_open(void* self, curlsocktype, curl_sockaddr* address) {
  auto& transfer = *static_cast<Transfer*>(self);
  const bool loopback = is_loopback(&address->addr);
  const bool link_local = is_link_local(&address->addr);
  // Behind a proxy it is the proxy that is connected to, and the proxy that decides.
  if (transfer.request.transport.proxy.empty()) {
    const Reach& reach = transfer.request.reach;
    if ((loopback && !reach.loopback) || (link_local && !reach.link_local)) {
      transfer.refused =
          fmt::format("{} is at a {} address, where a registry elsewhere may not send us",
                      without_query(transfer.request.url), loopback ? "loopback" : "link-local");
      return CURL_SOCKET_BAD;
    }
    const std::lock_guard lock(transfer.mutex);
    transfer.parsed.reached.loopback = transfer.parsed.reached.loopback || loopback;
    transfer.parsed.reached.link_local = transfer.parsed.reached.link_local || link_local;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

// ---- the reader's end --------------------------------------------------------------------------

class Exchange final : public HttpExchange {
 public:
  Exchange(Loop& loop, TransferPtr transfer, Cancel* cancel)
      : loop_(loop), transfer_(std::move(transfer)), cancel_(cancel) {
    if (cancel_ != nullptr)
      token_ = cancel_->on_cancel([&loop, held = transfer_] { loop.drop(held); });
  }
  ~Exchange() override {
    if (cancel_ != nullptr) cancel_->forget(token_);
    std::unique_lock lock(transfer_->mutex);
    if (transfer_->finished) return;
    lock.unlock();
    loop_.drop(transfer_);
    // What the request refers to (its upload) may go once we return.
    lock.lock();
    transfer_->changed.wait(lock, [&] { return transfer_->finished; });
  }

  Result<HttpHead> head() override {
    std::unique_lock lock(transfer_->mutex);
    transfer_->changed.wait(lock, [&] { return transfer_->head_done || transfer_->finished; });
    // What broke later is told after the bytes that came before: a part of a blob is worth keeping.
    if (transfer_->head_done) return transfer_->parsed;
    if (transfer_->error) return tl::unexpected<base::Error>(*transfer_->error);
    return fail(ErrorCode::Io, "{}: no answer", without_query(transfer_->request.url));
  }

  Result<size_t> read(std::span<char> buffer) override {
    std::unique_lock lock(transfer_->mutex);
    const size_t enough = std::min(wake_bytes, transfer_->request.buffer_bytes);
    transfer_->reader_waits = true;
    transfer_->changed.wait(lock, [&] {
      return transfer_->finished || transfer_->buffered >= enough || transfer_->paused;
    });
    transfer_->reader_waits = false;
    size_t filled = 0;
    while (filled < buffer.size() && !transfer_->pieces.empty()) {
      std::string& first = transfer_->pieces.front();
      const size_t count =
          first.copy(buffer.data() + filled, buffer.size() - filled, transfer_->first_taken);
      filled += count;
      transfer_->first_taken += count;
      transfer_->buffered -= count;
      if (transfer_->first_taken < first.size()) break;
      transfer_->spare.push_back(std::move(first));
      transfer_->pieces.pop_front();
      transfer_->first_taken = 0;
    }
    if (transfer_->paused && !transfer_->finished &&
        transfer_->buffered <= transfer_->request.buffer_bytes / 2) {
      transfer_->paused = false;
      loop_.resume(transfer_);
    }
    if (filled == 0 && transfer_->error) return tl::unexpected<base::Error>(*transfer_->error);
    return filled;
  }

 private:
  Loop& loop_;
  const TransferPtr transfer_;
  Cancel* const cancel_;
  uint64_t token_ = 0;
};

class CurlClient final : public HttpClient {
 public:
  explicit CurlClient(HttpOptions options) : loop_(options) {}
  Result<> open() { return loop_.open(); }

  Result<std::unique_ptr<HttpExchange>> start(HttpRequest request, Cancel* cancel) override {
    if (cancel != nullptr && cancel->cancelled())
      return fail(ErrorCode::Cancelled, "given up by whoever asked for it");
    auto transfer = std::make_shared<Transfer>(loop_, std::move(request));
    loop_.add(transfer);
    return std::make_unique<Exchange>(loop_, std::move(transfer), cancel);
  }

 private:
  Loop loop_;
};

}  // namespace

Result<std::shared_ptr<HttpClient>> HttpClient::create(HttpOptions options) {
  auto client = std::make_shared<CurlClient>(options);
  TRY(client->open());
  return client;
}

Result<std::string> read_all(HttpExchange& exchange, uint64_t bytes_max) {
  std::string text;
  std::vector<char> buffer(64u << 10);
  while (const size_t count = TRY(exchange.read(buffer))) {
    if (text.size() + count > bytes_max)
      return fail(ErrorCode::InvalidArgument, "the answer is larger than {} bytes", bytes_max);
    text.append(buffer.data(), count);
  }
  return text;
}

std::string without_query(std::string_view url) {
  url = url.substr(0, url.find_first_of("?#"));
  // A name and password before the host are as secret.
  const size_t scheme = url.find("://");
  if (scheme != std::string_view::npos) {
    const size_t host = scheme + 3;
    const size_t at = url.substr(0, url.find('/', host)).rfind('@');
    if (at != std::string_view::npos && at >= host)
      return base::escape_controls(std::string(url.substr(0, host)) +
                                   std::string(url.substr(at + 1)));
  }
  return base::escape_controls(url);
}

}  // namespace image::registry
