#pragma once
/// Addresses of git repositories, as contexts of builds and in Dockerfiles.

#include <string>
#include <string_view>

namespace base {

/// `git@…`, `git://…`, `ssh://…`, or `http(s)://….git`, each with an optional `#ref:folder`.
bool is_repository(std::string_view text);

/// `http://` or `https://`.
bool is_web_address(std::string_view text);

/// A context of a build: also `github.com/…`, which is no folder then. As git takes it, or "".
std::string repository_context(std::string_view text);

struct RepositoryAddress {
  std::string url;
  std::string ref;     ///< A branch, tag, commit or `refs/…`; empty: what the repository says.
  std::string folder;  ///< Inside the repository; empty: all of it.
};
/// `URL#ref:folder`, `URL#:folder`, `URL#ref`, `URL`.
RepositoryAddress parse_repository(std::string_view address);

}  // namespace base
