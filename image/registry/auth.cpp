#include "image/registry/auth.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/deadline.h"
#include "base/json.h"
#include "base/lower_case.h"
#include "base/text.h"

namespace image::registry {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using nlohmann::json;

constexpr int64_t token_life_default_s = 60;  ///< Where the service does not say.
constexpr int64_t token_life_max_s = 24 * 3600;
constexpr int64_t token_margin_s = 10;  ///< So that none expires on its way.
constexpr const char* client_name = "container";

bool is_token_char(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

/// A reader of `scheme name=value, name="value", scheme …`.
class ChallengeReader {
 public:
  explicit ChallengeReader(std::string_view text) : text_(text) {}

  std::vector<Challenge> read() {
    std::vector<Challenge> challenges;
    while (skip_separators()) {
      const std::string word = token();
      if (word.empty()) break;
      skip_spaces();
      if (!challenges.empty() && at('=')) {
        ++position_;
        challenges.back().parameters[word] = value();
        continue;
      }
      challenges.push_back({.scheme = word, .parameters = {}});
    }
    return challenges;
  }

 private:
  bool at(char c) const { return position_ < text_.size() && text_[position_] == c; }
  void skip_spaces() {
    while (at(' ') || at('\t')) ++position_;
  }
  bool skip_separators() {
    while (at(' ') || at('\t') || at(',')) ++position_;
    return position_ < text_.size();
  }
  /// In lower case: names of schemes and parameters know no case.
  std::string token() {
    std::string word;
    while (position_ < text_.size() && is_token_char(text_[position_]))
      word += base::lower_case(text_[position_++]);
    return word;
  }
  std::string value() {
    skip_spaces();
    std::string result;
    if (!at('"')) {
      while (position_ < text_.size() && text_[position_] != ',' && text_[position_] != ' ')
        result += text_[position_++];
      return result;
    }
    for (++position_; position_ < text_.size() && text_[position_] != '"'; ++position_) {
      if (text_[position_] == '\\' && position_ + 1 < text_.size()) ++position_;
      result += text_[position_];
    }
    if (at('"')) ++position_;
    return result;
  }

  std::string_view text_;
  size_t position_ = 0;
};

std::string percent_encoded(std::string_view text) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("-._~").find(c) != std::string_view::npos;
    const auto byte = static_cast<unsigned char>(c);
    if (plain)
      encoded += c;
    else
      encoded += {'%', digits[byte >> 4], digits[byte & 15]};
  }
  return encoded;
}

/// `co.uk` and the like: two labels that are nobody's own domain.
bool is_public_suffix(std::string_view domain) {
  const size_t dot = domain.find('.');
  if (dot == std::string_view::npos) return true;
  if (domain.find('.', dot + 1) != std::string_view::npos) return false;
  static constexpr std::array<std::string_view, 11> second = {
      "co", "com", "org", "net", "edu", "gov", "ac", "or", "ne", "go", "gob"};
  const std::string_view first = domain.substr(0, dot);
  return domain.size() - dot - 1 == 2 &&
         std::find(second.begin(), second.end(), first) != second.end();
}

bool is_address(std::string_view host) {
  return host.find(':') != std::string_view::npos ||
         host.find_first_not_of("0123456789.") == std::string_view::npos;
}

}  // namespace

std::vector<Challenge> parse_challenges(std::string_view header) {
  return ChallengeReader(header).read();
}

bool same_site(std::string_view registry, std::string_view realm) {
  if (registry == realm) return true;
  if (is_address(registry) || is_address(realm)) return false;
  const size_t dot = registry.find('.');
  if (dot == std::string_view::npos) return false;
  const std::string_view parent = registry.substr(dot + 1);
  if (is_public_suffix(parent)) return false;
  return realm == parent || realm.ends_with("." + std::string(parent));
}

