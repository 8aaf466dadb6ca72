#include "image/registry/client.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>
#include <random>

#include <curl/curl.h>
#include <nlohmann/json.hpp>

#include "base/deadline.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"

namespace image::registry {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;

namespace {

/// What a connection must bring before its end counts as a new failure.
constexpr uint64_t progress_bytes = 64u << 10;
constexpr const char* accepted_manifests =
    "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json";

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool is_absolute(const std::string& path) { return path.find("://") != std::string::npos; }

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

/// The server's own words: `{"errors": [{"code", "message"}]}`, or nothing.
std::string server_words(HttpExchange& exchange) {
  const auto text = read_all(exchange, limits::answer_bytes_max);
  if (!text) return "";
  const auto document = base::parse_json(*text);
  if (!document || !document->is_object()) return "";
  const auto errors = document->find("errors");
  if (errors == document->end() || !errors->is_array() || errors->empty()) return "";
  const json& first = errors->front();
  if (!first.is_object()) return "";
  std::string words = base::json_string_or(first, "message", "");
  if (words.empty()) words = base::json_string_or(first, "code", "");
  constexpr size_t words_max = 300;
  return words.empty() ? "" : ": " + base::escape_controls(words.substr(0, words_max));
}

std::string media_type_of(const HttpHead& head) {
  const std::string type = head.header("content-type");
  std::string bare = type.substr(0, type.find(';'));
  while (bare.ends_with(" ")) bare.pop_back();
  return bare;
}

}  // namespace

bool is_transient(int status) {
  return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 ||
         status == 504;
}

int64_t backoff_ms(int attempt, const std::string& retry_after, int64_t wall_now_ns) {
  if (const auto seconds = number(retry_after))
    return static_cast<int64_t>(std::min<uint64_t>(*seconds, 1'000'000)) * 1000;
  if (!retry_after.empty()) {
    const time_t when = ::curl_getdate(retry_after.c_str(), nullptr);
    if (when != -1)
      return std::max<int64_t>(0, static_cast<int64_t>(when) * 1000 - wall_now_ns / 1'000'000);
  }
  const int64_t doubled = limits::backoff_first_ms << std::min(attempt, 10);
  const int64_t capped = std::min(doubled, limits::backoff_max_ms);
  // Half of it is chance, so that many who were turned away do not come back together.
  thread_local std::minstd_rand random{std::random_device{}()};
  return capped / 2 + std::uniform_int_distribution<int64_t>(0, capped / 2)(random);
}

// ---- requests ----------------------------------------------------------------------------------

std::string Repository::url_of(const std::string& path) const {
  if (is_absolute(path)) return path;
  return fmt::format("{}/v2/{}/{}", endpoint_.base(), name_, path);
}

std::string Repository::scope_of(const Ask& ask) const {
  if (name_.empty()) return "";
  std::string scope = fmt::format("repository:{}:pull{}", name_, ask.push ? ",push" : "");
  if (!ask.mount_from.empty()) scope += fmt::format(" repository:{}:pull", ask.mount_from);
  return scope;
}

Reach Repository::reach_beyond() const {
  const std::lock_guard lock(mutex_);
  return own_reach_;
}

void Repository::note_reach(const Reach& reached) {
  const std::lock_guard lock(mutex_);
  own_reach_.loopback = own_reach_.loopback || reached.loopback;
  own_reach_.link_local = own_reach_.link_local || reached.link_local;
}

Result<std::unique_ptr<HttpExchange>> Repository::start(const Ask& ask, const std::string& url) {
  const UrlParts parts = TRY(parse_url(url));
  const bool own = parts.authority == endpoint_.authority && parts.scheme == endpoint_.scheme;
  HttpRequest request;
  request.method = ask.method;
  request.url = url;
  request.headers = ask.headers;
  request.headers.emplace_back("User-Agent: container");
  if (own)
    if (const auto header = authorizer_.header(scope_of(ask)))
      request.headers.push_back("Authorization: " + *header);
  request.transport = transport_for(url, access_, endpoint_);
  request.reach = own ? Reach{} : reach_beyond();
  request.body = ask.body;
  request.upload = ask.upload;
  request.rewind = ask.rewind;
  request.upload_bytes = ask.upload_bytes;
  request.buffer_bytes = ask.buffer_bytes;
  return http_.start(std::move(request), &cancel_);
}

Result<std::string> Repository::redirect_target(const std::string& from,
                                                const std::string& location) {
  const std::string target = TRY(resolve_url(from, location));
  const UrlParts before = TRY(parse_url(from));
  const Result<UrlParts> after = parse_url(target);
  if (!after)
    return fail(ErrorCode::Denied,
                "{} redirects to '{}', which is not fetched: only http and https",
                without_query(from), without_query(target));
  if (is_link_local_host(after->host) && !reach_beyond().link_local)
    return fail(ErrorCode::Denied, "{} redirects to the link-local address {}; refused",
                without_query(from), base::escape_controls(after->host));
  if (before.scheme == "https" && after->scheme == "http") {
    const auto settings = access_.hosts.find(endpoint_.registry);
    if (settings == access_.hosts.end() || !settings->second.insecure)
      return fail(ErrorCode::Denied,
                  "{} redirects to {} without TLS; refused, unless config.toml has `insecure = "
                  "true` for this host",
                  without_query(from), without_query(target));
  }
  return target;
}

/// One try with what redirects and challenges it brings.
Result<Answer> Repository::attempt(const Ask& ask) {
  std::string url = url_of(ask.path);
  int challenges_left = 2;
  int redirects_left = limits::redirects_max;
  for (;;) {
    const UrlParts parts = TRY(parse_url(url));
    const bool own = parts.authority == endpoint_.authority && parts.scheme == endpoint_.scheme;
    const auto used = own ? authorizer_.header(scope_of(ask)) : std::nullopt;
    if (ask.rewind) ask.rewind();
    Answer answer;
    answer.exchange = TRY(start(ask, url));
    answer.url = url;
    answer.head = TRY(answer.exchange->head());
    if (own) note_reach(answer.head.reached);
    if (answer.head.status == 401 && own && challenges_left-- > 0) {
      TRY(authorizer_.answer(answer.head.challenges, scope_of(ask), used, reach_beyond(),
                             &cancel_));
      continue;
    }
    if (!is_redirect(answer.head.status)) return answer;
    if (ask.method != "GET" && ask.method != "HEAD")
      return fail(ErrorCode::Unsupported, "{} redirects an upload; that is not followed",
                  without_query(url));
    if (redirects_left-- == 0)
      return fail(ErrorCode::Io, "{} redirects without an end", without_query(url_of(ask.path)));
    url = TRY(redirect_target(url, answer.head.header("location")));
  }
}

Result<Answer> Repository::send(const Ask& ask) {
  for (int tries = 0;; ++tries) {
    Result<Answer> answer = attempt(ask);
    const bool broken = !answer && (answer.error().code() == ErrorCode::Io ||
                                    answer.error().code() == ErrorCode::Timeout);
    if (!answer && !broken) return answer;
    if (answer && !is_transient(answer->head.status)) return settle(ask, std::move(*answer));
    const std::string retry_after = answer ? answer->head.header("retry-after") : "";
    const int64_t wait_ms = backoff_ms(tries, retry_after, base::wall_time_ns());
    if (wait_ms > limits::retry_after_max_ms)
      return fail(ErrorCode::Busy, "{} asks to come back in {} s", endpoint_.registry,
                  wait_ms / 1000);
    if (tries + 1 >= limits::attempts_max) {
      if (!answer) return answer;
      return fail(answer->head.status == 429 ? ErrorCode::Busy : ErrorCode::Io,
                  "{} answers with status {} again and again; try later",
                  without_query(answer->url), answer->head.status);
    }
    if (answer) answer->exchange.reset();
    TRY(cancel_.wait_ms(wait_ms));
  }
}

Result<Answer> Repository::settle(const Ask& ask, Answer answer) {
  const int status = answer.head.status;
  const bool expected =
      std::find(ask.expected.begin(), ask.expected.end(), status) != ask.expected.end();
  if ((status >= 200 && status < 300) || expected) return answer;
  const std::string words = server_words(*answer.exchange);
  if (status == 404)
    return fail(ErrorCode::NotFound, "{} is not at {}{}", without_query(ask.path),
                endpoint_.authority, words);
  if (status == 401 || status == 403)
    return fail(
        ErrorCode::Denied, "{} does not let us {} '{}'{}; log in with: container registry login {}",
        endpoint_.registry, ask.push ? "push to" : "read", name_, words, endpoint_.registry);
  return fail(ErrorCode::Io, "{} answers with status {}{}", without_query(answer.url), status,
              words);
}

// ---- documents ---------------------------------------------------------------------------------

Result<> Repository::ping() {
  const std::string url = endpoint_.base() + "/v2/";
  (void)TRY(send({.path = url}));
  return {};
}

Result<Document> Repository::manifest(const std::string& tag_or_digest) {
  const Answer answer =
      TRY(send({.path = "manifests/" + tag_or_digest, .headers = {accepted_manifests}}));
  Document document{.text = TRY_DURING(read_all(*answer.exchange, base::limits::manifest_bytes_max),
                                       "read the manifest {}", tag_or_digest),
                    .media_type = media_type_of(answer.head),
                    .digest = {}};
  document.digest = digest_of(document.text);
  if (is_digest(tag_or_digest) && document.digest != tag_or_digest)
    return fail(ErrorCode::InvalidArgument, "{} gives {} where {} was asked for",
                endpoint_.authority, document.digest, tag_or_digest);
  const std::string said = answer.head.header("docker-content-digest");
  if (is_digest(said) && said != document.digest)
    return fail(ErrorCode::InvalidArgument, "{} gives {} and calls it {}", endpoint_.authority,
                document.digest, said);
  return document;
}

Result<Document> Repository::manifest_head(const std::string& tag_or_digest) {
  const Answer answer = TRY(send(
      {.method = "HEAD", .path = "manifests/" + tag_or_digest, .headers = {accepted_manifests}}));
  Document document{.text = {},
                    .media_type = media_type_of(answer.head),
                    .digest = answer.head.header("docker-content-digest")};
  // A registry need not say it.
  if (!is_digest(document.digest)) document = TRY(manifest(tag_or_digest));
  return document;
}

Result<bool> Repository::has_blob(const std::string& digest) {
  const Answer answer =
      TRY(send({.method = "HEAD", .path = "blobs/" + digest, .push = true, .expected = {404}}));
  return answer.head.status != 404;
}

// ---- slots -------------------------------------------------------------------------------------

Result<> Slots::take(Cancel& cancel) {
  bool given_up = false;  // guarded by mutex_
  const uint64_t token = cancel.on_cancel([&] {
    const std::lock_guard lock(mutex_);
    given_up = true;
    changed_.notify_all();
  });
  bool taken = false;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return free_ > 0 || given_up; });
    taken = !given_up;
    if (taken) --free_;
  }
  cancel.forget(token);
  if (!taken) return fail(ErrorCode::Cancelled, "given up by whoever asked for it");
  return {};
}

