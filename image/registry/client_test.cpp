#include <atomic>
#include <future>
#include <set>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/deadline.h"
#include "image/registry/client.h"
#include "image/registry/test_server.h"

namespace {

using base::ErrorCode;
using base::Result;
using registry_test::Seen;
using registry_test::Server;
using registry_test::Wire;
using namespace image::registry;

/// A registry at a test server, and what a task needs to talk to it.
struct Desk {
  explicit Desk(Server::Handler handler, HttpOptions options = {})
      : server(std::move(handler)), http(HttpClient::create(options).value()) {}

  Repository repository(const std::string& name = "team/app") {
    return {*http, access, endpoints_of(server.authority(), access, true).value().back(), name,
            cancel};
  }
  std::string blob(const std::string& content, uint64_t offset = 0) {
    Repository one = repository();
    BlobStream stream(
        one, {.media_type = {}, .digest = image::digest_of(content), .size = content.size()},
        offset, slots);
    std::string text;
    std::vector<char> buffer(50'000);
    for (;;) {
      const Result<size_t> count = stream.read(buffer);
      if (!count) return "error: " + count.error().to_string();
      if (*count == 0) return text;
      text.append(buffer.data(), *count);
    }
  }

  Server server;
  std::shared_ptr<HttpClient> http;
  Access access;
  Cancel cancel;
  Slots slots{2};
};

std::string pattern(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i * 2654435761u >> 13);
  return text;
}

/// `bytes=5-9` of a request; the whole if there is none.
std::pair<size_t, size_t> range_of(const Seen& seen, size_t size) {
  const std::string range = seen.header("range");
  if (range.empty()) return {0, size};
  const size_t dash = range.find('-');
  return {std::stoul(range.substr(6)), std::stoul(range.substr(dash + 1)) + 1};
}

void answer_range(const Seen& seen, const Wire& wire, const std::string& content) {
  const auto [begin, end] = range_of(seen, content.size());
  if (seen.header("range").empty()) return wire.answer(200, content);
  wire.answer(206, std::string_view(content).substr(begin, end - begin),
              fmt::format("Content-Range: bytes {}-{}/{}\r\n", begin, end - 1, content.size()));
}

// ---- reading -----------------------------------------------------------------------------------

TEST_CASE("a manifest comes with its type and digest, and is checked against both digests") {
  const std::string text = R"({"schemaVersion":2})";
  Desk desk([&](const Seen& seen, const Wire& wire) {
    const bool lies = seen.target.ends_with("/liar");
    wire.answer(200, text,
                fmt::format("Content-Type: application/x; charset=utf-8\r\n"
                            "Docker-Content-Digest: {}\r\n",
                            image::digest_of(lies ? "other" : text)));
  });
  Repository repository = desk.repository();

  const Document document = repository.manifest("1").value();
  CHECK(document.text == text);
  CHECK(document.media_type == "application/x");
  CHECK(document.digest == image::digest_of(text));
  CHECK(desk.server.seen().front().target == "/v2/team/app/manifests/1");
  CHECK(repository.manifest("liar").error().code() == ErrorCode::InvalidArgument);
  CHECK(repository.manifest(image::digest_of("other")).error().code() ==
        ErrorCode::InvalidArgument);
}

TEST_CASE("a manifest without an end is refused at its limit") {
  Desk desk([](const Seen&, const Wire& wire) {
    wire.raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    while (wire.raw(std::string(65'536, 'x'))) {
    }
  });

  const Result<Document> document = desk.repository().manifest("1");

  CHECK(document.error().to_string().find("larger than") != std::string::npos);
}

TEST_CASE("the server's own words are part of the error, with control bytes escaped") {
  Desk desk([](const Seen&, const Wire& wire) {
    wire.answer(400, R"({"errors":[{"code":"BAD","message":"no \u001b[31mway"}]})");
  });

  const std::string text = desk.repository().manifest("1").error().to_string();

  CHECK(text.find("no \\x1b[31mway") != std::string::npos);
}

// ---- authentication ----------------------------------------------------------------------------

TEST_CASE("challenges are read in all their forms") {
  const auto all = parse_challenges(
      R"(Basic realm="x, y", Bearer realm="https://a/b?c=d",service=s , scope="p:q \"r\"")");

  REQUIRE(all.size() == 2);
  CHECK(all[0].scheme == "basic");
  CHECK(all[0].parameters.at("realm") == "x, y");
  CHECK(all[1].scheme == "bearer");
  CHECK(all[1].parameters.at("realm") == "https://a/b?c=d");
  CHECK(all[1].parameters.at("service") == "s");
  CHECK(all[1].parameters.at("scope") == "p:q \"r\"");
  CHECK(parse_challenges("").empty());
  CHECK(parse_challenges("=,=\"").empty());
}

TEST_CASE("a token service is of the registry's site, or sees no password") {
  CHECK(same_site("ghcr.io", "ghcr.io"));
  CHECK(same_site("registry-1.docker.io", "auth.docker.io"));
  CHECK(same_site("registry.gitlab.com", "gitlab.com"));
  CHECK_FALSE(same_site("ghcr.io", "quay.io"));
  CHECK_FALSE(same_site("registry.co.uk", "evil.co.uk"));
  CHECK_FALSE(same_site("docker.io.evil.com", "docker.io"));
  CHECK_FALSE(same_site("registry-1.docker.io", "evildocker.io"));
  CHECK_FALSE(same_site("10.0.0.1", "11.0.0.1"));
}

TEST_CASE("a token is fetched with the password, sent along, and used until it expires") {
  std::string realm;
  Desk desk([&](const Seen& seen, const Wire& wire) {
    if (seen.target.starts_with("/token"))
      return wire.answer(200, R"({"token":"t0ken","expires_in":3600})");
    if (seen.header("authorization") != "Bearer t0ken")
      return wire.answer(401, "",
                         "WWW-Authenticate: Bearer realm=\"" + realm + "\",service=\"reg\"\r\n");
    wire.answer(200, "{}");
  });
  realm = desk.server.url("/token");
  desk.access.credentials[desk.server.authority()] = {.username = "ann", .password = "s3cret"};
  Repository repository = desk.repository();

  CHECK(repository.manifest("1"));
  CHECK(repository.manifest("2"));

  const auto seen = desk.server.seen();
  REQUIRE(seen.size() == 4);  // refused, token, and two that carry it
  CHECK(seen[1].header("authorization") == "Basic " + base::encode_base64("ann:s3cret"));
  CHECK(seen[1].target.find("service=reg") != std::string::npos);
  CHECK(seen[1].target.find("scope=repository%3Ateam%2Fapp%3Apull") != std::string::npos);
  CHECK(seen[1].target.find("s3cret") == std::string::npos);
}

TEST_CASE("a token that is refused later is fetched anew, once") {
  std::string realm;
  std::atomic<int> tokens{0};
  Desk desk([&](const Seen& seen, const Wire& wire) {
    if (seen.target.starts_with("/token"))
      return wire.answer(200, fmt::format(R"({{"token":"t{}","expires_in":3600}})", ++tokens));
    if (seen.header("authorization") != "Bearer t2")
      return wire.answer(401, "", "WWW-Authenticate: Bearer realm=\"" + realm + "\"\r\n");
    wire.answer(200, "{}");
  });
  realm = desk.server.url("/token");

  CHECK(desk.repository().manifest("1"));
  CHECK(tokens == 2);
}

TEST_CASE("an identity token is exchanged in the body of a POST") {
  std::string realm;
  Desk desk([&](const Seen& seen, const Wire& wire) {
    if (seen.target.starts_with("/token")) return wire.answer(200, R"({"access_token":"abc"})");
    if (seen.header("authorization") != "Bearer abc")
      return wire.answer(401, "", "WWW-Authenticate: Bearer realm=\"" + realm + "\"\r\n");
    wire.answer(200, "{}");
  });
  realm = desk.server.url("/token");
  desk.access.credentials[desk.server.authority()] = {.identity_token = "id&entity"};

  CHECK(desk.repository().manifest("1"));

  const auto seen = desk.server.seen();
  CHECK(seen[1].method == "POST");
  CHECK(seen[1].target == "/token");
  CHECK(seen[1].body.find("refresh_token=id%26entity") != std::string::npos);
}

TEST_CASE("a password is not sent to a token service of another site") {
  Server thief([](const Seen&, const Wire& wire) { wire.answer(200, R"({"token":"x"})"); });
  Desk desk([&](const Seen&, const Wire& wire) {
    wire.answer(401, "",
                fmt::format("WWW-Authenticate: Bearer realm=\"http://localhost:{}/token\"\r\n",
                            thief.port()));
  });
  desk.access.credentials[desk.server.authority()] = {.username = "ann", .password = "s3cret"};

  const Result<Document> document = desk.repository().manifest("1");

  CHECK(document.error().code() == ErrorCode::Denied);
  CHECK(document.error().to_string().find("another site") != std::string::npos);
  CHECK(document.error().to_string().find("s3cret") == std::string::npos);
  CHECK(thief.seen().empty());
}

TEST_CASE("Basic authentication is answered where the registry asks for it") {
  Desk desk([&](const Seen& seen, const Wire& wire) {
    if (seen.header("authorization") != "Basic " + base::encode_base64("ann:s3cret"))
      return wire.answer(401, "", "WWW-Authenticate: Basic realm=\"r\"\r\n");
    wire.answer(200, "{}");
  });
  CHECK(desk.repository().manifest("1").error().code() == ErrorCode::Denied);
  desk.access.credentials[desk.server.authority()] = {.username = "ann", .password = "s3cret"};
  CHECK(desk.repository().manifest("1"));
  desk.access.credentials[desk.server.authority()].password = "wrong";

  const Result<Document> refused = desk.repository().manifest("1");
  CHECK(refused.error().code() == ErrorCode::Denied);
  CHECK(refused.error().to_string().find("container registry login") != std::string::npos);
}

TEST_CASE("a registry without TLS sees secrets on loopback, or where somebody asked for it") {
  Access access;
  access.dns_domain = "test";
  const auto allowed = [&](const std::string& host) {
    const Endpoint endpoint = endpoints_of(host, access, false).value().back();
    return endpoint.scheme + (endpoint.secrets_allowed ? " with secrets" : " without");
  };
  CHECK(allowed("localhost:5000") == "http with secrets");
  CHECK(allowed("127.0.0.1:5000") == "http with secrets");
  CHECK(allowed("10.0.0.5:5000") == "http without");
  CHECK(allowed("registry.test") == "http without");
  CHECK(allowed("ghcr.io") == "https with secrets");
  access.hosts["10.0.0.5:5000"].scheme = "http";
  CHECK(allowed("10.0.0.5:5000") == "http with secrets");
  access.hosts["ghcr.io"].mirrors = {"http://mirror.example"};
  CHECK_FALSE(endpoints_of("ghcr.io", access, false).value().front().secrets_allowed);
  access.scheme = "http";
  CHECK(allowed("registry.test") == "http with secrets");
}

TEST_CASE("neither passwords nor tokens go over an open line that nobody asked for") {
  std::string challenge;
  Desk desk([&](const Seen& seen, const Wire& wire) {
    if (seen.target.starts_with("/token")) return wire.answer(200, R"({"token":"t0ken"})");
    wire.answer(401, "", "WWW-Authenticate: " + challenge + "\r\n");
  });
  // What another host would be: only that the line is open is known of it.
  const Endpoint open{.registry = "10.0.0.5:5000",
                      .scheme = "http",
                      .authority = desk.server.authority(),
                      .secrets_allowed = false};
  const auto try_with = [&](const Credential& credential) {
    desk.access.credentials["10.0.0.5:5000"] = credential;
    Repository repository(*desk.http, desk.access, open, "team/app", desk.cancel);
    return repository.manifest("1").error();
  };
  for (const std::string& kind :
       {std::string("Basic realm=\"r\""), "Bearer realm=\"" + desk.server.url("/token") + "\""}) {
    challenge = kind;
    for (const Credential& credential : {Credential{.username = "ann", .password = "s3cret"},
                                         Credential{.username = "ann", .identity_token = "s3cret"},
                                         Credential{.registry_token = "s3cret"}}) {
      const base::Error error = try_with(credential);
      CHECK(error.code() == ErrorCode::Denied);
      CHECK(error.to_string().find("--scheme http") != std::string::npos);
      CHECK(error.to_string().find("s3cret") == std::string::npos);
    }
  }
  for (const Seen& seen : desk.server.seen()) {
    CHECK(seen.headers.count("authorization") == 0);
    CHECK(seen.target.find("/token") == std::string::npos);
    CHECK(seen.body.empty());
  }
}

// ---- redirects ---------------------------------------------------------------------------------

TEST_CASE("a redirect is followed without the Authorization header") {
  Server store([](const Seen&, const Wire& wire) { wire.answer(200, "content"); });
  Desk desk([&](const Seen& seen, const Wire& wire) {
    if (seen.header("authorization").empty())
      return wire.answer(401, "", "WWW-Authenticate: Basic realm=\"r\"\r\n");
    wire.answer(307, "", "Location: " + store.url("/there?signature=1") + "\r\n");
  });
  desk.access.credentials[desk.server.authority()] = {.username = "ann", .password = "s3cret"};

  CHECK(desk.blob("content") == "content");

  const auto seen = store.seen();
  REQUIRE(seen.size() == 1);
  CHECK(seen[0].headers.count("authorization") == 0);
}

TEST_CASE("redirects to files, link-local addresses and unknown schemes are refused") {
  std::string location;
  Desk desk([&](const Seen&, const Wire& wire) {
    wire.answer(307, "", "Location: " + location + "\r\n");
  });
  for (const char* to : {"file:///etc/passwd", "http://169.254.169.254/latest", "ftp://a/b",
                         "http://[fe80::1]/x", "unix:///run/x.sock"}) {
    location = to;
    CAPTURE(location);
    CHECK(desk.repository().manifest("1").error().code() == ErrorCode::Denied);
  }
}

TEST_CASE("a request that may not reach loopback does not, whatever its name resolves to") {
  Server server([](const Seen&, const Wire& wire) { wire.answer(200, "secret"); });
  const auto http = HttpClient::create().value();
  // An open connection of a request that may must not be used by one that may not.
  const auto allowed = http->start({.url = server.url("/")}, nullptr).value();
  CHECK(read_all(*allowed, 100).value() == "secret");

  const auto refused = http->start({.url = server.url("/"), .reach = {.loopback = false}}, nullptr);

  CHECK((*refused)->head().error().code() == ErrorCode::Denied);
  CHECK(server.seen().size() == 1);
}

TEST_CASE("a kept connection tells whom it leads to as one that was opened does") {
  Server server([](const Seen&, const Wire& wire) { wire.answer(200, "bytes"); });
  const auto http = HttpClient::create().value();
  const auto first = http->start({.url = server.url("/")}, nullptr).value();
  CHECK(read_all(*first, 100).value() == "bytes");

  const auto second = http->start({.url = server.url("/")}, nullptr).value();

  CHECK(second->head().value().reached.loopback);
}

TEST_CASE("redirects without an end are given up") {
  Desk desk([&](const Seen&, const Wire& wire) { wire.answer(307, "", "Location: /again\r\n"); });

  const Result<Document> document = desk.repository().manifest("1");

  CHECK(document.error().to_string().find("without an end") != std::string::npos);
}

// ---- patience ----------------------------------------------------------------------------------

TEST_CASE("a server that asks to wait is asked again when it said") {
  std::atomic<int> asked{0};
  Desk desk([&](const Seen&, const Wire& wire) {
    if (++asked == 1) return wire.answer(429, "", "Retry-After: 1\r\n");
    wire.answer(200, "{}");
  });
  const int64_t begun = base::boottime_ns();

  CHECK(desk.repository().manifest("1"));

  CHECK(base::boottime_ns() - begun >= 1'000'000'000);
  CHECK(asked == 2);
}

TEST_CASE("the wait before another try follows the server, or doubles with some chance") {
  CHECK(backoff_ms(0, "7", 0) == 7000);
  CHECK(backoff_ms(0, "Thu, 01 Jan 1970 00:00:09 GMT", 2'000'000'000) == 7000);
  CHECK(backoff_ms(0, "Thu, 01 Jan 1970 00:00:09 GMT", 60'000'000'000) == 0);
  for (int attempt = 0; attempt < 12; ++attempt) {
    const int64_t full =
        std::min(limits::backoff_first_ms << std::min(attempt, 10), limits::backoff_max_ms);
    const int64_t wait = backoff_ms(attempt, "", 0);
    CHECK(wait >= full / 2);
    CHECK(wait <= full);
  }
}

TEST_CASE("a server that asks for an hour is an error now") {
  Desk desk([&](const Seen&, const Wire& wire) { wire.answer(503, "", "Retry-After: 3600\r\n"); });

  const Result<Document> document = desk.repository().manifest("1");

  CHECK(document.error().code() == ErrorCode::Busy);
  CHECK(document.error().to_string().find("3600 s") != std::string::npos);
}

TEST_CASE("a silent server is given up after the idle time, and cancelling does not wait for it") {
  Desk desk([&](const Seen&, const Wire& wire) { wire.hang(); }, {.idle_timeout_s = 1});
  const auto exchange = desk.http->start({.url = desk.server.url("/")}, &desk.cancel).value();
  CHECK(exchange->head().error().code() == ErrorCode::Timeout);

  const auto other = desk.http->start({.url = desk.server.url("/")}, &desk.cancel).value();
  std::thread canceller([&] { desk.cancel.cancel(); });
  CHECK(other->head().error().code() == ErrorCode::Cancelled);
  canceller.join();
}

TEST_CASE("a body that comes a byte at a time is as good as silence") {
  Desk desk(
      [&](const Seen&, const Wire& wire) {
        wire.raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        pollfd nothing{.fd = -1, .events = 0, .revents = 0};
        while (wire.raw("x")) (void)::poll(&nothing, 1, 100);
      },
      {.idle_timeout_s = 1});
  const auto exchange = desk.http->start({.url = desk.server.url("/")}, &desk.cancel).value();
  REQUIRE(exchange->head());

  CHECK(read_all(*exchange, 1000).error().code() == ErrorCode::Timeout);
}

// ---- broken connections ------------------------------------------------------------------------

/// Lets the client's loop come by once: what it could see before, it has dealt with after.
void come_by(HttpClient& http) {
  Server other([](const Seen&, const Wire& wire) { wire.answer(200, "done"); });
  const auto exchange = http.start({.url = other.url("/")}, nullptr).value();
  CHECK(read_all(*exchange, 100).value() == "done");
}

/// What comes of a body until it ends or breaks.
size_t read_until_broken(HttpExchange& exchange) {
  std::vector<char> buffer(64u << 10);
  size_t total = 0;
  for (;;) {
    const Result<size_t> count = exchange.read(buffer);
    if (!count || *count == 0) return total;
    total += *count;
  }
}

TEST_CASE("a head and bytes that came before the break are told, also to who asks after it") {
  std::promise<void> left;
  Desk desk([&](const Seen&, const Wire& wire) {
    wire.raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + std::string(400, 'x'));
    wire.end();
    wire.hang();  // the client has seen the end and closes its side
    left.set_value();
  });
  const auto exchange = desk.http->start({.url = desk.server.url("/")}, nullptr).value();
  left.get_future().wait();
  come_by(*desk.http);

  const Result<HttpHead> head = exchange->head();

  REQUIRE(head);
  CHECK(head->status == 200);
  std::vector<char> buffer(1000);
  CHECK(exchange->read(buffer).value() == 400);
  CHECK(exchange->read(buffer).error().code() == ErrorCode::Io);
}

TEST_CASE("bytes that came before a reset are read, also while nobody was reading") {
  std::promise<void> sent;
  std::promise<void> reset;
  std::promise<void> held_back;
  Desk desk([&](const Seen&, const Wire& wire) {
    wire.raw("HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + std::string(1000, 'x'));
    sent.set_value();
    held_back.get_future().wait();
    wire.raw(std::string(20'000, 'y'));
    wire.reset();
    reset.set_value();
  });
  const auto exchange =
      desk.http->start({.url = desk.server.url("/"), .buffer_bytes = 500}, nullptr).value();
  REQUIRE(exchange->head());
  sent.get_future().wait();
  come_by(*desk.http);
  held_back.set_value();
  reset.get_future().wait();
  come_by(*desk.http);

  CHECK(read_until_broken(*exchange) == 21'000);
}

// ---- blobs -------------------------------------------------------------------------------------

TEST_CASE("a blob goes on where the connection broke") {
  const std::string content = pattern(600'000);
  std::atomic<int> asked{0};
  Desk desk([&](const Seen& seen, const Wire& wire) {
    if (++asked > 1) return answer_range(seen, wire, content);
    wire.raw(fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", content.size(),
                         content.substr(0, 200'000)));
    wire.cut();
  });

  CHECK(desk.blob(content) == content);

  const auto seen = desk.server.seen();
  REQUIRE(seen.size() == 2);
  CHECK(seen[1].header("range") == "bytes=200000-599999");
}

TEST_CASE("a registry that gives nothing is asked for a blob no more often than the limit says") {
  std::atomic<int> asked{0};
  Desk desk([&](const Seen&, const Wire& wire) {
    ++asked;
    wire.answer(503, "", "Retry-After: 0\r\n");
  });

  CHECK(desk.blob("content").find("again and again") != std::string::npos);
  CHECK(asked == limits::attempts_max);
}

TEST_CASE("a blob is taken up at an offset, also from a server that knows no ranges") {
  const std::string content = pattern(300'000);
  Desk ranges([&](const Seen& seen, const Wire& wire) { answer_range(seen, wire, content); });
  CHECK(ranges.blob(content, 100'000) == content.substr(100'000));
  CHECK(ranges.server.seen().front().header("range") == "bytes=100000-299999");

  Desk whole([&](const Seen&, const Wire& wire) { wire.answer(200, content); });
  CHECK(whole.blob(content, 100'000) == content.substr(100'000));
}

TEST_CASE("a server that answers with another range is not believed") {
  const std::string content = pattern(300'000);
  std::atomic<int> wrong{0};
  Desk desk([&](const Seen& seen, const Wire& wire) {
    if (seen.header("range").empty()) return wire.answer(200, content);
    ++wrong;
    wire.answer(206, content.substr(0, 200'000),
                fmt::format("Content-Range: bytes 0-199999/{}\r\n", content.size()));
  });

  CHECK(desk.blob(content, 100'000) == content.substr(100'000));
  CHECK(wrong == 2);  // then it is asked for the whole
}

TEST_CASE("a body longer than announced is refused, at once where its length is said") {
  const std::string content = pattern(1000);
  Desk said([&](const Seen&, const Wire& wire) { wire.answer(200, content + "more"); });
  CHECK(said.blob(content).find("1004 bytes") != std::string::npos);

  Desk endless([](const Seen&, const Wire& wire) {
    wire.raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    while (wire.raw(std::string(65'536, 'x'))) {
    }
  });
  CHECK(endless.blob(content).find("more of") != std::string::npos);
}

TEST_CASE("a large blob comes in ranges over several connections, and whole") {
  const std::string content = pattern(limits::chunked_blob_bytes_min + 12'345);
  std::atomic<int> at_once{0};
  std::atomic<int> most{0};
  Desk desk([&](const Seen& seen, const Wire& wire) {
    const int now = ++at_once;
    int before = most;
    while (before < now && !most.compare_exchange_weak(before, now)) {
    }
    answer_range(seen, wire, content);
    --at_once;
  });

  CHECK(desk.blob(content) == content);

  std::set<std::string> ranges;
  for (const Seen& seen : desk.server.seen()) ranges.insert(seen.header("range"));
  CHECK(ranges.size() == 9);
  CHECK(desk.server.seen().size() == 9);  // none twice
  CHECK(most >= 2);
}

TEST_CASE("a large blob survives connections that break in the middle of ranges") {
  const std::string content = pattern(limits::chunked_blob_bytes_min);
  std::atomic<int> asked{0};
  Desk desk([&](const Seen& seen, const Wire& wire) {
    const auto [begin, end] = range_of(seen, content.size());
    if (++asked % 3 != 0) return answer_range(seen, wire, content);
    wire.raw(fmt::format(
        "HTTP/1.1 206 X\r\nContent-Length: {}\r\nContent-Range: bytes {}-{}/{}"
        "\r\n\r\n{}",
        end - begin, begin, end - 1, content.size(), content.substr(begin, (end - begin) / 2)));
    wire.cut();
  });

  CHECK(desk.blob(content) == content);
}

// ---- configuration -----------------------------------------------------------------------------

TEST_CASE("the scheme follows the host unless somebody says otherwise") {
  Access access;
  access.dns_domain = "test";
  const auto scheme = [&](const std::string& host) {
    return endpoints_of(host, access, false).value().back().scheme;
  };
  for (const char* host : {"localhost:5000", "127.0.0.1", "10.1.2.3", "192.168.0.9:5000",
                           "172.31.0.1", "[::1]:5000", "registry.test"})
    CHECK_MESSAGE(scheme(host) == "http", host);
  for (const char* host : {"ghcr.io", "docker.io", "172.32.0.1", "11.0.0.1", "localhost.evil.com"})
    CHECK_MESSAGE(scheme(host) == "https", host);
  access.scheme = "https";
  CHECK(scheme("localhost:5000") == "https");
  access.scheme = "auto";
  access.hosts["ghcr.io"].scheme = "http";
  CHECK(scheme("ghcr.io") == "http");
}

TEST_CASE("docker.io is reached at its own host, and mirrors come first for pulls") {
  Access access;
  access.hosts["docker.io"].mirrors = {"https://mirror.example/docker", "http://127.0.0.1:5001"};

  const auto pull = endpoints_of("docker.io", access, false).value();
  REQUIRE(pull.size() == 3);
  CHECK(pull[0].base() == "https://mirror.example/docker");
  CHECK(pull[1].base() == "http://127.0.0.1:5001");
  CHECK(pull[2].base() == "https://registry-1.docker.io");
  CHECK(endpoints_of("docker.io", access, true).value().size() == 1);
}

TEST_CASE("proxies are chosen by scheme and host") {
  Access access;
  access.http_proxy = "http://p:1";
  access.https_proxy = "http://q:2";
  access.no_proxy = "example.com, .internal,10.0.0.1";
  CHECK(proxy_for("http://a.org/x", access) == "http://p:1");
  CHECK(proxy_for("https://a.org/x", access) == "http://q:2");
  CHECK(proxy_for("https://www.example.com/x", access).empty());
  CHECK(proxy_for("https://a.internal/x", access).empty());
  CHECK(proxy_for("http://10.0.0.1/x", access).empty());
  CHECK(proxy_for("http://127.0.0.1:5000/x", access).empty());
  CHECK(proxy_for("https://notexample.com/x", access) == "http://q:2");
}

TEST_CASE("an access that is wrong is refused without repeating what it holds") {
  const auto refused = [](const char* text) {
    return access_from_json(nlohmann::json::parse(text)).error().to_string();
  };
  CHECK(refused(R"({"scheme":"gopher"})").find("http, https or auto") != std::string::npos);
  CHECK(refused(R"({"hosts":{"a":{"scheme":"htps"}}})").find("not 'htps'") != std::string::npos);
  CHECK(refused(R"({"hosts":{"a":{"insecure":"false"}}})").find("true or false") !=
        std::string::npos);
  CHECK(refused(R"({"max_concurrent_downloads":0})").find("greater than 0") != std::string::npos);
  const std::string text = refused(R"({"credentials":{"a":{"password":"s3c\r\nret"}}})");
  CHECK(text.find("password") != std::string::npos);
  CHECK(text.find("s3c") == std::string::npos);
}

TEST_CASE("messages hold neither queries nor passwords of URLs") {
  CHECK(without_query("https://u:p@host/path?sig=1") == "https://host/path");
  CHECK(without_query("https://host/a@b?x") == "https://host/a@b");
}

}  // namespace