Transport transport_for(const std::string& url, const Access& access, const Endpoint& endpoint) {
  Transport transport{.proxy = proxy_for(url, access)};
  const Result<UrlParts> parts = parse_url(url);
  if (!parts) return transport;
  auto settings = access.hosts.find(parts->authority);
  if (settings == access.hosts.end() && parts->authority == endpoint.authority)
    settings = access.hosts.find(endpoint.registry);
  if (settings == access.hosts.end()) return transport;
  transport.insecure = settings->second.insecure;
  transport.ca = settings->second.ca;
  transport.client_certificate = settings->second.client_certificate;
  transport.client_key = settings->second.client_key;
  return transport;
}

const Credential* Authorizer::credential() const {
  const auto found = access_.credentials.find(endpoint_.registry);
  return found == access_.credentials.end() || found->second.empty() ? nullptr : &found->second;
}

base::Error Authorizer::denied(std::string_view why) const {
  return {ErrorCode::Denied, fmt::format("{} {}; log in with: container registry login {}",
                                         endpoint_.registry, why, endpoint_.registry)};
}

/// Neither a password nor the token it buys goes over an open line unasked.
base::Error Authorizer::too_open() const {
  return {
      ErrorCode::Denied,
      fmt::format("{} wants a password, and is spoken to without TLS; --scheme http sends it all "
                  "the same, --scheme https asks for TLS",
                  endpoint_.registry)};
}

std::optional<std::string> Authorizer::header(const std::string& scope) {
  const Credential* own = credential();
  if (own != nullptr && !own->registry_token.empty() && endpoint_.secrets_allowed)
    return "Bearer " + own->registry_token;
  const std::lock_guard lock(mutex_);
  if (basic_ && own != nullptr)
    return "Basic " + base::encode_base64(own->username + ":" + own->password);
  const auto found = tokens_.find(scope);
  if (found == tokens_.end() || found->second.expires_ns <= base::boottime_ns())
    return std::nullopt;
  return found->second.header;
}

Result<> Authorizer::check_realm(const UrlParts& realm, bool with_secret) const {
  if (realm.scheme != "https" && endpoint_.scheme == "https")
    return fail(ErrorCode::Denied,
                "{} names a token service without TLS ({}), which could be anybody; refused",
                endpoint_.registry, base::escape_controls(realm.authority));
  if (!with_secret) return {};
  const HostSettings* settings = nullptr;
  if (const auto found = access_.hosts.find(endpoint_.registry); found != access_.hosts.end())
    settings = &found->second;
  const bool trusted = settings != nullptr &&
                       std::find(settings->realms.begin(), settings->realms.end(), realm.host) !=
                           settings->realms.end();
  if (!trusted && !same_site(endpoint_.host(), realm.host))
    return fail(ErrorCode::Denied,
                "{} wants its password sent to {}, which is another site; refused. If that is "
                "right, list it under `realms` of this host in config.toml",
                endpoint_.registry, base::escape_controls(realm.authority));
  if (realm.scheme != "https" && (!endpoint_.secrets_allowed || realm.host != endpoint_.host()))
    return fail(ErrorCode::Denied,
                "the token service of {} has no TLS; a password is not sent to it unless --scheme "
                "http says so",
                endpoint_.registry);
  return {};
}