bool Slots::try_take() {
  const std::lock_guard lock(mutex_);
  if (free_ == 0) return false;
  --free_;
  return true;
}

void Slots::give() {
  const std::lock_guard lock(mutex_);
  ++free_;
  changed_.notify_one();
}

// ---- blobs -------------------------------------------------------------------------------------

BlobStream::BlobStream(Repository& repository, Descriptor blob, uint64_t offset, Slots& slots)
    : repository_(repository), blob_(std::move(blob)), at_(offset), slots_(slots) {
  chunked_ = blob_.size >= offset + limits::chunked_blob_bytes_min;
}

BlobStream::~BlobStream() {
  drop_parts();
  if (spare_) slots_.give();
}

void BlobStream::close_front() {
  if (parts_.front().ahead) slots_.give();
  parts_.erase(parts_.begin());
}

void BlobStream::drop_parts() {
  while (!parts_.empty()) close_front();
}

Result<> BlobStream::check_range(const HttpHead& head, const Part& part) const {
  const std::string range = head.header("content-range");
  std::string_view text = range;
  const auto wrong = [&] {
    return fail(ErrorCode::Io, "{} answers with the range '{}' where bytes {}-{} were asked for",
                repository_.endpoint().authority, base::escape_controls(range), part.begin,
                part.end - 1);
  };
  if (!text.starts_with("bytes ")) return wrong();
  text.remove_prefix(6);
  const size_t dash = text.find('-');
  const size_t slash = text.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || dash > slash)
    return wrong();
  const auto first = number(text.substr(0, dash));
  const auto last = number(text.substr(dash + 1, slash - dash - 1));
  const std::string_view total = text.substr(slash + 1);
  if (first != part.begin || !last || *last != part.end - 1) return wrong();
  if (total != "*" && number(total) != blob_.size)
    return fail(ErrorCode::InvalidArgument, "{} has {} bytes at {}, where {} were announced",
                blob_.digest, base::escape_controls(total), repository_.endpoint().authority,
                blob_.size);
  return {};
}

