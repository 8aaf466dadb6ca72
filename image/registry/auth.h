#pragma once
/// Who we are to a registry: challenges read, tokens fetched and kept until they expire.
///
/// A password goes to the registry's own host (Basic), or to the token service that the registry
/// names if that is of the registry's own site and reached by HTTPS. Nothing here follows a
/// redirect. Source: the CNCF Distribution token specification, RFC 9110 section 11.

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/registry/access.h"
#include "image/registry/http.h"

namespace image::registry {

struct Challenge {
  std::string scheme;                             ///< Lower case: `bearer`, `basic`.
  std::map<std::string, std::string> parameters;  ///< Names in lower case.
};
/// All challenges of one header; what cannot be read is left out.
std::vector<Challenge> parse_challenges(std::string_view header);

/// True if `realm` is a host of the same site as `registry`: itself, or one that shares the
/// registry's parent domain, where that is not a public suffix.
bool same_site(std::string_view registry, std::string_view realm);

class Authorizer {
 public:
  Authorizer(HttpClient& http, const Access& access, const Endpoint& endpoint)
      : http_(http), access_(access), endpoint_(endpoint) {}

  /// Value of the Authorization header for a request of that scope, if we have one to give.
  std::optional<std::string> header(const std::string& scope);
  /// After a 401 to a request that carried `used`: gets what the challenges ask for. Denied, with
  /// what to do, if it cannot.
  base::Result<> answer(const std::vector<std::string>& challenges, const std::string& scope,
                        const std::optional<std::string>& used, const Reach& reach, Cancel* cancel);

 private:
  struct Token {
    std::string header;
    int64_t expires_ns = 0;
  };
  const Credential* credential() const;
  base::Result<Token> fetch_token(const Challenge& challenge, const std::string& scope,
                                  const Reach& reach, Cancel* cancel);
  base::Result<> check_realm(const UrlParts& realm, bool with_secret) const;
  base::Error denied(std::string_view why) const;
  base::Error too_open() const;

  HttpClient& http_;
  const Access& access_;
  const Endpoint& endpoint_;
  std::mutex mutex_;
  std::map<std::string, Token> tokens_;  ///< By scope; guarded by mutex_.
  bool basic_ = false;                   ///< Guarded by mutex_.
};

/// How `url` is spoken to on behalf of `registry`. Client certificates and `insecure` are for the
/// endpoint's own host alone.
Transport transport_for(const std::string& url, const Access& access, const Endpoint& endpoint);

}  // namespace image::registry