Result<Authorizer::Token> Authorizer::fetch_token(const Challenge& challenge,
                                                  const std::string& scope, const Reach& reach,
                                                  Cancel* cancel) {
  const auto parameter = [&](const char* name) {
    const auto found = challenge.parameters.find(name);
    return found == challenge.parameters.end() ? std::string() : found->second;
  };
  const std::string realm = parameter("realm");
  const UrlParts parts = TRY_DURING(parse_url(realm), "read the token service's address");
  const Credential* own = credential();
  TRY(check_realm(parts, own != nullptr));
  const std::string scopes = scope.empty() ? parameter("scope") : scope;
  HttpRequest request;
  std::string query = "service=" + percent_encoded(parameter("service"));
  if (own != nullptr && !own->identity_token.empty()) {
    request.method = "POST";
    request.url = realm;
    request.headers = {"Content-Type: application/x-www-form-urlencoded"};
    request.body =
        fmt::format("grant_type=refresh_token&{}&client_id={}&scope={}&refresh_token={}", query,
                    client_name, percent_encoded(scopes), percent_encoded(own->identity_token));
  } else {
    for (const std::string& one : base::split(scopes, ' '))
      if (!one.empty()) query += "&scope=" + percent_encoded(one);
    if (own != nullptr) {
      query += fmt::format("&client_id={}&account={}", client_name, percent_encoded(own->username));
      request.headers = {"Authorization: Basic " +
                         base::encode_base64(own->username + ":" + own->password)};
    }
    request.url = realm + (realm.find('?') == std::string::npos ? "?" : "&") + query;
  }
  request.transport = transport_for(request.url, access_, endpoint_);
  request.reach = reach;
  const auto exchange = TRY(http_.start(std::move(request), cancel));
  const HttpHead head = TRY_DURING(exchange->head(), "get a token");
  if (head.status == 401 || head.status == 403)
    return tl::unexpected<base::Error>(
        denied(own == nullptr ? "wants a login" : "does not accept the login"));
  if (head.status != 200)
    return fail(ErrorCode::Io, "the token service {} answers with status {}",
                base::escape_controls(parts.authority), head.status);
  const std::string text = TRY(read_all(*exchange, limits::answer_bytes_max));
  const json answer = TRY_DURING(base::parse_json(text), "read the token service's answer");
  std::string token = base::json_string_or(answer, "token", "");
  if (token.empty()) token = base::json_string_or(answer, "access_token", "");
  if (token.empty() || token.find_first_of("\r\n ") != std::string::npos)
    return fail(ErrorCode::Io, "the token service {} gave no token",
                base::escape_controls(parts.authority));
  const int64_t life_s =
      std::clamp<int64_t>(base::json_int_or(answer, "expires_in", token_life_default_s),
                          token_margin_s + 1, token_life_max_s);
  return Token{.header = "Bearer " + token,
               .expires_ns = base::boottime_ns() + (life_s - token_margin_s) * 1'000'000'000};
}

Result<> Authorizer::answer(const std::vector<std::string>& challenges, const std::string& scope,
                            const std::optional<std::string>& used, const Reach& reach,
                            Cancel* cancel) {
  const Credential* own = credential();
  std::vector<Challenge> all;
  for (const std::string& header : challenges)
    for (Challenge& one : parse_challenges(header)) all.push_back(std::move(one));
  for (const Challenge& challenge : all) {
    if (challenge.scheme != "bearer") continue;
    if (own != nullptr && !endpoint_.secrets_allowed)
      return tl::unexpected<base::Error>(too_open());
    if (own != nullptr && !own->registry_token.empty())
      return tl::unexpected<base::Error>(denied("does not accept the token"));
    // One thread at a time: all others then find its token.
    const std::lock_guard lock(mutex_);
    const auto known = tokens_.find(scope);
    if (known != tokens_.end() && known->second.expires_ns > base::boottime_ns() &&
        known->second.header != used)
      return {};
    tokens_.erase(scope);
    Token token = TRY(fetch_token(challenge, scope, reach, cancel));
    tokens_.insert_or_assign(scope, std::move(token));
    return {};
  }
  for (const Challenge& challenge : all) {
    if (challenge.scheme != "basic") continue;
    if (own == nullptr) return tl::unexpected<base::Error>(denied("wants a login"));
    if (!endpoint_.secrets_allowed) return tl::unexpected<base::Error>(too_open());
    if (used) return tl::unexpected<base::Error>(denied("does not accept the login"));
    const std::lock_guard lock(mutex_);
    basic_ = true;
    return {};
  }
  return tl::unexpected<base::Error>(
      denied("wants a login of a kind that is not known here (neither Bearer nor Basic)"));
}

}  // namespace image::registry
