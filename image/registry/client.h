#pragma once
/// One repository at one place (a registry or a mirror of it): requests with their authentication,
/// redirects and patience. Thread-safe. Source: the OCI Distribution Specification 1.1.
///
/// An Authorization header goes to the endpoint itself and to its token service (auth.h), never
/// along a redirect. Redirects lead to http and https only, not from https to http, and not to
/// loopback or link-local addresses unless the registry itself is at such a one.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "image/registry/access.h"
#include "image/registry/auth.h"
#include "image/registry/http.h"
#include "image/registry/limits.h"
#include "image/store.h"

namespace image::registry {

/// A request within the repository.
struct Ask {
  std::string method = "GET";
  std::string path;  ///< Behind `/v2/NAME/`, such as `manifests/latest`; or a whole URL.
  std::vector<std::string> headers;
  std::string body;
  std::function<base::Result<size_t>(std::span<char>)> upload;
  std::function<void()> rewind;  ///< Makes `upload` begin anew, for another try.
  uint64_t upload_bytes = 0;
  size_t buffer_bytes = limits::body_buffer_bytes;
  bool push = false;               ///< Needs the right to write.
  std::string mount_from;          ///< Another repository it needs to read.
  std::vector<int> expected = {};  ///< Statuses that are no error besides 2xx.
};

/// An answer whose body is still to be read.
struct Answer {
  HttpHead head;
  std::unique_ptr<HttpExchange> exchange;
  std::string url;  ///< Where it came from, after redirects.
};

struct Document {
  std::string text;
  std::string media_type;
  std::string digest;
};

/// How long to wait before another try: what the server asks for, else doubling with jitter.
int64_t backoff_ms(int attempt, const std::string& retry_after, int64_t wall_now_ns);
/// True for failures that another try may not meet.
bool is_transient(int status);

class Repository {
 public:
  /// All of them must outlive the repository.
  Repository(HttpClient& http, const Access& access, Endpoint endpoint, std::string name,
             Cancel& cancel)
      : http_(http),
        access_(access),
        endpoint_(std::move(endpoint)),
        name_(std::move(name)),
        cancel_(cancel),
        authorizer_(http, access, endpoint_) {}

  const Endpoint& endpoint() const { return endpoint_; }
  const std::string& name() const { return name_; }
  Cancel& cancel() { return cancel_; }

  /// Tries until there is an answer that is no passing failure. Other statuses than 2xx and
  /// `expected` are errors: NotFound, Denied, or Io with the server's own words.
  base::Result<Answer> send(const Ask& ask);
  /// One try, without waiting for the answer's head; with what send() has learnt so far.
  base::Result<std::unique_ptr<HttpExchange>> start(const Ask& ask, const std::string& url);

  /// By tag or digest; verified against the digest if it is one, and against the server's own.
  base::Result<Document> manifest(const std::string& tag_or_digest);
  /// Digest and media type alone, without the content.
  base::Result<Document> manifest_head(const std::string& tag_or_digest);
  base::Result<bool> has_blob(const std::string& digest);
  /// Answers if the registry speaks the protocol and knows us.
  base::Result<> ping();

  std::string url_of(const std::string& path) const;

 private:
  std::string scope_of(const Ask& ask) const;
  base::Result<Answer> attempt(const Ask& ask);
  base::Result<std::string> redirect_target(const std::string& from, const std::string& location);
  base::Result<Answer> settle(const Ask& ask, Answer answer);
  Reach reach_beyond() const;
  void note_reach(const Reach& reached);

  HttpClient& http_;
  const Access& access_;
  const Endpoint endpoint_;
  const std::string name_;
  Cancel& cancel_;
  Authorizer authorizer_;
  mutable std::mutex mutex_;
  Reach own_reach_{.loopback = false, .link_local = false};  ///< Of the registry; guarded.
};

/// Connections that a task may have open at once.
class Slots {
 public:
  explicit Slots(uint32_t count) : free_(count) {}
  base::Result<> take(Cancel& cancel);
  bool try_take();
  void give();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint32_t free_;
};

/// A blob as one stream, from `offset` on: goes on where a connection broke, and fetches ahead in
/// ranges with the slots nobody else uses. Verifies no digest, but no byte more than announced
/// comes out. One thread.
class BlobStream {
 public:
  BlobStream(Repository& repository, Descriptor blob, uint64_t offset, Slots& slots);
  ~BlobStream();
  BlobStream(const BlobStream&) = delete;
  BlobStream& operator=(const BlobStream&) = delete;
  /// 0 at the end.
  base::Result<size_t> read(std::span<char> buffer);

 private:
  struct Part {
    uint64_t begin = 0;
    uint64_t end = 0;
    std::unique_ptr<HttpExchange> exchange;
    bool ahead = false;    ///< Holds a slot of its own.
    bool checked = false;  ///< Its head says that it is what was asked for.
  };
  base::Result<> open_first();
  void open_ahead();
  base::Result<size_t> read_part(std::span<char> buffer);
  base::Result<> check_range(const HttpHead& head, const Part& part) const;
  base::Result<> recover(base::Error error);
  void drop_parts();
  void close_front();

  Repository& repository_;
  const Descriptor blob_;
  uint64_t at_;
  uint64_t skip_ = 0;  ///< Bytes to drop, of a server that begins at 0 whatever one asks.
  Slots& slots_;
  std::vector<Part> parts_;
  std::string direct_url_;  ///< Where the first request was redirected to.
  bool ranges_ = true;
  bool chunked_ = false;
  int failures_ = 0;
  uint64_t since_failure_ = 0;  ///< Bytes.
  bool spare_ = false;          ///< A slot is taken for the next part.
};

}  // namespace image::registry