Result<> BlobStream::open_first() {
  Part part{.begin = at_, .end = blob_.size};
  if (chunked_ && ranges_) {
    // Small pieces pay where the next ones are on their way at the same time.
    spare_ = spare_ || slots_.try_take();
    part.end =
        std::min(blob_.size, at_ + (spare_ ? limits::chunk_bytes : limits::lone_chunk_bytes));
  }
  Ask ask{.path = "blobs/" + blob_.digest, .expected = {416}};
  const bool ranged = ranges_ && (at_ > 0 || part.end < blob_.size);
  if (ranged) ask.headers.push_back(fmt::format("Range: bytes={}-{}", part.begin, part.end - 1));
  Result<Answer> sent = repository_.send(ask);
  if (!sent) {
    failures_ = limits::attempts_max;  // it has tried that often itself
    return tl::unexpected<base::Error>(std::move(sent.error()));
  }
  Answer answer = std::move(*sent);
  if (ranged && answer.head.status == 206) {
    TRY(check_range(answer.head, part));
  } else if (answer.head.status == 200) {
    // It takes no ranges: what we have already goes by once more.
    chunked_ = false;
    part.end = blob_.size;
    skip_ = at_;
    const auto length = number(answer.head.header("content-length"));
    if (length && *length != blob_.size)
      return fail(ErrorCode::InvalidArgument, "{} has {} bytes at {}, where {} were announced",
                  blob_.digest, *length, repository_.endpoint().authority, blob_.size);
  } else {
    return fail(ErrorCode::Io, "{} answers a request for bytes {}-{} with status {}",
                without_query(answer.url), part.begin, part.end - 1, answer.head.status);
  }
  direct_url_ = answer.url;
  part.exchange = std::move(answer.exchange);
  part.checked = true;
  parts_.push_back(std::move(part));
  return {};
}

