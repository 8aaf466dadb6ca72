#include "dns/resolv_conf.h"

#include <cstring>

#include <arpa/inet.h>
#include <net/if.h>

#include "base/text.h"

namespace dns {

bool Upstream::operator==(const Upstream& other) const {
  return family() == other.family() && std::memcmp(raw(), other.raw(), length()) == 0;
}

base::Result<Upstream> parse_upstream(std::string_view text, uint16_t port) {
  Upstream upstream;
  const std::string whole(text);
  auto* v4 = reinterpret_cast<sockaddr_in*>(&upstream.address);
  if (::inet_pton(AF_INET, whole.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    return upstream;
  }
  const size_t percent = whole.find('%');
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&upstream.address);
  if (::inet_pton(AF_INET6, whole.substr(0, percent).c_str(), &v6->sin6_addr) != 1)
    return base::fail(base::ErrorCode::InvalidArgument, "'{}' is not an address", text);
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  if (percent != std::string::npos)
    v6->sin6_scope_id = ::if_nametoindex(whole.c_str() + percent + 1);
  return upstream;
}

std::string format_upstream(const Upstream& upstream) {
  char text[INET6_ADDRSTRLEN] = "?";
  if (upstream.family() == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&upstream.address);
    ::inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
    return fmt::format("{}:{}", text, ntohs(v4->sin_port));
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&upstream.address);
  ::inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
  return fmt::format("[{}]:{}", text, ntohs(v6->sin6_port));
}

std::vector<Upstream> parse_resolv_conf(std::string_view text) {
  constexpr std::string_view blanks = " \t\r";
  constexpr std::string_view keyword = "nameserver";
  constexpr uint16_t dns_port = 53;
  std::vector<Upstream> upstreams;
  for (const std::string& line : base::split(text, '\n')) {
    if (upstreams.size() == upstreams_max) break;
    std::string_view rest(line);
    if (!rest.starts_with(keyword)) continue;
    rest.remove_prefix(keyword.size());
    const size_t start = rest.find_first_not_of(blanks);
    if (start == std::string_view::npos || start == 0) continue;
    rest.remove_prefix(start);
    const size_t end = rest.find_first_of(" \t\r#;");
    if (auto upstream = parse_upstream(rest.substr(0, end), dns_port))
      upstreams.push_back(*upstream);
  }
  return upstreams;
}

}  // namespace dns
