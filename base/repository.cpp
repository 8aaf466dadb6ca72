#include "base/repository.h"

namespace base {

bool is_web_address(std::string_view text) {
  return text.starts_with("http://") || text.starts_with("https://");
}

bool is_repository(std::string_view text) {
  if (text.starts_with("git@") || text.starts_with("git://") || text.starts_with("ssh://"))
    return true;
  return is_web_address(text) && text.substr(0, text.find('#')).ends_with(".git");
}

std::string repository_context(std::string_view text) {
  if (is_repository(text)) return std::string(text);
  if (text.starts_with("github.com/")) return "https://" + std::string(text);
  return {};
}

RepositoryAddress parse_repository(std::string_view address) {
  const size_t hash = address.find('#');
  RepositoryAddress parsed{.url = std::string(address.substr(0, hash)), .ref = {}, .folder = {}};
  if (hash == std::string_view::npos) return parsed;
  const std::string_view rest = address.substr(hash + 1);
  const size_t colon = rest.find(':');
  parsed.ref = rest.substr(0, colon);
  if (colon != std::string_view::npos) parsed.folder = rest.substr(colon + 1);
  return parsed;
}

}  // namespace base