void BlobStream::open_ahead() {
  if (!chunked_ || !ranges_) return;
  while (parts_.back().end < blob_.size && (std::exchange(spare_, false) || slots_.try_take())) {
    Part part{.begin = parts_.back().end, .ahead = true};
    part.end = std::min(blob_.size, part.begin + limits::chunk_bytes);
    Ask ask{.path = direct_url_, .buffer_bytes = limits::chunk_bytes};
    ask.headers.push_back(fmt::format("Range: bytes={}-{}", part.begin, part.end - 1));
    auto exchange = repository_.start(ask, direct_url_);
    if (!exchange) {
      slots_.give();
      return;
    }
    part.exchange = std::move(*exchange);
    parts_.push_back(std::move(part));
  }
}

Result<size_t> BlobStream::read_part(std::span<char> buffer) {
  if (parts_.empty()) TRY(open_first());
  open_ahead();
  Part& front = parts_.front();
  if (!front.checked) {
    const HttpHead head = TRY(front.exchange->head());
    if (head.status != 206)
      return fail(ErrorCode::Io, "a piece of {} is answered with status {}", blob_.digest,
                  head.status);
    TRY(check_range(head, front));
    front.checked = true;
  }
  const size_t count = TRY(front.exchange->read(buffer));
  const uint64_t left = front.end - at_ + skip_;
  if (count > left)
    return fail(ErrorCode::InvalidArgument, "{} sends more of {} than the {} bytes announced",
                repository_.endpoint().authority, blob_.digest, blob_.size);
  if (count > 0) return count;
  if (left > 0)
    return fail(ErrorCode::Io, "{} ends after {} of {} bytes", blob_.digest, at_, blob_.size);
  close_front();
  return size_t{0};
}

/// Waits, and lets the next read begin a new connection where this one broke.
Result<> BlobStream::recover(base::Error error) {
  drop_parts();
  skip_ = 0;
  since_failure_ = 0;
  const bool passing = error.code() == ErrorCode::Io || error.code() == ErrorCode::Timeout;
  if (!passing || ++failures_ >= limits::attempts_max)
    return tl::unexpected<base::Error>(std::move(error));
  // A server that gets ranges wrong may still send all of it.
  if (failures_ >= 2) ranges_ = false;
  return repository_.cancel().wait_ms(backoff_ms(failures_ - 1, "", 0));
}

Result<size_t> BlobStream::read(std::span<char> buffer) {
  for (;;) {
    const bool at_end = at_ == blob_.size && skip_ == 0 && parts_.empty();
    if (at_end) return size_t{0};
    Result<size_t> count = read_part(buffer);
    if (!count) {
      TRY(recover(std::move(count.error())));
      continue;
    }
    if (*count == 0) continue;
    if (skip_ > 0) {
      const auto dropped = static_cast<size_t>(std::min<uint64_t>(skip_, *count));
      skip_ -= dropped;
      std::copy(buffer.begin() + static_cast<ptrdiff_t>(dropped),
                buffer.begin() + static_cast<ptrdiff_t>(*count), buffer.begin());
      *count -= dropped;
      if (*count == 0) continue;
    }
    at_ += *count;
    since_failure_ += *count;
    if (since_failure_ >= progress_bytes) {
      failures_ = 0;
      ranges_ = true;
    }
    return count;
  }
}

}  // namespace image::registry
